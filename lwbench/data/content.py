"""Hashes of image contents: whether a set has changed, and which of its images are equal."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ..errors import shown
from ..paths import cache_home
from ..runs.cache import exclusive
from ..runs.files import replacing
from ..runs.machine import usable_cores
from .decode import read_file, short
from .listing import UNLABELLED, Listing
from .splits import Splits
from .workers import Paths, batched, in_threads

log = logging.getLogger("lwbench")

HASH_ALL_BYTES = 2 << 30  # of larger sets, `Content.sampled` is of evenly spaced files
HASHED = 1024  # files of each split, there
MOST_NAMED = 2  # pairs of equal images
LISTED = "; lwbench check lists them"
REPORT_S = 30.0  # seconds between two reports of hashing that takes long

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


@dataclass(frozen=True)
class Content:
    """Digests of the encoded images of both splits, each a sha256 as hex, and every file's hash.

    `sampled`: of the files alone; of a set of more than 2 GiB, of 1,024 evenly spaced ones per
    split. Part of run records, which is why it stays. `encoded`: of class names, and of the label
    and the bytes of every image in order; neither the names of files nor what they lie in enter,
    so that class folders, lists, archives and shards of the same images have the same one.
    """

    sampled: str
    encoded: str
    hashed: tuple[Hashed, Hashed]


def content_of(splits: Splits) -> Content:
    """Hash the files of both splits; hashes are remembered by path, size and time.

    Unlike a digest of names and sizes, they tell changed images of equal size apart.
    """
    total = sum(sum(listing.sizes) for _, listing in splits.parts)
    sampled = hashlib.sha256()
    encoded = hashlib.sha256(json.dumps(splits.train.class_names).encode())
    hashed = []
    for part, listing in splits.parts:
        found = _remembered(listing)
        step = 1 if total <= HASH_ALL_BYTES else -(-len(found) // HASHED)
        some = found[:: max(1, step)]
        sampled.update(f"{part} {len(some)}\n".encode() + b"".join(some))
        labels = np.asarray(listing.labels, dtype="<i8")
        encoded.update(f"{part} {len(found)}\n".encode() + labels.tobytes() + b"".join(found))
        hashed.append(_hashed_files(listing, found))
    train, test = hashed
    return Content(sampled.hexdigest(), encoded.hexdigest(), (train, test))


def _hashed_files(listing: Listing, digests: list[bytes]) -> Hashed:
    return Hashed(
        np.asarray(listing.labels, dtype=np.int64),
        _array((short(digest) for digest in digests), len(digests)),
        lambda row: shown(listing.paths[row]),
    )


def _remembered(listing: Listing) -> list[bytes]:
    """Return the sha256 of every file, from the user's cache where path, size and time are equal.

    A file that cannot be read has the sha256 of its path: decoding it says what is wrong, and until
    then it equals no other file.
    """
    folder = os.path.realpath(listing.folder)
    keys = [
        hashlib.sha256(os.fsencode(f"{folder}/{listing.relative(path)}\0{size}\0{time}")).digest()
        for path, size, time in zip(listing.paths, listing.sizes, listing.times, strict=True)
    ]
    store = cache_home() / f"hashes-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.bin"
    known = _read_hashes(store)
    missing = [row for row, key in enumerate(keys) if key not in known]
    if missing:
        paths = [listing.paths[row] for row in missing]
        read: dict[bytes, bytes] = {}
        for row, digest in zip(missing, _file_digests(paths), strict=True):
            if digest is not None:
                read[keys[row]] = digest
        known |= read
        _write_hashes(store, read)
    unread = (hashlib.sha256(os.fsencode(path)).digest() for path in listing.paths)
    return [known.get(key, other) for key, other in zip(keys, unread, strict=True)]


def _read_hashes(store: os.PathLike[str]) -> dict[bytes, bytes]:
    try:
        with open(store, "rb") as file:
            content = file.read()
    except OSError:
        return {}
    body, check = content[:-32], content[-32:]
    if len(body) % 64 or hashlib.sha256(body).digest() != check:
        return {}  # damaged: the files are hashed again
    return {body[at : at + 32]: body[at + 32 : at + 64] for at in range(0, len(body), 64)}


def _write_hashes(store: os.PathLike[str], read: dict[bytes, bytes]) -> None:
    """Add hashes to the file: a key and a hash of 32 bytes each, and their sha256."""
    path = cache_home() / os.path.basename(store)
    with exclusive(path) as problem:
        if problem is not None:
            return  # without a cache the next start hashes again; the result is the same
        # another process may have added to it meanwhile
        pairs = _read_hashes(path) | read
        body = b"".join(chain.from_iterable(pairs.items()))
        try:
            with replacing(path) as file:
                file.write(body + hashlib.sha256(body).digest())
        except OSError:
            return


def _file_digests(paths: list[str]) -> Iterator[bytes | None]:
    """Yield the sha256 of each file, None for one that cannot be read."""

    def start(batch: Paths) -> tuple[list[bytes | None], Callable[[int], None]]:
        found: list[bytes | None] = [None] * len(batch)

        def read(row: int) -> None:
            try:
                found[row] = hashlib.sha256(read_file(batch[row])).digest()
            except (OSError, ValueError):
                found[row] = None

        return found, read

    workers = min(8, usable_cores())
    done, last = 0, time.monotonic()
    for batch in in_threads(batched(paths), start, workers=workers):
        yield from batch
        done += len(batch)
        # silence for minutes would look like a hang
        if time.monotonic() - last > REPORT_S:
            log.warning("%d of %d files hashed, which is done once", done, len(paths))
            last = time.monotonic()


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
            others = [
                twin for twin, its in equal if its != label and UNLABELLED not in (its, label)
            ]
            same = [twin for twin, its in equal if its == label or UNLABELLED in (its, label)]
            if others:
                found.contradictory.append((image, others[0]))
            elif same and which > same[0][0]:
                found.leaked.append((image, same[0]))
            elif same:
                found.repeated.append((image, same[0]))
            equal.append((image, label))
    return found


def twin_notes(hashed: tuple[Hashed, Hashed]) -> list[str]:
    """Count equal images, in a sentence for each kind."""
    found = twins(*hashed)
    kinds = (
        (found.contradictory, "contradictory labels: {} equal to one of another class"),
        (found.leaked, "{} both in the training and the test images"),
        (found.repeated, "{} equal to another one of the same class"),
    )
    return [
        f"{text.format(_images(len(pairs)))} ({_named(pairs, hashed)}){LISTED}"
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
