"""Many runs: each in a process of its own, a few at once; one that dies leaves the others alone.

Hydra's own launcher runs all jobs in one process and ends with the first that exits; its plugins
start all at once, or die with a killed worker. Here a job is a process, what is finished is
skipped, what another process is training is waited for, and signals reach every run.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from ..engine.signals import Interrupted
from ..engine.threads import waiting
from ..errors import UsageError
from ..logs import console, failure_table, result_table
from ..paths import config_dir_arguments
from ..runs.machine import usable_cores
from . import forced
from .forking import started
from .job import reason
from .plan import PlannedRun, settings_of

GRACE_SECONDS = 30  # a run told to end saves its state within that, or is killed
MOST_AT_ONCE = 1000
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class Failure:
    """A job that ended without a result, and why."""

    job: PlannedRun
    reason: str

    @property
    def log(self) -> str:
        """Where more is said, or nothing."""
        path = self.job.run.path / "train.log"
        return str(path) if path.exists() else ""


def sweep(jobs: Sequence[PlannedRun], make: Callable[[Sequence[PlannedRun]], list[Failure]]) -> int:
    """Make the jobs that are not finished and show what came out; 1 if one failed."""
    jobs = forced.assigned(jobs)
    failures = make(jobs)
    done = [(job, result.model_dump()) for job in jobs if (result := job.run.read_result())]
    if done:
        settings = settings_of([job for job, _ in done])
        console().print(result_table([result for _, result in done], settings))
    return show_failures(failures)


def show_failures(failures: Sequence[Failure]) -> int:
    """A table of what failed; the exit code of the whole."""
    if failures:
        rows = [(f.job.command, f.reason, f.log) for f in failures]
        console().print(failure_table(rows))
    return 1 if failures else 0


def number_of_jobs(at_once: object) -> int:
    """`jobs`, checked: a number, or its digits. Raises UsageError."""
    text = str(at_once)
    if not text.isdecimal() or not 1 <= int(text) <= MOST_AT_ONCE:
        raise UsageError(f"jobs={at_once}: how many runs at once, 1 to {MOST_AT_ONCE}")
    return int(text)


def run_all(jobs: Sequence[PlannedRun], at_once: int) -> list[Failure]:
    """Run the jobs that are not finished, `at_once` at the most at any time.

    Raises Interrupted after SIGTERM, SIGINT or SIGUSR1, when every run has saved its state.
    """
    forced.begin(jobs)
    failures = _run_all(jobs, at_once)
    if not failures:
        forced.end(jobs)
    return failures


def _run_all(jobs: Sequence[PlannedRun], at_once: int) -> list[Failure]:
    slots = _slots(at_once)
    waiting = deque(enumerate(jobs, 1))
    running: dict[int, _Process] = {}  # by slot
    failures: list[Failure] = []
    told = False
    with _forwarding(running) as received:
        while running or (waiting and not received):
            for slot, process in list(running.items()):
                if received and not process.is_told:  # it was being started when the signal came
                    process.tell(received[0])
                if process.poll() is not None:
                    del running[slot]
                    if not received:
                        _settle(process, waiting, failures)
            while waiting and not received and len(running) < at_once:
                number, job = _next(waiting)
                if job is None:
                    told = told or _tell_of_waiting(waiting, running)
                    break
                slot = next(s for s in range(at_once) if s not in running)
                counter = f"[{number}/{len(jobs)}]"
                console().print(f"{counter} {job.command}")
                running[slot] = _Process(number, job, slots[slot], counter if at_once > 1 else "")
            time.sleep(0.05)
    if received:
        raise Interrupted(received[0])
    return failures


def _next(waiting: deque[tuple[int, PlannedRun]]) -> tuple[int, PlannedRun | None]:
    """The next job that nobody holds; finished ones are dropped, held ones go to the end."""
    for _ in range(len(waiting)):
        number, job = waiting.popleft()
        if job.is_finished:
            continue
        if not job.run.is_locked():
            return number, job
        waiting.append((number, job))
    return 0, None


def _tell_of_waiting(
    waiting: deque[tuple[int, PlannedRun]], running: dict[int, "_Process"]
) -> bool:
    if not waiting or running:
        return False
    _, job = waiting[0]
    console().print(f"waiting for another process: {job.run.path}")
    return True


def _settle(
    process: "_Process", waiting: deque[tuple[int, PlannedRun]], failures: list[Failure]
) -> None:
    """Note a failure, unless another process was quicker to take the run."""
    job = process.job
    code = process.end()
    if code == 0 and job.run.read_result() is not None:
        return
    if job.is_finished or job.run.is_locked():
        waiting.append((process.number, job))
        return
    failure = Failure(job, process.reason)
    failures.append(failure)
    process.log_end()
    console().print(f"failed: {job.command}: {failure.reason}")


@contextmanager
def _forwarding(running: dict[int, "_Process"]) -> Iterator[list[int]]:
    """While it lasts, signals that come here go to every process; yields those that came."""
    received: list[int] = []

    def forward(signum: int, frame: object) -> None:
        received.append(signum)
        for process in running.values():
            process.tell(signum)

    before = {s: signal.signal(s, forward) for s in SIGNALS}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        for process in running.values():  # an error of our own: nothing is left behind
            process.tell(signal.SIGTERM)


class _Process:
    """A job's process. Its output passes through, marked where several speak at once."""

    def __init__(
        self, number: int, job: PlannedRun, environment: dict[str, str], mark: str
    ) -> None:
        self.number, self.job = number, job
        self._kill_at: float | None = None
        self._last: deque[str] = deque(maxlen=40)  # of what it wrote to standard error
        self._process = started(
            [*config_dir_arguments(), *job.overrides],
            {**os.environ, **(environment or waiting()), **job.config.as_environment},
            piped=bool(mark),
        )
        streams = [(self._process.stderr, sys.stderr, self._last.append)]
        if mark:
            streams.append((self._process.stdout, sys.stdout, lambda line: None))
        self._readers = [
            threading.Thread(target=_pass_on, args=(*stream, mark), daemon=True)
            for stream in streams
        ]
        for reader in self._readers:
            reader.start()

    def poll(self) -> int | None:
        """The exit code, or None while it runs; a process told to end long ago is killed."""
        if self._kill_at is not None and time.monotonic() > self._kill_at:
            self._process.kill()
        return self._process.poll()

    @property
    def is_told(self) -> bool:
        """Whether a signal was handed on to it."""
        return self._kill_at is not None

    def tell(self, signum: int) -> None:
        """Send a signal; it has its time to save."""
        self._kill_at = time.monotonic() + GRACE_SECONDS
        self._process.send_signal(signum)

    def end(self) -> int:
        """Read what is left of its output; the exit code."""
        for reader in self._readers:
            reader.join(timeout=5)
        if self._process.stdin:
            self._process.stdin.close()
        return self._process.wait()

    @property
    def reason(self) -> str:
        """Why it failed."""
        return reason(self._process.returncode, self._last)

    def log_end(self) -> None:
        """Put how it ended, with its last words, where its log is."""
        path = self.job.run.path / "train.log"
        if path.parent.is_dir():
            # a disk that is full, perhaps what ended the run, ends no other
            with suppress(OSError), open(path, "a", encoding="utf-8") as file:
                file.write("\n".join([*self._last, f"ended: {self.reason}"]) + "\n")


