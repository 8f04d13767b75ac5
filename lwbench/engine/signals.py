"""Signals that end a training after the current step, and other work at once."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

# SIGUSR1: a scheduler's notice that the time is nearly up (SLURM's --signal)
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
PATIENCE_S = 20.0  # for the current step; a compilation or a dead disk may take for ever

Handler = Callable[[int, FrameType | None], Any] | int | None


class Interrupted(BaseException):
    """A signal ended the work. Not an Exception, so that `except Exception` does not catch it.

    `step_finished`: it was raised between two steps, so that the state can be saved; `saved`:
    whether it was.
    """

    def __init__(self, signum: int, *, step_finished: bool = False) -> None:
        super().__init__(signum)
        self.signum, self.step_finished, self.saved = signum, step_finished, False

    @property
    def exit_code(self) -> int:
        """143 for SIGTERM, 130 for SIGINT, 75 for SIGUSR1.

        75 is sysexits.h's EX_TEMPFAIL, "try again later": with 0 a scheduler would count the
        unfinished run as completed and start the jobs that depend on it.
        """
        return os.EX_TEMPFAIL if self.signum == signal.SIGUSR1 else 128 + self.signum


class Signals:
    """Notes SIGTERM, SIGINT and SIGUSR1 until `raise_if_received` is called.

    A second SIGINT raises KeyboardInterrupt at once. Where no step ends within `patience_s`,
    Interrupted is raised wherever the program is; with 0, at once.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._received = 0
        self._timer: threading.Timer | None = None
        self._is_late = False
        self._before: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> "Signals":
        for signum in HANDLED:
            try:
                self._before[signum] = signal.signal(signum, self._receive)
            except ValueError:  # only the main thread may set handlers
                break
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_timer()
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        # sent by `_give_up`, or by a user whose patience has ended too
        if self._is_late:
            raise Interrupted(self._received)
        if self._received == signum == signal.SIGINT:
            raise KeyboardInterrupt
        # schedulers repeat their signals; the first one decides the exit code
        if self._received:
            return
        self._received = signum
        if not self._patience_s:
            raise Interrupted(signum)
        self._timer = threading.Timer(self._patience_s, self._give_up)
        self._timer.daemon = True  # must not keep the process alive after its work is done
        self._timer.start()

    def _give_up(self) -> None:
        self._is_late = True
        # An exception of this timer's thread would not reach the main thread. The same signal again
        # does, and wakes it from a system call as well.
        if (main := threading.main_thread().ident) is not None:
            signal.pthread_kill(main, self._received)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    @property
    def received(self) -> int:
        """The number of the first signal that was received, or 0."""
        return self._received

    def raise_if_received(self, signum: int | None = None) -> None:
        """Raise Interrupted if a signal was received; to be called between steps.

        `signum`: one that any process of the training has received, which then ends all of them.
        """
        if signum or self._received:
            self._stop_timer()
            raise Interrupted(signum or self._received, step_finished=True)
