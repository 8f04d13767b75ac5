"""`lwbench check`: decode every image of a data set and report what is wrong with it."""

import hashlib
import os
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import NonNegativeInt

from ..errors import shown
from ..logs import CountProgress, console
from ..registry import DATASETS, validated
from ..runs.machine import usable_cores
from .content import LISTED, Hashed, Image, twins
from .decode import BadImage, decode, pixel_hash, short
from .listing import Listing
from .sets import Dataset
from .source import Split
from .splits import examined_classes
from .workers import Found, examined

MOST = 20  # pairs of equal images that are named; unreadable files are all named


class Options:
    """The command's keys beside the data set's; the signature is their schema."""

    def __init__(self, *, workers: NonNegativeInt | None = None) -> None:
        self.workers = usable_cores() if workers is None else workers


@dataclass(frozen=True)
class Part:
    """One split to examine: `examine` yields the hashes of all images, `image` decodes a row."""

    listing: Listing
    examine: Callable[[], Iterator[list[Found]]]
    image: Callable[[int], torch.Tensor]

    def name(self, row: int) -> str:
        """Name an image with its class."""
        label = self.listing.class_names[self.listing.labels[row]]
        return f"{shown(self.listing.paths[row])} (class {shown(label)})"


@dataclass(frozen=True)
class Report:
    """What was found in one split: a hash of each readable image, and the unreadable files."""

    part: Part
    hashes: np.ndarray
    bad: dict[int, str]

    @property
    def good(self) -> Listing:
        """The listing without unreadable files."""
        return self.part.listing.without(self.bad)


def check(config: dict[str, Any]) -> int:
    """Decode a whole data set; return 1 where something is wrong with it, else 0.

    Problems are unreadable files, equal images in two classes, test images that are trained on,
    and classes that cannot be trained or tested on. What is passed over is only mentioned. Raises
    UsageError where there is no data set.
    """
    # `data` is validated by the registry, what remains belongs to this command
    keys = {key: value for key, value in config.items() if key != "data"}
    options = Options(**validated(Options, keys, ""))
    train_part, test_part, notes = _parts(config["data"], options.workers)
    images = len(train_part.listing.paths) + len(test_part.listing.paths)
    with CountProgress(images, "images") as progress:
        train, test = (_examined(part, progress) for part in (train_part, test_part))
    # again, now without the unreadable files: a class may have no image left
    splits = examined_classes(train.good, test.good, notes)
    repeated, pairs = _equal_images(train, test)
    lines = [
        _balance(name, listing)
        for name, listing in splits.parts
        if listing.class_names and listing.folder
    ]
    lines += [f"note: {note}" for note in (*splits.notes, *repeated)]
    problems = _bad(train) + _bad(test) + ["; ".join(f.split("\n")) for f in splits.faults] + pairs
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    screen = console()
    for line in (*lines, *problems, count if problems else "nothing wrong"):
        screen.print(line)
    return 1 if problems else 0


def _parts(config: dict[str, Any], workers: int) -> tuple[Part, Part, tuple[str, ...]]:
    arguments = {k: v for k, v in config.items() if k not in ("recipe", "augment", "validation")}
    dataset: Dataset = DATASETS.build(arguments)
    # files are examined as they are; `load` would end at the first bad one
    if splits := dataset.splits():
        return (
            _of_files(splits.train, workers),
            _of_files(splits.test, workers),
            splits.layout_notes,
        )
    source = dataset.load(config["recipe"]["image_size"])
    names = source.class_names
    # equal images are found below, each of them
    notes = tuple(note for note in source.notes if not note.endswith(LISTED))
    return _of_pixels("train", source.train, names), _of_pixels("test", source.test, names), notes


def _of_files(listing: Listing, workers: int) -> Part:
    return Part(
        listing,
        examine=lambda: examined(listing.paths, workers),
        image=lambda row: decode(listing.paths[row]),
    )


