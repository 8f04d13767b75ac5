"""Signals that wait for a step to finish."""

import signal


class Interrupted(Exception):
    """A signal ended the work after its state was saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Signals:
    """Remembers SIGTERM and SIGINT until `raise_if_received`; a second SIGINT ends at once."""

    def __init__(self) -> None:
        self._received = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Signals":
        for signum in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[signum] = signal.signal(signum, self._remember)
            except ValueError:  # not the main thread: signals are its owner's business
                break
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def _remember(self, signum: int, frame: object) -> None:
        if self._received == signum == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = signum

    def raise_if_received(self) -> None:
        """Raises Interrupted where a signal has come."""
        if self._received:
            raise Interrupted(self._received)
