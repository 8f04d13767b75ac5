"""The command that looks at every image of a data set and says what is wrong with it."""

import importlib
import inspect
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeInt

from ..data.decode import BadImage, decode
from ..data.source import Split
from ..data.tree import Listing, some
from ..data.verify import Found, examined, fingerprint
from ..errors import shown
from ..logs import CountProgress, console
from ..registry import DATASETS, validated

PARTS = ("train", "test")
MOST = 20  # duplicates that are named; bad files all are


class Options:
    """The keys beside the data set's; the signature is their schema."""

    def __init__(self, *, workers: NonNegativeInt | None = None) -> None:
        self.workers = os.cpu_count() or 1 if workers is None else workers


@dataclass(frozen=True)
class Part:
    """One split as it is looked at: `images` opens row i, `name` says which one that is."""

    class_names: Sequence[str]
    labels: Sequence[int]
    looked: Callable[[], Iterator[list[Found]]]
    image: Callable[[int], torch.Tensor]
    name: Callable[[int], str]


@dataclass
class Report:
    """What was found in one split; a fingerprint an image is all that is kept of the pixels."""

    part: Part
    fingerprints: np.ndarray
    bad: dict[int, str]

    def per_class(self) -> list[int]:
        """The number of readable images of each class."""
        good = np.delete(np.asarray(self.part.labels, dtype=np.int64), list(self.bad))
        return np.bincount(good, minlength=len(self.part.class_names)).tolist()


def check(config: dict[str, Any]) -> int:
    """Decode a whole data set; returns 1 where something is wrong with it, else 0.

    Wrong are files that are no readable images, images of the test split with the very pixels of
    one of the training split, classes without images and classes that only one split has. Raises
    UsageError where there is no data set to look at.
    """
    keys = {key: value for key, value in config.items() if key != "data"}
    options = Options(**validated(Options, keys, ""))
    parts = _parts(config["data"], options.workers)
    with CountProgress(sum(len(part.labels) for part in parts.values()), "images") as progress:
        reports = {name: _looked_at(part, progress) for name, part in parts.items()}
    screen = console()
    problems = []
    for name, report in reports.items():
        problems += _bad(name, report)
        screen.print(_balance(name, report), markup=False)
    problems += _class_faults(reports) + _duplicates(reports["train"], reports["test"])
    for line in problems:
        screen.print(line, markup=False)
    screen.print(f"{len(problems)} problems" if problems else "nothing wrong", markup=False)
    return 1 if problems else 0


def _parts(config: dict[str, Any], workers: int) -> dict[str, Part]:
    arguments = {k: v for k, v in config.items() if k not in ("builder", "recipe", "augment")}
    builder = DATASETS.builder(config["builder"])
    arguments = validated(builder, arguments, "data")
    if listings := _listings(builder, arguments):
        of_files = (_of_files(listing, workers) for listing in listings)
        return dict(zip(PARTS, of_files, strict=True))
    source = builder(config["recipe"]["image_size"], **arguments)
    return {name: _of_pixels(getattr(source, name), name, source.class_names) for name in PARTS}


def _listings(builder: Callable, arguments: dict[str, Any]) -> tuple[Listing, Listing] | None:
    """The files of a set: the modules of sets that lie in files have a function `splits`."""
    module = importlib.import_module(builder.__module__)
    if not hasattr(module, "splits"):
        return None
    facts = arguments | {"dataset": builder.__name__, "strict": False}
    return module.splits(**{key: facts[key] for key in inspect.signature(module.splits).parameters})


def _of_files(listing: Listing, workers: int) -> Part:
    return Part(
        listing.class_names,
        listing.labels,
        looked=lambda: examined(listing.paths, workers),
        image=lambda row: decode(listing.paths[row]),
        name=lambda row: shown(listing.paths[row]),
    )


def _of_pixels(split: Split, name: str, class_names: list[str]) -> Part:
    images = split.images.permute(0, 3, 1, 2)
    return Part(
        class_names,
        split.labels.tolist(),
        looked=lambda: ([fingerprint(image)] for image in images),
        image=lambda row: images[row],
        name=lambda row: f"{name} image {row} of class {shown(class_names[split.labels[row]])}",
    )


def _looked_at(part: Part, progress: CountProgress) -> Report:
    report = Report(part, np.zeros(len(part.labels), dtype=np.int64), {})
    row = 0
    for batch in part.looked():
        for found in batch:
            if isinstance(found, str):
                report.bad[row] = found
            else:
                report.fingerprints[row] = found
            row += 1
        progress.more(len(batch))
    return report


def _balance(name: str, report: Report) -> str:
    counts = report.per_class()
    return (
        f"{name:<6}{sum(counts):,} images in {len(counts):,} classes, a class has "
        f"{min(counts):,} to {max(counts):,} of them, the median {statistics.median(counts):,g}"
    )


def _bad(name: str, report: Report) -> list[str]:
    return [f"bad file: {report.part.name(row)} ({reason})" for row, reason in report.bad.items()]


def _class_faults(reports: dict[str, Report]) -> list[str]:
    lines = []
    names = {name: report.part.class_names for name, report in reports.items()}
    for name, report in reports.items():
        counts = dict(zip(names[name], report.per_class(), strict=True))
        if empty := [label for label, count in counts.items() if not count]:
            lines.append(f"no images: {name} has {len(empty)} classes without: {some(empty)}")
        other = PARTS[name == "train"]
        if only := sorted(set(names[name]) - set(names[other])):
            lines.append(f"classes differ: only {name} has {some(only)}")
    return lines


def _duplicates(train: Report, test: Report) -> list[str]:
    """Images of both splits. Fingerprints choose the candidates, the pixels decide."""
    lines, more = [], 0
    rows = _by_fingerprint(train, np.intersect1d(train.fingerprints, test.fingerprints))
    for row in np.flatnonzero(np.isin(test.fingerprints, list(rows))).tolist():
        twin = rows[int(test.fingerprints[row])]
        if row in test.bad or not _same_pixels(test.part, row, train.part, twin):
            continue
        if len(lines) == MOST:
            more += 1
            continue
        lines.append(f"duplicate: {test.part.name(row)} has the pixels of {train.part.name(twin)}")
    return lines + ([f"duplicate: {more} more images of test are in train, too"] if more else [])


def _by_fingerprint(report: Report, wanted: np.ndarray) -> dict[int, int]:
    rows = np.flatnonzero(np.isin(report.fingerprints, wanted)).tolist()
    return {int(report.fingerprints[row]): row for row in reversed(rows) if row not in report.bad}


def _same_pixels(part: Part, row: int, other: Part, twin: int) -> bool:
    try:
        return torch.equal(part.image(row), other.image(twin))
    except BadImage:  # gone meanwhile
        return False