def _of_pixels(part: str, split: Split, class_names: list[str]) -> Part:
    assert split.images is not None, "a set without files is in memory"
    # as decoded files are laid out: (N, 3, H, W)
    images = split.images.permute(0, 3, 1, 2)
    names = [f"{part} image {row}" for row in range(len(images))]
    sizes = [image.nbytes for image in images]
    return Part(
        Listing(part if names else "", class_names, names, split.labels.tolist(), sizes, ""),
        examine=lambda: ([pixel_hash(image)] for image in images),
        image=lambda row: images[row],
    )


def _examined(part: Part, progress: CountProgress) -> Report:
    # eight bytes an image: the pixels of a large set do not fit into memory
    hashes = np.zeros(len(part.listing.paths), dtype=np.int64)
    bad: dict[int, str] = {}
    row = 0
    for batch in part.examine():
        for found in batch:
            if isinstance(found, str):
                bad[row] = found
            else:
                hashes[row] = found
            row += 1
        progress.more(len(batch))
    return Report(part, hashes, bad)


def _balance(name: str, listing: Listing) -> str:
    # the smallest and the largest class show at a glance whether the set is balanced
    counts = listing.per_class()
    classes = "class" if len(counts) == 1 else "classes"
    if listing.unlabelled:
        return f"{name:<6}{len(listing.paths):,} images without labels"
    return (
        f"{name:<6}{sum(counts):,} images in {len(counts):,} {classes}, a class has "
        f"{min(counts):,} to {max(counts):,} of them, the median {statistics.median(counts):,g}"
    )


def _bad(report: Report) -> list[str]:
    paths = report.part.listing.paths
    lines = [f"bad file: {shown(paths[row])} ({reason})" for row, reason in report.bad.items()]
    # what is not among the files, such as a link to a class folder that is gone
    others = report.part.listing.faults.keys() - {paths[row] for row in report.bad}
    return lines + [f"bad file: {report.part.listing.faults[path]}" for path in sorted(others)]


def _equal_images(train: Report, test: Report) -> tuple[list[str], list[str]]:
    """Return notes on images that a class repeats, and problems with other equal images.

    Hashes choose the candidates, the pixels decide.
    """
    parts = (train.part, test.part)
    found = twins(_hashed(train), _hashed(test))
    kinds = [
        [pair for pair in pairs if _same_pixels(*pair, parts)]
        for pairs in (found.contradictory, found.leaked, found.repeated)
    ]
    contradictory, leaked, repeated = (
        [" has the pixels of ".join(parts[w].name(row) for w, row in pair) for pair in pairs]
        for pairs in kinds
    )
    problems = [
        *_listed("contradictory labels", contradictory, "are equal to one of another class"),
        *_listed("duplicate", leaked, "of test are in train, too"),
    ]
    if not repeated:
        return [], problems
    what = "1 image is" if len(repeated) == 1 else f"{len(repeated):,} images are"
    # a note: repetitions weight an image, but no figure is wrong because of them
    return [f"{what} repeated in a class ({repeated[0]})"], problems


def _listed(kind: str, pairs: list[str], what: str) -> list[str]:
    # a set that contains another one would fill the screen
    lines = [f"{kind}: {pair}" for pair in pairs[:MOST]]
    more = len(pairs) - MOST
    return [*lines, f"{kind}: {more:,} more images {what}"] if more > 0 else lines


def _hashed(report: Report) -> Hashed:
    hashes = report.hashes.copy()
    # hashes of images are not negative: an unreadable file, named by its path, equals no image
    for row in report.bad:
        name = os.fsencode(report.part.listing.paths[row])
        hashes[row] = -1 - short(hashlib.sha256(name).digest())
    labels = np.asarray(report.part.listing.labels, dtype=np.int64)
    return Hashed(labels, hashes, report.part.name)


def _same_pixels(image: Image, twin: Image, parts: tuple[Part, Part]) -> bool:
    try:
        pixels, others = (parts[which].image(row) for which, row in (image, twin))
    except BadImage:  # removed or damaged since it was examined
        return False
    # hashes are of 63 bits: equal ones are no proof
    return torch.equal(pixels, others)
