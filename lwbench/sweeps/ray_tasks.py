"""Runs as tasks of Ray: each starts the isolated process of a run, on whichever node has room."""

import logging
import os
import subprocess
import textwrap
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, as_completed
from pathlib import Path
from typing import Any

from ..errors import LwbenchError
from ..logs import console
from ..paths import config_dir_arguments
from ..runs.directory import Run
from .job import command, reason
from .launchers import Ray
from .local import Failure
from .plan import PlannedRun

log = logging.getLogger("lwbench")


def run_all(jobs: Sequence[PlannedRun], keys: Ray) -> list[Failure]:
    """Make the runs that are not finished; returns those that ended without a result.

    A run whose node is lost is started again elsewhere, and resumes. When this process ends, in
    whatever way, its tasks end, and their runs save their state. Raises LwbenchError without Ray.
    """
    left = list({job.run.path: job for job in jobs if not job.is_finished}.values())
    if not left:
        return []
    ray = _connected(keys)
    try:
        task = ray.remote(_made).options(
            num_cpus=keys.cpus,
            num_gpus=keys.gpus / keys.per_device,
            max_retries=keys.retries,
        )
        waiting = {_submitted(task, job).future(): job for job in left}
        console().print(f"{len(left):,} runs submitted to Ray")
        return _watched(waiting)
    finally:
        ray.shutdown()


def _connected(keys: Ray) -> Any:
    """Ray, connected to a cluster, or to processes that it has started on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to its makers
    try:
        import ray
        from ray._private import worker
    except ImportError:
        raise LwbenchError("launcher=ray needs Ray: pip install lwbench[ray]") from None
    try:
        ray.init(
            address=keys.address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        # of a node that is lost, Ray prints 40 lines, and has no setting for it
        worker.print_to_stdstream = _shortened
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise LwbenchError(f"no Ray at launcher.address={keys.address}: {reason}") from None
    return ray


def _shortened(data: dict[str, Any], ignore_prefix: bool = False) -> None:
    """Say the first words of what Ray reports of its nodes and of retries."""
    text = " ".join(data["lines"]).strip()
    log.warning("Ray: %s", textwrap.shorten(text.partition("\n")[0], 160, placeholder=" ..."))


def _submitted(task: Any, job: PlannedRun) -> Any:
    words = [*config_dir_arguments(), *job.overrides]
    return task.remote(words, job.config.as_environment, os.getcwd(), str(job.run.path))


def _made(words: list[str], environment: dict[str, str], folder: str, path: str) -> str:
    """Make one run in a process of its own; returns why it failed, or nothing. A task of Ray."""
    run = Run(Path(folder, path))
    while run.is_locked() and not run.has_result:
        time.sleep(1)  # the process on a lost node may still be saving its state
    last: deque[str] = deque(maxlen=40)
    process = subprocess.Popen(
        # its input is a pipe: it ends, and saves its state, when this worker ends
        command(words),
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,  # train.log has it
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stderr
    last.extend(line.rstrip() for line in process.stderr)
    code = process.wait()
    return "" if code == 0 and run.has_result else reason(code, last)


def _watched(tasks: Mapping[Future[str], PlannedRun]) -> list[Failure]:
    """Say what became of each run when its task ends. Returns the failures."""
    failures = []
    # told of each end: ray.wait of all that are left takes a time that grows with their number
    for number, done in enumerate(as_completed(tasks), 1):
        job, counter = tasks[done], f"[{number}/{len(tasks)}]"
        error = done.exception()  # of Ray's: its node was lost too often, or its memory was full
        if job.run.read_result() is not None:
            console().print(f"{counter} finished: {job.command}", highlight=False)
            continue
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0] if error else ""
        reason = reason or done.result() or "ended without a result"
        failures.append(Failure(job, reason))
        console().print(f"{counter} failed: {job.command}: {reason}", highlight=False)
    return failures
