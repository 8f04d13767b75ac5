"""What a data set is to the rest: two splits of images with labels, and the facts about them."""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger("lwbench")


@dataclass(frozen=True)
class Split:
    """Images and their labels in canonical order; either `images` or `paths` is given.

    `labels`: (N,) int64. `images`: (N, S, S, 3) uint8, resident. `paths`: N files that workers
    decode to S x S, streaming.
    """

    labels: Tensor
    images: Tensor | None = None
    paths: list[Path] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Source:
    """A data set as its builder returns it.

    `stored`: side S of the stored images, in pixels. `window`: side of the crop that training and
    evaluation take from them, before it is resized to the network's input. `mean`, `std`: per
    channel, of the training images in [0, 1]. `digest`: sha256 of the content, as hex (of pixels
    and labels, or of relative paths and file sizes where images stream). `left_out`: files that
    are no readable images and were passed over, as `path (reason)`.
    """

    name: str
    class_names: list[str]
    train: Split
    test: Split
    stored: int
    window: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    digest: str
    published_classes: int | None = None
    published_images: int | None = None
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        found = len(self.class_names)
        if self.published_classes not in (None, found):
            log.warning(
                "data %s: %d classes found, %d published", self.name, found, self.published_classes
            )
        images = len(self.train) + len(self.test)
        if self.published_images not in (None, images):
            log.warning(
                "data %s: %d images found, %d published: a sample, or half an archive unpacked?",
                *(self.name, images, self.published_images),
            )

    @property
    def streaming(self) -> bool:
        """Whether images are decoded while training rather than held in memory."""
        return self.train.images is None


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of (N, H, W, 3) uint8 images, in units of [0, 1].

    The sums are of integers, so neither order nor threads change a digit. A constant channel has
    the deviation 1, so that dividing by it is harmless.
    """
    total, squares = np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
    square = np.arange(256, dtype=np.uint16) ** 2
    # chunks small enough for the processor's cache, and for sums of squares below 2**32
    for chunk in images.split(max(1, 2**20 // images[0].numel())):
        values = chunk.numpy().reshape(len(chunk), -1)
        for sums, part in ((total, values), (squares, square[values])):
            sums += part.sum(0, dtype=np.uint32).reshape(-1, 3).sum(0, dtype=np.int64)
    count = images.numel() / 3
    mean = torch.from_numpy(total / count)
    std = (torch.from_numpy(squares / count) - mean.square()).clamp_min(0).sqrt()
    std[std < 1e-6 * 255] = 255
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def canonical(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same images ordered by class, then by the sha256 of their pixels.

    An archive and a folder of one data set hold its images in different orders; after this they are
    the same set, and give the same run.
    """
    images = np.ascontiguousarray(images)
    digests = [hashlib.sha256(image).digest() for image in images]
    order = sorted(range(len(labels)), key=lambda i: (labels[i], digests[i]))
    return images[order], np.asarray(labels, dtype=np.int64)[order]


def content_digest(class_names: Iterable[str], *arrays: np.ndarray) -> str:
    """The sha256, as hex, of class names and arrays (with their shapes)."""
    digest = hashlib.sha256("\0".join(class_names).encode("utf-8", "surrogateescape"))
    for array in arrays:
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def resident_source(
    name: str,
    class_names: list[str],
    arrays: dict[str, np.ndarray],
    published_classes: int | None = None,
    digest: str | None = None,
) -> Source:
    """A source of images that all fit in memory.

    `arrays`: `train_images`, `train_labels`, `test_images`, `test_labels`, in canonical order.
    """
    train, test = (
        Split(
            labels=torch.from_numpy(arrays[f"{split}_labels"]),
            images=torch.from_numpy(arrays[f"{split}_images"]),
        )
        for split in ("train", "test")
    )
    mean, std = channel_statistics(train.images)
    side = train.images.shape[1]
    return Source(
        name=name,
        class_names=class_names,
        train=train,
        test=test,
        stored=side,
        window=side,
        mean=mean,
        std=std,
        digest=digest or content_digest(class_names, *(arrays[k] for k in sorted(arrays))),
        published_classes=published_classes,
    )
