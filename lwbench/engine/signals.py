"""Signals that wait for a step to finish, or that end what has no steps at once."""

import os
import signal
import threading

# SIGUSR1: a scheduler's notice that time is up (SLURM's --signal=B:USR1@300)
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
PATIENCE_S = 20.0  # for the step under way; a compilation or a dead disk may take for ever


class Interrupted(BaseException):
    """A signal ended the work. Not an Exception, which what it passes through might catch.

    `step_finished`: it came between two steps, so that the state can be saved; `saved`: it is.
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
    """Remembers SIGTERM, SIGINT, SIGUSR1 until `raise_if_received`; a second SIGINT ends at once.

    Where no step ends within `patience_s`, Interrupted is raised wherever the program stands; with
    0 always so.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._received = 0
        self._timer: threading.Timer | None = None
        self._is_late = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        for signum in HANDLED:
            try:
                self._before[signum] = signal.signal(signum, self._remember)
            except ValueError:  # not the main thread: signals are its owner's business
                break
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_waiting()
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _remember(self, signum: int, frame: object) -> None:
        if self._is_late:
            raise Interrupted(self._received)
        if self._received == signum == signal.SIGINT:
            raise KeyboardInterrupt
        if self._received:
            return
        self._received = signum
        if not self._patience_s:
            raise Interrupted(signum)
        self._timer = threading.Timer(self._patience_s, self._give_up)
        self._timer.daemon = True
        self._timer.start()

    def _give_up(self) -> None:
        self._is_late = True  # and the main thread is told by the signal, sent again
        signal.pthread_kill(threading.main_thread().ident, self._received)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def raise_if_received(self) -> None:
        """Raises Interrupted where a signal has come; to be called between steps."""
        if self._received:
            self._stop_waiting()
            raise Interrupted(self._received, step_finished=True)
