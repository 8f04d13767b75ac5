"""Hashes of image contents: whether a set has changed, and which of its images are equal."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ..errors import shown
from ..runs.machine import usable_cores
from .decode import read_file, short
from .splits import Splits
from .tree import Listing
from .workers import Paths, batched, in_threads

HASH_ALL_BYTES = 2 << 30  # of larger sets, evenly spaced files are hashed
HASHED = 1024  # files of each split, there
MOST_NAMED = 2  # pairs of equal images

Image = tuple[int, int]  # 0 for training or 1 for test images, and the row
Pair = tuple[Image, Image]  # an image, and an equal one before it


@dataclass(frozen=True)
class Hashed:
    """The images of one split by hash; `name` names a row in messages."""

    labels: np.ndarray  # (N,) int64
    hashes: np.ndarray  # (N,) int64
    name: Callable[[int], str]


@dataclass(frozen=True)
class Twins:
    """Equal images by what is wrong with them; each is counted in the first kind that applies.

    `contradictory`: of two classes; `leaked`: a test image that is trained on; `repeated`: twice in
    one class of one split.
    """

    contradictory: list[Pair]
    leaked: list[Pair]
    repeated: list[Pair]


def hashed_arrays(part: str, images: np.ndarray, labels: np.ndarray) -> Hashed:
    """Hash the pixels of (N, ...) images in memory."""
    hashes = (short(hashlib.sha256(image).digest()) for image in np.ascontiguousarray(images))
    return Hashed(labels, _array(hashes, len(images)), lambda row: f"{part} image {row}")


def content_of(splits: Splits) -> tuple[str, tuple[Hashed, Hashed] | None]:
    """Return the sha256, as hex, of the bytes of all files, and the files' hashes.

    Unlike a digest of names and sizes, it tells changed images of equal size apart. Of a set of
    more than 2 GiB, 1,024 evenly spaced files per split stand for all, and there are no hashes.
    """
    total = sum(sum(listing.sizes) for _, listing in splits.parts)
    digest = hashlib.sha256()
    hashed = []
    for part, listing in splits.parts:
        # reading all of a large set would delay its first epoch by minutes
        step = 1 if total <= HASH_ALL_BYTES else -(-len(listing.paths) // HASHED)
        found = list(_file_digests(listing.paths[::step]))
        digest.update(f"{part} {len(found)}\n".encode() + b"".join(found))
        hashed.append(_hashed_files(listing, found))
    train, test = hashed
    return digest.hexdigest(), (train, test) if total <= HASH_ALL_BYTES else None


def _hashed_files(listing: Listing, digests: list[bytes]) -> Hashed:
    # used only where every file was hashed: rows are those of the listing
    return Hashed(
        np.asarray(listing.labels, dtype=np.int64)[: len(digests)],
        _array((short(digest) for digest in digests), len(digests)),
        lambda row: shown(listing.paths[row]),
    )


def _file_digests(paths: list[str]) -> Iterator[bytes]:
    def start(batch: Paths) -> tuple[list[bytes], Callable[[int], None]]:
        found = [b""] * len(batch)

        def read(row: int) -> None:
            try:
                found[row] = hashlib.sha256(read_file(batch[row])).digest()
            except (OSError, ValueError):
                # decoding it says what is wrong; until then it equals no other file
                found[row] = hashlib.sha256(os.fsencode(batch[row])).digest()

        return found, read

    workers = min(8, usable_cores())
    return chain.from_iterable(in_threads(batched(paths), start, workers=workers))


def _array(hashes: Iterable[int], count: int) -> np.ndarray:
    return np.fromiter(hashes, dtype=np.int64, count=count)


def twins(train: Hashed, test: Hashed) -> Twins:
    """Find the images that have an equal one before them, training images first."""
    found = Twins([], [], [])
    both = (train, test)
    known, counts = np.unique(np.concatenate([p.hashes for p in both]), return_counts=True)
    repeated = known[counts > 1]  # few: the loop below is in Python
    before: dict[int, list[tuple[Image, int]]] = {}  # equal images and their labels
    for which, part in enumerate(both):
        for row in np.flatnonzero(np.isin(part.hashes, repeated)).tolist():
            image, label = (which, row), int(part.labels[row])
            equal = before.setdefault(int(part.hashes[row]), [])
            # labels decide first: a contradiction harms more than a repetition
            others = [twin for twin, its in equal if its != label]
            same = [twin for twin, its in equal if its == label]
            if others:
                found.contradictory.append((image, others[0]))
            elif same and which > same[0][0]:
                found.leaked.append((image, same[0]))
            elif same:
                found.repeated.append((image, same[0]))
            equal.append((image, label))
    return found


def twin_notes(hashed: tuple[Hashed, Hashed] | None) -> list[str]:
    """Count equal images, in a sentence for each kind."""
    if hashed is None:
        return []
    found = twins(*hashed)
    kinds = (
        (found.contradictory, "contradictory labels: {} equal to one of another class"),
        (found.leaked, "{} both in the training and the test images"),
        (found.repeated, "{} equal to another one of the same class"),
    )
    return [
        f"{text.format(_images(len(pairs)))} ({_named(pairs, hashed)}); lwbench check lists them"
        for pairs, text in kinds
        if pairs
    ]


def _images(count: int) -> str:
    return "1 image is" if count == 1 else f"{count:,} images are"


def _named(pairs: list[Pair], hashed: tuple[Hashed, Hashed]) -> str:
    named = [
        " and ".join(hashed[which].name(row) for which, row in pair) for pair in pairs[:MOST_NAMED]
    ]
    return "; ".join(named) + ("; ..." if len(pairs) > MOST_NAMED else "")
