"""One run of a sweep, in a process of its own: `python -m lwbench.sweeps.job key=value ...`.

Its standard input is a pipe that the sweep holds open. When that closes, the sweep is gone, however
it died, and the run saves its state and ends, as after SIGTERM: nothing is left behind that would
hold the run's lock.
"""

import os
import signal
import sys
import threading

from ..cli import main


def _end_with_the_sweep() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    # what is recorded as the run's command is what a user would type
    sys.argv = ["lwbench", "train", *sys.argv[1:]]
    sys.exit(main())