def _pass_on(source: IO[bytes], target: IO[str], note: Callable[[str], None], mark: str) -> None:
    for raw in source:
        line = raw.decode(errors="replace").rstrip("\n")
        note(line)
        with suppress(OSError):  # nobody reads on: the run's pipe is emptied all the same
            print(f"{mark} {line}".lstrip(), file=target, flush=True)


# what the processes share


def _slots(at_once: int) -> list[dict[str, str]]:
    """The environment of each slot: its share of the cores, and a GPU in turn.

    The share follows from `jobs` alone, not from the runs that are left: a study that was stopped
    and goes on has the threads of an undisturbed one, and so its last digits.
    """
    if at_once == 1:
        return [{}]
    shared = {}
    if "OMP_NUM_THREADS" not in os.environ:
        shared["OMP_NUM_THREADS"] = str(max(1, usable_cores() // at_once))
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        shared["GOMP_SPINCOUNT"] = "0"  # waiting threads leave the cores to the other runs
    found = gpus()
    return [
        shared | ({"CUDA_VISIBLE_DEVICES": found[slot % len(found)]} if found else {})
        for slot in range(at_once)
    ]


def gpus() -> list[str]:
    """The visible GPUs' names for CUDA_VISIBLE_DEVICES; no torch is loaded to find them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu for gpu in visible.split(",") if gpu]
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]  # MIG: indented
    return [str(index) for index, _ in enumerate(found)]
