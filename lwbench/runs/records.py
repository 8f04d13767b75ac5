"""Finished runs, read back from their directories: local ones, and those kept beside them.

Kept runs lie under `<out>/measured`, laid out as local ones are, without weights.
"""

import csv
import logging
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from ..errors import UsageError
from .directory import Run
from .files import read_json
from .runconfig import RunConfig

log = logging.getLogger("lwbench")

KEPT = "measured"  # the folder of kept runs, inside the one of local runs
KEPT_FILES = (
    "config.yaml", "env.json", "metrics.csv", "result.json", "confusion.npz", "offsets.npz",
)  # fmt: skip


class Figures(BaseModel):
    """What an epoch reached: accuracies in percent, losses as mean cross-entropy."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    epoch: PositiveInt
    test_loss: float
    test_top1: float
    test_top5: float
    train_top1: float


class Result(BaseModel):
    """result.json, checked."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    identity: str
    model: str
    data: str
    seed: NonNegativeInt
    epochs: PositiveInt
    precision: str
    device: str
    params: PositiveInt
    seconds: float
    images_per_s: float
    final: Figures
    best: Figures


@dataclass(frozen=True)
class Record:
    """A finished run. Its configuration, environment and metrics are read when asked for."""

    run: Run
    result: Result
    kept: bool  # from <out>/measured
    finished: float  # when result.json was written, seconds since the epoch

    @cached_property
    def config(self) -> RunConfig:
        """The resolved configuration. Raises UsageError where it is damaged."""
        return self.run.read_config()

    @cached_property
    def env(self) -> dict[str, Any]:
        """Versions, device, revision and command; empty where env.json is damaged."""
        return self.run.read_env()

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.csv, an epoch each; values that are no numbers are left out.

        Empty, with a warning, where the file is damaged.
        """
        try:
            return [_numbers(row) for row in self.run.metrics()]
        except (OSError, ValueError, csv.Error):  # ValueError: no text
            log.warning("%s is damaged and left out", self.run.path / "metrics.csv")
            return []

    def value(self, kind: str, select: str = "final") -> float:
        """An accuracy or error rate in percent: kind top1, top5, top1_error or top5_error."""
        figures: Figures = getattr(self.result, select)
        accuracy = getattr(figures, f"test_{kind.removesuffix('_error')}")
        return 100 - accuracy if kind.endswith("_error") else accuracy


def records(out: Path, *, kept: bool = True) -> list[Record]:
    """All finished runs under `out`, by path, those kept under `out`/measured after the local ones.

    A damaged result is left out, with a warning.
    """
    found = _records(out, False)
    return found + (_records(out / KEPT, True) if kept else [])


def chosen(found: Iterable[Record]) -> list[Record]:
    """One run per identity, seed and precision: the newest finished one, local before kept."""
    newest: dict[tuple[str, int, str], Record] = {}
    for record in sorted(found, key=lambda r: (not r.kept, r.finished)):
        newest[record.result.identity, record.result.seed, record.result.precision] = record
    return list(newest.values())


def keep(record: Record, out: Path) -> Path:
    """Copy a run's records, but not its weights, to `out`/measured; returns the new directory."""
    source = record.run.path
    target = out / KEPT / record.result.data / record.result.model / source.name
    target.mkdir(parents=True, exist_ok=True)
    for name in KEPT_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    return target


def _records(out: Path, kept: bool) -> list[Record]:
    found = (_record(path, kept) for path in sorted(out.glob("*/*/*/result.json")))
    return [record for record in found if record is not None]


def _record(path: Path, kept: bool) -> Record | None:
    try:
        content: Mapping[str, Any] = read_json(path) or {}
        result = Result.model_validate(content)
        return Record(Run(path.parent), result, kept, path.stat().st_mtime)
    except (ValidationError, OSError, UsageError):
        log.warning("%s is damaged and left out", path)
        return None


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    numbers = {}
    for key, text in row.items():
        try:
            numbers[key] = float(text)
        except (TypeError, ValueError):
            continue
    return numbers
