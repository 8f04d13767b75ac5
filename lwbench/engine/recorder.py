"""What a training writes while it runs. A full disk costs it one warning and no result."""

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..runs.directory import Run
from ..runs.files import explained_writes, write_atomically
from . import checkpoint
from .curves import Curves

log = logging.getLogger("lwbench")


class Recorder:
    """The records of `run`. What cannot be written is kept and tried again at the next occasion."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._curves = Curves(run.path)
        self._best: bytes | None = None  # until they are on disk
        self._last: bytes | None = None
        self._trained = 0, 0
        self._has_warned = False

    def epoch(self, rows: list[dict[str, Any]]) -> None:
        """Write metrics.csv and the curves; `rows`: an epoch each, from the first."""
        self._attempt(lambda: self.run.write_metrics(rows))
        self._attempt(lambda: self._curves.write(rows))

    def best(self, state: dict[str, Any]) -> None:
        """The best epoch's weights, written with the next checkpoint."""
        self._best = checkpoint.packed(state)

    def checkpoint(self, state: dict[str, Any], *, epochs: int, steps: int) -> bool:
        """Write best.pt and last.pt; whether that worked. The last.pt before is previous.pt.

        `epochs`, `steps`: what this start has trained, for env.json.
        """
        self._last = checkpoint.packed(state)
        self._trained = epochs, steps
        return self._attempt(self._write_checkpoints)

    def finish(self, rows: list[dict[str, Any]], arrays: dict[str, dict[str, np.ndarray]]) -> None:
        """Write everything, `arrays` as <name>.npz. Raises LwbenchError where that fails."""
        with explained_writes(self.run.path):
            self.run.write_metrics(rows)
            for name, content in arrays.items():
                _write_arrays(self.run.path / f"{name}.npz", content)
            self._write_checkpoints()
        self._attempt(lambda: self._curves.write(rows))

    def _write_checkpoints(self) -> None:
        folder = self.run.checkpoints
        if self._best is not None:  # first: last.pt says which epoch is the best
            checkpoint.save(folder / "best.pt", self._best)
            self._best = None
        if self._last is not None:
            checkpoint.save(folder / "last.pt", self._last, previous=folder / "previous.pt")
            self.run.record_progress(epochs=self._trained[0], steps=self._trained[1])
            self._last = None

    def _attempt(self, write: Callable[[], None]) -> bool:
        try:
            write()
        except OSError as error:
            reason = error.strerror or str(error)
            log.log(
                logging.INFO if self._has_warned else logging.WARNING,
                "cannot write to %s (%s): training goes on, and tries again",
                self.run.path,
                reason,
            )
            self._has_warned = True
            return False
        return True


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())
