"""A sweep: every run in a process of its own, so that one that dies leaves the others alone."""

import signal
import subprocess
import sys
from typing import Any

from .console import console, result_table
from .engine.signals import Interrupted
from .runs import Run

Job = tuple[list[str], dict[str, Any], dict[str, str]]


def sweep(jobs: list[Job]) -> int:
    """Run the jobs (overrides, configuration, choices) that are not finished; 1 if one failed.

    Hydra's own launcher runs all jobs in one process and ends with the first that exits; its
    plugins start all at once or die with a killed worker. Raises Interrupted after SIGTERM or
    SIGINT, when the run under way has saved its state.
    """
    screen = console()
    results, failed = [], []
    for number, (overrides, config, choices) in enumerate(jobs, 1):
        run = Run.of(config, choices)
        screen.print(f"[{number}/{len(jobs)}] lwbench train {' '.join(overrides)}", markup=False)
        if run.read_result() is None or config["force"]:
            code = _code([sys.executable, "-m", "lwbench", "train", *overrides])
            run = Run.of(config, choices)
            if code:
                failed.append((overrides, run, code))
        if result := run.read_result():
            results.append(result)
    if results:
        screen.print(result_table(results))
    for overrides, run, code in failed:
        command = f"lwbench train {' '.join(overrides)}"
        screen.print(f"failed with {code}: {command}; see {run.path}", markup=False)
    return 1 if failed else 0


def _code(command: list[str]) -> int:
    """The exit code of `command`, which is told of the signals that come here, each once.

    In a session of its own, or a terminal's Ctrl-C would reach it a second time, beside ours, and
    a second one ends a run without saving.
    """
    received: list[int] = []
    with subprocess.Popen(command, start_new_session=True) as process:

        def forward(signum: int, frame: object) -> None:
            received.append(signum)
            process.send_signal(signum)

        before = {s: signal.signal(s, forward) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            code = process.wait()
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
    if received:
        raise Interrupted(received[0])
    return code
