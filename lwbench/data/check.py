"""`lwbench check`: decode every image of a data set and report what is wrong with it."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeInt

from ..errors import shown
from ..logs import CountProgress, console
from ..registry import DATASETS, validated
from ..runs.machine import usable_cores
from .decode import BadImage, decode, pixel_hash
from .source import Dataset, Split
from .tree import Listing, some
from .workers import Found, examined

PARTS = ("train", "test")
MOST = 20  # duplicates that are named; unreadable files are all named


class Options:
    """The command's keys beside the data set's; the signature is their schema."""

    def __init__(self, *, workers: NonNegativeInt | None = None) -> None:
        self.workers = usable_cores() if workers is None else workers


@dataclass(frozen=True)
class Part:
    """One split to examine: `examine` hashes all images, `image` opens row i, `name` names it."""

    class_names: Sequence[str]
    labels: Sequence[int]
    examine: Callable[[], Iterator[list[Found]]]
    image: Callable[[int], torch.Tensor]
    name: Callable[[int], str]


@dataclass
class Report:
    """What was found in one split; of the pixels only a hash per image is kept."""

    part: Part
    hashes: np.ndarray
    bad: dict[int, str]

    def per_class(self) -> list[int]:
        """Return the number of readable images of each class."""
        good = np.delete(np.asarray(self.part.labels, dtype=np.int64), list(self.bad))
        return np.bincount(good, minlength=len(self.part.class_names)).tolist()


def check(config: dict[str, Any]) -> int:
    """Decode a whole data set; return 1 where something is wrong with it, else 0.

    Reported are unreadable files, test images that have the same pixels as a training image,
    classes without images and classes that only one split has. Raises UsageError where there is no
    data set.
    """
    keys = {key: value for key, value in config.items() if key != "data"}
    options = Options(**validated(Options, keys, ""))
    parts = _parts(config["data"], options.workers)
    with CountProgress(sum(len(part.labels) for part in parts.values()), "images") as progress:
        reports = {name: _examined(part, progress) for name, part in parts.items()}
    screen = console()
    problems = []
    for name, report in reports.items():
        problems += _bad(name, report)
        screen.print(_balance(name, report))
    problems += _class_faults(reports) + _duplicates(reports["train"], reports["test"])
    for line in problems:
        screen.print(line)
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    screen.print(count if problems else "nothing wrong")
    return 1 if problems else 0


def _parts(config: dict[str, Any], workers: int) -> dict[str, Part]:
    arguments = {k: v for k, v in config.items() if k not in ("recipe", "augment")}
    dataset: Dataset = DATASETS.build(arguments)
    if splits := dataset.listings():
        return {name: _of_files(part, workers) for name, part in zip(PARTS, splits, strict=True)}
    source = dataset.load(config["recipe"]["image_size"])
    names = source.class_names
    return {
        "train": _of_pixels(source.train, "train", names),
        "test": _of_pixels(source.test, "test", names),
    }


def _of_files(listing: Listing, workers: int) -> Part:
    return Part(
        listing.class_names,
        listing.labels,
        examine=lambda: examined(listing.paths, workers),
        image=lambda row: decode(listing.paths[row]),
        name=lambda row: shown(listing.paths[row]),
    )


def _of_pixels(split: Split, name: str, class_names: list[str]) -> Part:
    assert split.images is not None, "a set without files is in memory"
    images = split.images.permute(0, 3, 1, 2)
    return Part(
        class_names,
        split.labels.tolist(),
        examine=lambda: ([pixel_hash(image)] for image in images),
        image=lambda row: images[row],
        name=lambda row: f"{name} image {row} of class {shown(class_names[split.labels[row]])}",
    )


def _examined(part: Part, progress: CountProgress) -> Report:
    report = Report(part, np.zeros(len(part.labels), dtype=np.int64), {})
    row = 0
    for batch in part.examine():
        for found in batch:
            if isinstance(found, str):
                report.bad[row] = found
            else:
                report.hashes[row] = found
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


def _classes(count: int) -> str:
    return f"{count} class{'es' if count > 1 else ''}"


def _class_faults(reports: dict[str, Report]) -> list[str]:
    lines = []
    names = {name: report.part.class_names for name, report in reports.items()}
    for name, report in reports.items():
        counts = dict(zip(names[name], report.per_class(), strict=True))
        if empty := [label for label, count in counts.items() if not count]:
            lines.append(f"no images: {name} has {_classes(len(empty))} without: {some(empty)}")
        other = PARTS[name == "train"]
        if only := sorted(set(names[name]) - set(names[other])):
            lines.append(f"classes differ: only {name} has {some(only)}")
    return lines


def _duplicates(train: Report, test: Report) -> list[str]:
    """Images that are in both splits. Hashes choose the candidates, the pixels decide."""
    lines: list[str] = []
    more = 0
    rows = _by_hash(train, np.intersect1d(train.hashes, test.hashes))
    for row in np.flatnonzero(np.isin(test.hashes, list(rows))).tolist():
        twin = rows[int(test.hashes[row])]
        if row in test.bad or not _same_pixels(test.part, row, train.part, twin):
            continue
        if len(lines) == MOST:
            more += 1
            continue
        lines.append(f"duplicate: {test.part.name(row)} has the pixels of {train.part.name(twin)}")
    return lines + ([f"duplicate: {more} more images of test are in train, too"] if more else [])


def _by_hash(report: Report, wanted: np.ndarray) -> dict[int, int]:
    rows = np.flatnonzero(np.isin(report.hashes, wanted)).tolist()
    return {int(report.hashes[row]): row for row in reversed(rows) if row not in report.bad}


def _same_pixels(part: Part, row: int, other: Part, twin: int) -> bool:
    try:
        return torch.equal(part.image(row), other.image(twin))
    except BadImage:  # removed or damaged since it was examined
        return False
