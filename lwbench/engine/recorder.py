"""Records of a training while it runs; a full disk costs a warning, but neither run nor result."""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..runs.directory import Run
from ..runs.files import explained_writes, replacing
from ..runs.schema import Row
from . import checkpoint
from .curves import Curves

log = logging.getLogger("lwbench")

Arrays = Mapping[str, np.ndarray]


class Recorder:
    """Writes the records of `run`; what cannot be written is written at the next occasion."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._curves = Curves(run.path)
        # what could not be written yet
        self._best: dict[str, Any] | None = None
        self._last: dict[str, Any] | None = None
        self._has_warned = False

    def epoch(self, rows: Sequence[Row]) -> None:
        """Write metrics.csv and the curves. `rows`: one per epoch, from the first epoch on."""
        self._attempt(lambda: self.run.write_metrics(rows))
        self._attempt(lambda: self._curves.write(rows))

    def best(self, state: dict[str, Any]) -> None:
        """Take the weights of the best epoch so far; `checkpoint` must follow before training."""
        self._best = state

    def checkpoint(
        self, state: dict[str, Any], *, epochs: int, steps: int, cuda_graph: bool | None = None
    ) -> bool:
        """Write best.pt and last.pt, and return whether that worked.

        The former last.pt becomes previous.pt. `epochs` and `steps`: what this start of the run has
        trained, for env.json; `cuda_graph`: whether steps are replayed, None on CPUs.
        """
        self._last = state
        is_saved = self._attempt(self._write_checkpoints)
        if is_saved:
            self._attempt(
                lambda: self.run.record_progress(epochs=epochs, steps=steps, cuda_graph=cuda_graph)
            )
        elif self._best is not None:
            # training goes on to change these very tensors, and may make them worse
            self._best = copy.deepcopy(self._best)
        return is_saved

    def finish(self, rows: Sequence[Row], arrays: Mapping[str, Arrays]) -> None:
        """Write everything, `arrays` as <name>.npz. Raises LwbenchError where that fails."""
        with explained_writes(self.run.path):
            self.run.write_metrics(rows)
            for name, content in arrays.items():
                _write_arrays(self.run.path / f"{name}.npz", content)
            self._write_checkpoints()
        # curves are for looking at: no result is lost without them
        self._attempt(lambda: self._curves.write(rows))

    def _write_checkpoints(self) -> None:
        folder = self.run.checkpoints
        # best.pt first: last.pt says which epoch was the best, and must not be ahead of it
        if self._best is not None:
            checkpoint.save(folder / "best.pt", self._best)
            self._best = None
        if self._last is not None:
            checkpoint.save(folder / "last.pt", self._last, previous=folder / "previous.pt")
            self._last = None

    def _attempt(self, write: Callable[[], None]) -> bool:
        try:
            write()
        except OSError as error:
            reason = error.strerror or str(error)
            log.log(
                # a disk that stays full fails at every epoch: one warning is enough on the screen
                logging.INFO if self._has_warned else logging.WARNING,
                "cannot write to %s (%s): training continues, and the next save tries again",
                self.run.path,
                reason,
            )
            self._has_warned = True
            return False
        return True


class NoRecorder:
    """In place of a `Recorder`, of the processes that do not write the run."""

    def epoch(self, rows: Sequence[Row]) -> None: ...

    def best(self, state: dict[str, Any]) -> None: ...

    def checkpoint(self, state: dict[str, Any], **_: Any) -> bool:
        return True

    def finish(self, rows: Sequence[Row], arrays: Mapping[str, Arrays]) -> None: ...


def _write_arrays(path: Path, arrays: Arrays) -> None:
    with replacing(path) as file:
        # arrays of objects would be pickled, and readers would have to allow that
        np.savez_compressed(file, allow_pickle=False, **arrays)
