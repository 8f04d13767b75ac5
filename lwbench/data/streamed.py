"""Large data sets as sources: files that are decoded while training, or once into a cache."""

import hashlib
import logging
import os
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from .packfile import packed_images
from .source import Source, Split, channel_statistics
from .stream import batched, decoded_batches
from .tree import Listing
from .verify import OnBadImage, without_bad_images

log = logging.getLogger("lwbench")

Share = Annotated[float, Field(gt=0, le=1)]
SAMPLE = 512  # images whose mean and deviation stand for the training set's


def streamed_source(
    name: str,
    splits: tuple[Listing, Listing],
    *,
    image_size: int,
    crop: float,
    cache: str | None,
    on_bad_image: OnBadImage = "raise",
    published_classes: int | None = None,
    published_images: int | None = None,
) -> Source:
    """A source of files: `splits` are the training and the test listing.

    Images are kept, or cached, as squares of `image_size / crop` px, of which training takes a
    random and evaluation the central window of `image_size`: 224 of 256 px with 0.875. Mean and
    deviation are those of up to 512 training images, evenly spaced in canonical order. `cache`:
    a folder for the decoded images, else every epoch decodes them. `on_bad_image`: a file that is
    no image ends the run where it is read, or all such are found first and left out ("skip"): the
    splits of a set that may hold such files come from `scan` with `strict=False`.
    """
    left_out: list[str] = []
    if on_bad_image == "skip":
        splits, left_out = without_bad_images(name, splits, cache)
    side = round(image_size / crop)
    sample = splits[0].paths[:: -(-len(splits[0].paths) // SAMPLE)]
    mean, std = channel_statistics(decode_files(sample, side))
    train, test = (
        Split(
            labels=torch.tensor(listing.labels, dtype=torch.int64),
            images=packed_images(f"{name}-{part}", listing, side, cache) if cache else None,
            paths=[Path(path) for path in listing.paths],
        )
        for part, listing in zip(("train", "test"), splits, strict=True)
    )
    return Source(
        name=name,
        class_names=splits[0].class_names,
        train=train,
        test=test,
        stored=side,
        window=image_size,
        mean=mean,
        std=std,
        digest=listing_digest(splits),
        published_classes=published_classes,
        published_images=published_images,
        left_out=tuple(left_out),
    )


def decode_files(paths: list[str], side: int) -> Tensor:
    """All files as squares, (N, side, side, 3) uint8. Raises UsageError naming a bad one."""
    workers = min(8, os.cpu_count() or 1)
    return torch.cat(list(decoded_batches(batched(paths), side, workers=workers)))


def listing_digest(splits: tuple[Listing, Listing]) -> str:
    """The sha256, as hex, of each split's relative paths and file sizes."""
    digest = hashlib.sha256()
    for part, listing in zip(("train", "test"), splits, strict=True):
        for path, size in zip(listing.paths, listing.sizes, strict=True):
            relative = "/".join(Path(path).parts[-2:])
            text = f"{part}/{relative}\0{size}\n"
            digest.update(text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
