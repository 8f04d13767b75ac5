"""Where messages go: warnings to the screen, everything to the run's train.log."""

import logging
import sys

from .runs import Run

log = logging.getLogger("lwbench")


class Screen(logging.Handler):
    """Warnings, on whatever standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "on_screen", True):
            print(f"lwbench: {record.getMessage()}", file=sys.stderr)

    def handleError(self, record: logging.LogRecord) -> None:
        """A screen that is gone ends no run."""


class RunLog(logging.Handler):
    """While it lasts, the log goes to the run's train.log too, and so do libraries' warnings.

    A full disk costs one warning: Python's own handler would print a traceback a message. What
    could not be written is kept, and written with a later message where there is room again.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._path = run.path / "train.log"
        self._waiting = b""
        self._has_warned = False

    def __enter__(self) -> None:
        logging.captureWarnings(True)
        for name in ("lwbench", "py.warnings"):
            logging.getLogger(name).addHandler(self)

    def __exit__(self, *_: object) -> None:
        for name in ("lwbench", "py.warnings"):
            logging.getLogger(name).removeHandler(self)
        logging.captureWarnings(False)

    def emit(self, record: logging.LogRecord) -> None:
        self._waiting += f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        try:
            with open(self._path, "ab", buffering=0) as file:
                self._waiting = self._waiting[file.write(self._waiting) :]
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                reason = error.strerror or error
                print(f"lwbench: cannot write to {self._path} ({reason})", file=sys.stderr)


log.setLevel(logging.INFO)
log.addHandler(Screen(logging.WARNING))
