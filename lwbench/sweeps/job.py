"""One run of a sweep, in its own process: `python -m lwbench.sweeps.job key=value ...`.

Its standard input is a pipe that the sweep holds open. When the pipe closes, the sweep has ended in
whatever way, and the run saves its state and ends as after SIGTERM: no process is left behind that
would hold the run's lock.
"""

import os
import runpy
import signal
import sys
import threading
from collections.abc import Iterable, Sequence


def command(words: Sequence[str]) -> list[str]:
    """The command of a run's process; `words`: its overrides, `--config-dir` before them."""
    return [sys.executable, "-X", "faulthandler", "-m", "lwbench.sweeps.job", *words]


def reason(code: int, last: Iterable[str]) -> str:
    """Why a process failed: the signal that ended it, or its own message in its last lines."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    if code == 0:
        return "ended without a result"
    said = [line for line in last if line.startswith("lwbench: ")]
    return said[-1].removeprefix("lwbench: ") if said else f"exit code {code}"


def _end_with_the_sweep() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def run(words: Sequence[str]) -> None:
    """Train with these words until it ends or standard input closes; raises SystemExit."""
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    # recorded as the run's command: what a user would type
    sys.argv = ["lwbench", "train", *words]
    runpy.run_module("lwbench.__main__", run_name="__main__")


if __name__ == "__main__":
    run(sys.argv[1:])
