"""Data sets of image files: decoded while training, and packed on disk where they fit.

With `on_bad_image: skip` all files are decoded beforehand, to leave the unreadable ones out.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import shown
from ..runs.cache import cache_folder, warn_not_cached
from ..runs.files import read_json, write_atomically
from ..runs.machine import usable_cores
from .content import content_of, twin_notes
from .decode import UNREAD
from .listing import Listing, Member, some
from .pack import Pack, packs
from .source import Source, Split, channel_statistics
from .splits import Splits, examined_classes
from .workers import Found, decode_files, examined

log = logging.getLogger("lwbench")

MOST_NOTED = 5  # faults that are not of one readable file, such as lines of a list
SAMPLE = 512  # images from which mean and standard deviation are computed
REPORT_S = 30.0  # seconds between two reports of a decoding that takes long


def streamed_source(
    name: str,
    splits: Splits,
    *,
    image_size: int,
    crop: float,
    cache: str | None,
    skip_bad_images: bool,
) -> Source:
    """Make a source of image files; the arguments are those of `sets.ImageFiles`.

    Mean and deviation are those of up to 512 training images, evenly spaced in canonical order; of
    test images, where there are no others.
    Raises UsageError where the files or the classes are faulty.
    """
    # of all files, readable or not: what is left out now must not count as a change later
    fingerprint = splits.fingerprint
    left_out: list[str] = []
    if skip_bad_images:
        splits, left_out = without_bad_images(name, splits, cache)
        splits.require_trainable()
    else:
        splits.require_sound()
    side = round(image_size / crop)
    # evenly spaced over all classes: decoding all images for two statistics would take an epoch
    paths = splits.train.paths or splits.test.paths
    sample = paths[:: -(-len(paths) // SAMPLE)]
    mean, std = channel_statistics(decode_files(sample, side))
    # the digest is of names and sizes, which an edited image may keep
    content = content_of(splits)
    found, packing = packs(name, splits, side, cache)
    train, test = (
        _split(listing, pack) for (_, listing), pack in zip(splits.parts, found, strict=True)
    )
    return Source(
        name=name,
        class_names=splits.train.class_names,
        train=train,
        test=test,
        stored=side,
        window=image_size,
        mean=mean,
        std=std,
        digest=splits.digest,
        fingerprint=fingerprint,
        content=content.sampled,
        encoded=content.encoded,
        left_out=tuple(left_out),
        notes=(*splits.notes, *twin_notes(content.hashed)),
        packing=packing,
    )


def _split(listing: Listing, pack: Pack | None) -> Split:
    return Split(
        labels=torch.tensor(listing.labels, dtype=torch.int64),
        images=pack.images() if pack else None,
        paths=[path if isinstance(path, Member) else Path(path) for path in listing.paths],
        pack=pack,
    )


def without_bad_images(name: str, splits: Splits, cache: str | None) -> tuple[Splits, list[str]]:
    """Return the splits without unreadable files, and a line `path (reason)` for each of those.

    All files are decoded beforehand, since the order of the images must not depend on what is found
    during training. The outcome is cached, in `cache` or the user's cache, and holds until the
    files change.
    """
    bad = [bad_images(f"{name}-{part}", listing, cache) for part, listing in splits.parts]
    left_out = [
        f"{shown(listing.paths[row])} ({reason})"
        for (_, listing), reasons in zip(splits.parts, bad, strict=True)
        for row, reason in reasons.items()
    ]
    # one line on screen; the run's log names every file
    if left_out:
        total = sum(len(listing.paths) for _, listing in splits.parts)
        log.warning(
            "data %s: %d of %d files are unreadable and left out: %s",
            *(name, len(left_out), total, some(left_out, most=3)),
        )
    train, test = (
        listing.without(rows) for (_, listing), rows in zip(splits.parts, bad, strict=True)
    )
    # what is no file, such as a link to a class folder that is gone, was not decoded above
    others = [
        message.split("\n")[0]
        for listing, rows in zip((splits.train, splits.test), bad, strict=True)
        for path, message in listing.faults.items()
        if path not in {listing.paths[row] for row in rows}
    ]
    if more := len(others) - MOST_NOTED:
        others[MOST_NOTED:] = [f"{more:,} more are left out; lwbench check lists them"] * (more > 0)
    return examined_classes(train, test, (*splits.layout_notes, *others)), left_out


def bad_images(name: str, listing: Listing, cache: str | None) -> dict[int, str]:
    """Return row and reason of each unreadable file, from the cache or by decoding all."""
    path = cache_folder(cache) / f"{name}-{listing.cache_key}-bad.json"
    if (known := _read_bad(path)) is not None:
        return known
    bad = {}
    # images that can be read are hashed on the way, which costs little beside decoding them
    for row, found in enumerate(_examined_with_reports(listing.paths, name)):
        if isinstance(found, str):
            bad[row] = found
    if any(reason.startswith(UNREAD) for reason in bad.values()):
        # a disk or a permission can be repaired without a change of the file: look again next time
        return bad
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"bad": bad, "digest": _digest(bad)}))
    except OSError as error:
        warn_not_cached(path, error, "the next start decodes all images again")
    return bad


def _examined_with_reports(paths: Sequence[str], name: str) -> Iterator[Found]:
    log.info("data %s: decoding %d images once, to find unreadable ones", name, len(paths))
    done, last = 0, time.monotonic()
    for batch in examined(paths, usable_cores()):
        yield from batch
        done += len(batch)
        # silence for minutes would look like a hang
        if time.monotonic() - last > REPORT_S:
            log.warning("data %s: %d of %d images decoded", name, done, len(paths))
            last = time.monotonic()


def _read_bad(path: Path) -> dict[int, str] | None:
    known = read_json(path)
    if known is None or not isinstance(known.get("bad"), dict):
        return None
    if known.get("digest") != _digest(known["bad"]):
        log.warning("%s: damaged, decoding all images again", path)
        return None
    return {int(row): reason for row, reason in known["bad"].items()}


def _digest(bad: dict[Any, str]) -> str:
    # JSON turns row numbers into text: equal before and after
    return hashlib.sha256(json.dumps(bad).encode()).hexdigest()
