"""Finished runs, read back from their directories: local and archived ones.

Archived runs are under `<out>/measured`, in the same layout as local ones, without weights.
"""

import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

from ..errors import UsageError
from .directory import Run
from .provenance import revision_text
from .runconfig import RunConfig
from .schema import Environment, Figures, Images, Result, Start
from .sources import FOLDER

K = TypeVar("K")
ARCHIVE = "measured"  # the folder of archived runs, inside the one of local runs
ARCHIVED_FILES = (
    "config.yaml", "env.json", "metrics.csv", "result.json", "confusion.npz", "offsets.npz",
    "predictions.npz",
)  # fmt: skip
ARCHIVED_BYTES = 250_000  # of offsets.npz, so that an archived run stays below 300 kB


@dataclass(frozen=True)
class Record:
    """A finished run. Configuration, environment and metrics are read on first use."""

    run: Run
    result: Result
    is_archived: bool
    # `encoded` of the images, where another run of the same files has recorded it and this has not
    encoded_elsewhere: str | None = None

    @cached_property
    def config(self) -> RunConfig:
        """The resolved configuration of this very result.

        Raises UsageError where it is damaged, or was changed since: its identity is not the
        result's.
        """
        config = self.run.read_config()
        if config.identity != self.result.identity:
            raise UsageError(
                f"{self.run.path / 'config.yaml'} was changed: it describes {config.identity}, the "
                f"result is of {self.result.identity}"
            )
        return config

    @cached_property
    def environment(self) -> Environment:
        """All that env.json says, validated; unknown fields where it is damaged or missing."""
        return self.run.environment()

    @property
    def starts(self) -> tuple[Start, ...]:
        """Every start of the run, oldest first; one in records of version 0.1."""
        return self.environment.starts

    @property
    def data(self) -> Images:
        """The images it was made with."""
        return self.environment.data

    @cached_property
    def finished(self) -> str:
        """When it finished, as ISO 8601 text in UTC; "" where unknown.

        Records of version 0.1 have no such time: when they were last started is taken for it.
        """
        if self.result.finished is not None:
            return self.result.finished
        return (self.starts and self.starts[-1].started) or ""

    @property
    def order(self) -> tuple[str, int]:
        """A key that sorts the runs of one configuration by age.

        Times of change of files say nothing: clones and copies set them.
        """
        return self.finished, self.run.number

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.csv, one per epoch, without values that are not finite numbers.

        Empty, with a warning, where the file is damaged.
        """
        return [_numbers(row) for row in self.run.metrics()]

    def value(self, kind: str, select: str = "final") -> float:
        """Return an accuracy or error in percent: kind top1, top5, top1_error or top5_error."""
        figures: Figures = getattr(self.result, select)
        return figures.value(kind)


def records(out: Path, *, archived: bool = True) -> list[Record]:
    """Return all finished runs under `out`, sorted by path; archived ones after the local ones.

    A damaged result is left out, with a warning.
    """
    found = _records(out, False)
    return _with_encoded(found + (_records(out / ARCHIVE, True) if archived else []))


def chosen(found: Iterable[Record]) -> list[Record]:
    """Return one run per identity, seed and precision: the newest, local before archived."""
    newest: dict[tuple[str, int, str], Record] = {}
    for record in sorted(found, key=lambda r: (not r.is_archived, *r.order)):
        newest[record.result.identity, record.result.seed, record.result.precision] = record
    return list(newest.values())


def grouped(found: Iterable[Record], key: Callable[[Record], K]) -> dict[K, list[Record]]:
    """The records by what `key` says of them, in their order."""
    groups: dict[K, list[Record]] = {}
    for record in found:
        groups.setdefault(key(record), []).append(record)
    return groups


def devices(found: Iterable[Record]) -> list[str]:
    """The devices that the runs were trained on, each once."""
    names = (start.device or r.result.device for r in found for start in _trained(r))
    return list(dict.fromkeys(names))


def revisions(found: Iterable[Record]) -> list[str]:
    """The code that made the runs: short git revisions, `+` if modified, or version numbers."""
    names = (
        revision_text(start) or f"version {start.versions.get('lwbench')}"
        for record in found
        for start in _trained(record)
    )
    return ["unknown" if name == "version None" else name for name in dict.fromkeys(names)]


def _trained(record: Record) -> tuple[Start, ...]:
    """The starts that trained, or one of which nothing is known."""
    return record.environment.trained or (Start(),)


def archive(record: Record, out: Path) -> Path:
    """Copy a run's records, but not its weights, to `out`/measured; return the new directory.

    Offsets are those of as many images as fit into `ARCHIVED_BYTES`.
    """
    source = record.run.path
    # by the directory's own place: a result may be a stranger's, and name any path
    target = out / ARCHIVE / Path(*source.parts[-3:])
    target.mkdir(parents=True, exist_ok=True)
    for name in ARCHIVED_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    _shorten(target / "offsets.npz")
    if (code := source / FOLDER).is_dir():
        shutil.copytree(code, target / FOLDER, symlinks=True, dirs_exist_ok=True)
    return target


def _shorten(path: Path) -> None:
    """Keep the first images alone in a file of offsets that is too large; drop one that is damaged.

    Nothing is kept where the offsets of a single image are too large.
    """
    if not path.is_file() or (size := path.stat().st_size) <= ARCHIVED_BYTES:
        return
    import numpy as np

    try:
        with np.load(path) as content:
            arrays = dict(content)
        images = int(ARCHIVED_BYTES / size * len(arrays["images"]))
    except (OSError, ValueError, KeyError, BadZipFile):
        images = 0
    path.unlink()
    if images:
        np.savez_compressed(path, **{name: array[:images] for name, array in arrays.items()})


def _records(out: Path, is_archived: bool) -> list[Record]:
    runs = (Run(path.parent) for path in sorted(out.glob("*/*/*/result.json")))
    return [Record(run, result, is_archived) for run in runs if (result := run.read_result())]


def _with_encoded(found: list[Record]) -> list[Record]:
    """Give runs from before `encoded` was recorded that of a later run of the same files."""
    # so that seeds trained before and after share a cell
    all_images = [record.data for record in found]
    known: dict[tuple[str | None, str | None], str] = {
        (i.digest, i.content): i.encoded for i in all_images if i.encoded and i.content
    }
    return [
        replace(record, encoded_elsewhere=known.get((images.digest, images.content)))
        if known and not images.encoded
        else record
        for record, images in zip(found, all_images, strict=True)
    ]


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    numbers = {}
    for key, text in row.items():
        try:
            number = float(text)
        except (TypeError, ValueError):
            continue
        if math.isfinite(number):
            numbers[key] = number
    return numbers
