"""Reads whole data sets: which files are no readable images, and what is left without them."""

import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ..errors import shown
from ..runs.files import read_json, write_atomically
from .decode import UNREAD, BadImage, decode
from .keep import keeping_folder, not_kept
from .stream import Paths, batched, in_threads
from .tree import Listing, require_every_class, require_same_classes, some

log = logging.getLogger("lwbench")
OnBadImage = Literal["raise", "skip"]
REPORT_S = 30.0

Splits = tuple[Listing, Listing]
Found = int | str  # an image's fingerprint, or why a file is none


def examined(paths: Sequence[str], workers: int) -> Iterator[list[Found]]:
    """Every file decoded, batch by batch in order: its pixels' fingerprint, or what is wrong."""

    def start(batch: Paths) -> tuple[list[Found], Callable[[int], None]]:
        found: list[Found] = [0] * len(batch)

        def look(row: int) -> None:
            try:
                found[row] = fingerprint(decode(batch[row]))
            except BadImage as bad:
                found[row] = bad.reason

        return found, look

    return in_threads(batched(paths), start, workers=workers)


def fingerprint(image: Tensor) -> int:
    """63 bits of an image's size and pixels, (3, H, W) uint8: equal images have equal ones."""
    height, width = image.shape[1:]
    checksum = zlib.crc32(image.permute(1, 2, 0).contiguous().numpy())
    return checksum << 31 | (height << 16 ^ width) % 2**31


def without_bad_images(name: str, splits: Splits, cache: str | None) -> tuple[Splits, list[str]]:
    """The splits without what is no readable image, and a line `path (reason)` for each such file.

    Everything is decoded beforehand, since the order of the data must not depend on what happens on
    the way; the outcome is kept in `cache`, or the user's one, for as long as the files stay as
    they are. Raises UsageError for a class that has no image left, or only one split has.
    """
    bad = [
        bad_images(f"{name}-{part}", listing, cache)
        for part, listing in zip(("train", "test"), splits, strict=True)
    ]
    left_out = [
        f"{shown(listing.paths[row])} ({reason})"
        for listing, reasons in zip(splits, bad, strict=True)
        for row, reason in reasons.items()
    ]
    if left_out:
        total = sum(len(listing.paths) for listing in splits)
        log.warning(
            "data %s: %d of %d files left out, no readable images: %s",
            *(name, len(left_out), total, some(left_out, most=3)),
        )
    kept = tuple(_without(listing, reasons) for listing, reasons in zip(splits, bad, strict=True))
    require_same_classes(kept)
    require_every_class(kept)
    return kept, left_out


def _without(listing: Listing, bad: dict[int, str]) -> Listing:
    good = torch.ones(len(listing.paths), dtype=torch.bool)
    good[list(bad)] = False
    return listing.part(good)


def bad_images(name: str, listing: Listing, cache: str | None) -> dict[int, str]:
    """Row and reason of each file that is no readable image, from the cache or by looking."""
    path = keeping_folder(cache) / f"{name}-{listing.key}-bad.json"
    if (kept := _read(path)) is not None:
        return kept
    bad = {}
    for row, found in enumerate(_told(listing.paths, name)):
        if isinstance(found, str):
            bad[row] = found
    if any(reason.startswith(UNREAD) for reason in bad.values()):
        return bad  # a disk or a permission can be mended without a change of the file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"bad": bad, "digest": _digest(bad)}))
    except OSError as error:
        not_kept(path, error, "the next start looks at all images again")
    return bad


def _told(paths: Sequence[str], name: str) -> Iterator[Found]:
    """`examined` for each file; says now and then how far it is, for a large set takes a while."""
    log.info("data %s: decoding %d images once, to find what cannot be read", name, len(paths))
    done, last = 0, time.monotonic()
    for batch in examined(paths, os.cpu_count() or 1):
        yield from batch
        done += len(batch)
        if time.monotonic() - last > REPORT_S:
            log.warning("data %s: %d of %d images looked at", name, done, len(paths))
            last = time.monotonic()


def _read(path: Path) -> dict[int, str] | None:
    """What was found before, or None where that is missing or damaged."""
    kept = read_json(path)
    if kept is None or not isinstance(kept.get("bad"), dict):
        return None
    if kept.get("digest") != _digest(kept["bad"]):
        log.warning("%s: damaged, looking at all images again", path)
        return None
    return {int(row): reason for row, reason in kept["bad"].items()}


def _digest(bad: dict) -> str:
    return hashlib.sha256(json.dumps(bad).encode()).hexdigest()
