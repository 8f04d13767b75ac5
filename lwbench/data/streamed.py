"""Data sets of image files: decoded while training, or once into a cache on disk.

With `on_bad_image: skip` all files are decoded beforehand, to leave the unreadable ones out.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..errors import shown
from ..runs.files import read_json, write_atomically
from ..runs.machine import usable_cores
from .cache import cache_folder, cached_squares, warn_not_cached
from .content import content_of, twin_notes
from .decode import UNREAD
from .source import Dataset, Source, Split, channel_statistics
from .splits import Splits, examined_classes
from .tree import Listing, some
from .workers import Found, batched, decoded_batches, examined

log = logging.getLogger("lwbench")

Share = Annotated[float, Field(gt=0, le=1)]
OnBadImage = Literal["raise", "skip"]

SAMPLE = 512  # images from which mean and standard deviation are computed
REPORT_S = 30.0  # seconds between two reports of a decoding that takes long


@dataclass(frozen=True)
class ImageFiles(Dataset):
    """A data set of image files.

    `find` lists the training and the test files; None where they have to be downloaded, which
    `download` does. Images are stored as squares of `image_size / crop` px, of which training takes
    a random and evaluation the central window of `image_size`: 224 of 256 px with 0.875. `cache`: a
    folder for the decoded squares; without one, every epoch decodes the files. `on_bad_image`: an
    unreadable file ends the run where it is read ("raise"), or all such files are found beforehand
    and left out ("skip").
    """

    name: str
    find: Callable[[], Splits | None]
    crop: float
    cache: str | None = None
    on_bad_image: OnBadImage = "raise"
    published_classes: int | None = None
    published_images: int | None = None
    download: Callable[[], None] | None = None

    def splits(self) -> Splits:
        """Find the training and test files, see `Dataset.splits`."""
        splits = self.find()
        if splits is None and self.download is not None:
            self.download()
            splits = self.find()
        assert splits is not None, "a set that was downloaded is found"
        return splits

    def fingerprint(self) -> str | None:
        """Hash paths, sizes and times of all files, see `Dataset.fingerprint`."""
        splits = self.find()
        return splits.fingerprint if splits else None

    def load(self, image_size: int) -> Source:
        """Make a source of the files, see `Dataset.load`.

        Mean and deviation are those of up to 512 training images, evenly spaced in canonical order.
        """
        splits = self.splits()
        fingerprint = splits.fingerprint
        left_out: list[str] = []
        if self.on_bad_image == "skip":
            splits, left_out = without_bad_images(self.name, splits, self.cache)
            splits.require_trainable()
        else:
            splits.require_sound()
        side = round(image_size / self.crop)
        sample = splits.train.paths[:: -(-len(splits.train.paths) // SAMPLE)]
        mean, std = channel_statistics(decode_files(sample, side))
        content, hashed = content_of(splits)
        train, test = (self._split(part, listing, side) for part, listing in splits.parts)
        return Source(
            name=self.name,
            class_names=splits.train.class_names,
            train=train,
            test=test,
            stored=side,
            window=image_size,
            mean=mean,
            std=std,
            digest=splits.digest,
            published_classes=self.published_classes,
            published_images=self.published_images,
            fingerprint=fingerprint,
            content=content,
            left_out=tuple(left_out),
            notes=(*splits.notes, *twin_notes(hashed)),
        )

    def _split(self, part: str, listing: Listing, side: int) -> Split:
        images = None
        if self.cache:
            images = cached_squares(f"{self.name}-{part}", listing, side, self.cache)
        return Split(
            labels=torch.tensor(listing.labels, dtype=torch.int64),
            images=images,
            paths=[Path(path) for path in listing.paths],
        )


def decode_files(paths: list[str], side: int) -> Tensor:
    """Decode all files to squares, (N, side, side, 3) uint8. Raises BadImage."""
    workers = min(8, usable_cores())
    return torch.cat(list(decoded_batches(batched(paths), side, workers=workers)))


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
    if left_out:
        total = sum(len(listing.paths) for _, listing in splits.parts)
        log.warning(
            "data %s: %d of %d files are unreadable and left out: %s",
            *(name, len(left_out), total, some(left_out, most=3)),
        )
    train, test = (
        listing.without(rows) for (_, listing), rows in zip(splits.parts, bad, strict=True)
    )
    return examined_classes(train, test, splits.layout_notes), left_out


def bad_images(name: str, listing: Listing, cache: str | None) -> dict[int, str]:
    """Return row and reason of each unreadable file, from the cache or by decoding all."""
    path = cache_folder(cache) / f"{name}-{listing.cache_key}-bad.json"
    if (known := _read_bad(path)) is not None:
        return known
    bad = {}
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
