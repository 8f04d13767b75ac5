"""What became of submitted runs: by their directories, SLURM's queue and the records of arrays."""

import hashlib
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from ..errors import LwbenchError
from ..runs.files import read_json, write_json
from .plan import PlannedRun

# squeue's reasons of tasks that run, or that start when others have ended
ITS_TURN = {"None", "Resources", "Priority", "JobArrayTaskLimit", "BeginTime"}
STATES = ("finished", "running", "queued", "failed", "interrupted", "missing")
TO_SUBMIT = ("failed", "interrupted", "missing")
MAX_ARRAY_SIZE = 1001  # SLURM's default
LAST_BYTES = 4096  # of a log, to find its last line in


class Submission(BaseModel):
    """An array: its job number, and the run directories in the order of its tasks."""

    job: str
    runs_per_job: int
    runs: list[str]


@dataclass(frozen=True)
class RunState:
    """One of STATES, and the last line of the log where there is one."""

    state: str
    text: str = ""

    @property
    def is_active(self) -> bool:
        """Whether SLURM or a process still works on it."""
        return self.state in ("running", "queued")


def folder(root: Path, jobs: Sequence[PlannedRun]) -> Path:
    """Where the submission of these runs is kept."""
    names = "\n".join(str(job.run.path) for job in jobs)
    return root / hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def record(where: Path, submission: Submission) -> None:
    """Add an array to what was submitted from the folder `where`."""
    write_json(where / f"job-{submission.job}.json", submission.model_dump())


def states(jobs: Sequence[PlannedRun], root: Path, must_ask: bool = True) -> dict[Path, RunState]:
    """The state of every run. Raises LwbenchError where the queue cannot be read and `must_ask`."""
    tasks = _tasks(root)
    active = _active(must_ask) if tasks else {}
    found = {}
    for job in jobs:
        run = job.run
        log, task = tasks.get(str(run.path.absolute()), (None, ""))
        if run.has_result and job.is_finished:
            found[run.path] = RunState("finished")
        elif run.is_locked():
            found[run.path] = RunState("running", last_line(run.path / "train.log"))
        elif task in active:
            found[run.path] = RunState("queued", active[task])
        elif log is not None:
            said = last_line(log, "lwbench: ") or last_line(run.path / "train.log")
            found[run.path] = RunState("failed", said or f"no output; see {log}")
        else:
            is_begun = (run.checkpoints / "last.pt").exists()
            found[run.path] = RunState("interrupted" if is_begun else "missing")
    return found


def last_line(path: Path, start: str = "") -> str:
    """The last line of a file that is not empty and begins with `start`, or nothing."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - LAST_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    found = [line.strip() for line in lines if line.strip() and line.startswith(start)]
    return found[-1].removeprefix(start) if found else ""


def largest_array(is_dry: bool) -> int:
    """The cluster's MaxArraySize; its default where a dry run finds no cluster."""
    try:
        text = output(["scontrol", "show", "config"])
    except LwbenchError:
        if not is_dry:
            raise
        text = ""
    found = re.search(r"MaxArraySize\s*=\s*(\d+)", text)
    return max(1, int(found[1])) if found else MAX_ARRAY_SIZE


def output(command: Sequence[str]) -> str:
    """What a command of SLURM prints. Raises LwbenchError where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        raise LwbenchError(
            f"{command[0]} is not installed here: launcher=slurm is for a machine that submits "
            "jobs; launcher.dry_run=true prints the script"
        ) from None
    except subprocess.TimeoutExpired:
        raise LwbenchError(f"{command[0]} did not answer within 120 s") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise LwbenchError(f"{command[0]} failed: {said}")
    return done.stdout


def _active(must_ask: bool) -> dict[str, str]:
    """The tasks in the queue, as `<job>_<task>`: waiting, running, or about to be requeued.

    Each with the reason for which it waits, where that is not its turn.
    """
    try:
        lines = output(["squeue", "--me", "-h", "-r", "-o", "%F_%K %r"]).splitlines()
    except LwbenchError:
        if must_ask:
            raise
        return {}
    tasks = (line.partition(" ")[::2] for line in lines)
    return {task: "" if reason in ITS_TURN else reason for task, reason in tasks}


def _tasks(root: Path) -> dict[str, tuple[Path, str]]:
    """The log and the `<job>_<task>` that last had each run, by the run's directory."""
    found = {}
    for where, submission in sorted(_submissions(root), key=lambda one: int(one[1].job)):
        for number, run in enumerate(submission.runs):
            task = f"{submission.job}_{number // submission.runs_per_job}"
            found[run] = (where / f"{task}.log", task)
    return found


def _submissions(root: Path) -> Iterator[tuple[Path, Submission]]:
    for path in root.glob("*/job-*.json"):
        try:
            submission = Submission.model_validate(read_json(path) or {})
        except ValidationError:
            continue
        if submission.job.isdecimal() and submission.runs_per_job > 0:
            yield path.parent, submission
