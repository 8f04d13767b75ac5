"""Runs as job arrays of SLURM: submitted once, requeued before their time limit, watched.

Each task is `srun lwbench worker study=... lines=...`, which becomes `lwbench train`. What was
submitted is recorded in `<out>/.slurm/<study>/`, so that any later command knows which runs are
queued; whether a run is finished or running, its directory says.
"""

import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from ..logs import console
from ..runs.files import explained_writes, write_atomically
from . import slurm_jobs
from .launchers import Slurm
from .local import Failure
from .plan import PlannedRun
from .slurm_jobs import Submission
from .study_file import written

MOST_REQUEUES = 50
POLL_SECONDS = 5.0

SCRIPT = """\
#!/usr/bin/env bash
{options}
# Array task i makes {per_job} of the lines of runs.txt, from line $1 + {runs_per_job} i.
set -u
cd {folder} || exit 1
# since 22.05 srun does not take it from sbatch
export SRUN_CPUS_PER_TASK=${{SLURM_CPUS_PER_TASK:-1}}
export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{threads}}}
first=$(($1 + {runs_per_job} * SLURM_ARRAY_TASK_ID))
last=$((first + {runs_per_job} - 1))

srun {worker} "lines=$first-$last"{jobs}
code=$?

{requeue}exit "$code"
"""
REQUEUE = """\
# 75: the signal arrived, the state is saved and the run is unfinished. Every other code is final.
if [ "$code" -eq 75 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {most} ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
"""


def run_all(jobs: Sequence[PlannedRun], keys: Slurm) -> list[Failure]:
    """Submit the runs that are neither finished nor queued; wait for all of them, if configured.

    A run whose job failed is submitted again. Returns the runs that have no result and are not
    queued. Raises LwbenchError where a command of SLURM fails.
    """
    # Two rows may share a run. The directory is looked up once: there may be very many.
    by_path = {job.run.path: job for job in jobs}
    jobs = [replace(job, directory=path) for path, job in by_path.items()]
    if not jobs:
        return []
    root = (Path(jobs[0].config.out) / ".slurm").absolute()
    with explained_writes(root):
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock"):  # two commands at once submit a run once
            states = slurm_jobs.states(jobs, root, must_ask=not keys.dry_run)
            _show(jobs, states)
            left = [job for job in jobs if states[job.run.path].state in slurm_jobs.TO_SUBMIT]
            if left:
                _submit(left, root, keys)
    if keys.dry_run or not keys.wait:
        return []
    return _watched(jobs, root)


def script(keys: Slurm, study: Path) -> str:
    """The batch script; its argument is the first line of the study that the array makes."""
    options = {
        "job-name": "lwbench",
        "ntasks": 1,
        "cpus-per-task": keys.cpus,
        "time": keys.time,
        # without B: the signal is for the step that srun starts, which is lwbench
        "signal": f"USR1@{keys.signal_before}",
        "open-mode": "append",
    }
    if keys.partition:
        options["partition"] = keys.partition
    if keys.gpus:
        options["gres"] = f"gpu:{keys.gpus}"
    lines = [f"--{name}={value}" for name, value in options.items()]
    lines += ["--requeue" if keys.requeue else "--no-requeue", *keys.extra]
    at_once = min(keys.per_device, keys.runs_per_job)
    worker = [sys.executable, "-m", "lwbench", "worker", f"study={study}"]
    return SCRIPT.format(
        options="\n".join(f"#SBATCH {line}" for line in lines),
        per_job="one" if keys.runs_per_job == 1 else keys.runs_per_job,
        runs_per_job=keys.runs_per_job,
        folder=shlex.quote(os.getcwd()),
        threads=max(1, keys.cpus // at_once),
        worker=shlex.join(worker),
        jobs=f" jobs={at_once}" if at_once > 1 else "",
        requeue=REQUEUE.format(most=MOST_REQUEUES) if keys.requeue else "",
    )


def arrays(runs: int, keys: Slurm, largest: int) -> list[tuple[int, int]]:
    """The first line and the number of tasks of each array; `largest`: MaxArraySize."""
    tasks = -(-runs // keys.runs_per_job)
    return [
        (1 + first * keys.runs_per_job, min(largest, tasks - first))
        for first in range(0, tasks, largest)
    ]


def _submit(jobs: Sequence[PlannedRun], root: Path, keys: Slurm) -> None:
    folder = slurm_jobs.folder(root, jobs)
    study, batch = folder / "runs.txt", folder / "job.sh"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(study, written(jobs))
    write_atomically(batch, script(keys, study))
    planned = arrays(len(jobs), keys, slurm_jobs.largest_array(keys.dry_run))
    if keys.dry_run:
        print(batch.read_text("utf-8"), end="")
        print(f"# written to {batch}; not submitted. To submit it:")
        print("\n".join(shlex.join(_sbatch(folder, *array, keys)) for array in planned))
        return
    for first, tasks in planned:
        number = slurm_jobs.output(_sbatch(folder, first, tasks, keys)).strip().partition(";")[0]
        made = jobs[first - 1 : first - 1 + tasks * keys.runs_per_job]
        paths = [str(one.run.path.absolute()) for one in made]
        submission = Submission(job=number, runs_per_job=keys.runs_per_job, runs=paths)
        slurm_jobs.record(folder, submission)
        console().print(f"submitted job {number}: {len(made):,} runs in {tasks:,} tasks")


def _sbatch(folder: Path, first: int, tasks: int, keys: Slurm) -> list[str]:
    limit = f"%{keys.array_limit}" if keys.array_limit else ""
    return [
        "sbatch", "--parsable", f"--array=0-{tasks - 1}{limit}",
        f"--output={folder}/%A_%a.log", str(folder / "job.sh"), str(first),
    ]  # fmt: skip


def _watched(jobs: Sequence[PlannedRun], root: Path) -> list[Failure]:
    """Wait until no run is queued; say when the numbers change. Returns the failures."""
    seen = ""
    while True:
        begin = time.monotonic()
        states = slurm_jobs.states(jobs, root)
        if (now := _counts(states)) != seen:
            console().print(f"{time.strftime('%H:%M:%S')}  {now}")
            seen = now
        if not any(one.is_active for one in states.values()):
            break
        # with very many runs, asking for their states takes a tenth of the time at most
        time.sleep(max(POLL_SECONDS, 10 * (time.monotonic() - begin)))
    return [
        Failure(job, one.text or "its job has ended without a result")
        for job in jobs
        if (one := states[job.run.path]).state != "finished"
    ]


def _counts(states: Mapping[Path, slurm_jobs.RunState]) -> str:
    found = Counter(one.state for one in states.values())
    counts = ", ".join(f"{found[state]:,} {state}" for state in slurm_jobs.STATES if found[state])
    reasons = sorted({one.text for one in states.values() if one.state == "queued" and one.text})
    because = f"; SLURM: {', '.join(reasons)}" if reasons else ""
    return f"{len(states):,} runs: {counts}{because}"


def _show(jobs: Sequence[PlannedRun], states: Mapping[Path, slurm_jobs.RunState]) -> None:
    console().print(_counts(states))
    for job in jobs:
        one = states[job.run.path]
        if one.state in ("failed", "running"):
            console().print(f"  {one.state}: {job.command}: {one.text}", highlight=False)
