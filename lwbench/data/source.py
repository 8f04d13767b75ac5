"""Images with labels, and the facts about them: what a data set is to the rest of the program."""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..runs.images import unlike_published
from ..runs.schema import Images
from .listing import UNLABELLED, Member
from .pack import Pack

log = logging.getLogger("lwbench")

Channels = tuple[float, float, float]


@dataclass(frozen=True)
class Split:
    """Images and their labels in canonical order; at least one of `images` and `paths` is given.

    `labels`: (N,) int64. `images`: (N, S, S, 3) uint8, in memory or mapped from a cache. `paths`: N
    files that are decoded to S x S while training, where there are no `images`. `pack`: where
    decoded files are kept on disk for later epochs.
    """

    labels: Tensor
    images: Tensor | None = None
    paths: list[Path | Member] | None = None
    pack: Pack | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Source:
    """A data set that is ready to be trained on.

    `stored`: side S of the stored images, in pixels. `window`: side of the crop that training and
    evaluation take from them, before it is resized to the network's input. `mean`, `std`: per
    channel, of the training images in [0, 1]. `digest`: sha256 of the content, as hex (of pixels
    and labels, or of relative paths and file sizes where images stream). `fingerprint`: of the
    files, see `sets.Dataset`. `content`: sha256 of the files' bytes, where the digest does
    not cover them, and `encoded` the sha256 of class names, labels and files in order, which no
    layout changes (see `content.Content`). `left_out`: unreadable files that are not part of the
    set, as `path (reason)`. `notes`: what a reader of the results should know, such as duplicate
    images. `packing`: where decoded images are kept, in a line.
    """

    name: str
    class_names: list[str]
    train: Split
    test: Split
    stored: int
    window: int
    mean: Channels
    std: Channels
    digest: str
    fingerprint: str | None = None
    content: str | None = None
    encoded: str | None = None
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    packing: str = ""

    def __post_init__(self) -> None:
        # said here, where every set passes, whoever loads it
        if how := unlike_published(self.images(None), self.name):
            log.warning(
                "data %s: not as published (%s), so its runs fill no published cell; a sample, or "
                "half an archive?",
                *(self.name, how),
            )

    def images(self, root: str | None) -> Images:
        """Describe the images as a run records them. `root`: where they are, None for the default.

        The class names are those of the training images, in the order of the labels.
        """
        return Images(
            digest=self.digest,
            root=root,
            train_size=len(self.train),
            test_size=len(self.test),
            classes=len(self.class_names),
            class_names=tuple(self.class_names),
            fingerprint=self.fingerprint,
            content=self.content,
            encoded=self.encoded,
            left_out=self.left_out,
        )

    def require_labels(self) -> None:
        """Raise UsageError where the classes of the test images are not known."""
        if bool((self.test.labels == UNLABELLED).any()):
            raise UsageError(
                f"data {self.name}: the test images have no labels, so there is no accuracy\n"
                "leave data.test_split out to test on labelled images"
            )

    def require_trainable(self) -> None:
        """Raise UsageError where there is nothing to train on, or no accuracy to be measured."""
        if not len(self.train):
            raise UsageError(
                f"data {self.name}: no training images; for evaluation only, as in lwbench eval "
                "run=<directory> data=..."
            )
        self.require_labels()

    @property
    def streaming(self) -> bool:
        """Whether images are decoded while training rather than held in memory."""
        # the first epoch with a cache streams, too
        return self.train.images is None


def channel_statistics(images: Tensor) -> tuple[Channels, Channels]:
    """Compute mean and standard deviation per channel of (N, H, W, 3) uint8, in units of [0, 1].

    A constant channel has the deviation 1, so that dividing by it is harmless.
    """
    # sums of integers: neither their order nor the number of threads changes a digit
    total, squares = np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)
    square = np.arange(256, dtype=np.uint16) ** 2
    # chunks that fit into the processor's cache, and whose sums of squares stay below 2**32
    for chunk in images.split(max(1, 2**20 // images[0].numel())):
        values = chunk.numpy().reshape(len(chunk), -1)
        for sums, part in ((total, values), (squares, square[values])):
            sums += part.sum(0, dtype=np.uint32).reshape(-1, 3).sum(0, dtype=np.int64)
    count = images.numel() / 3
    mean = torch.from_numpy(total / count)
    std = (torch.from_numpy(squares / count) - mean.square()).clamp_min(0).sqrt()
    # rounding leaves a little of a constant channel's variance: no exact comparison with 0
    std[std < 1e-6 * 255] = 255
    return _channels(mean / 255), _channels(std / 255)


def _channels(values: Tensor) -> Channels:
    red, green, blue = values.tolist()
    return red, green, blue


def canonical(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order images by class, then by the sha256 of their pixels.

    An archive and a folder of one data set hold its images in different orders; in this order they
    are the same set, and training on either gives the same run.
    """
    # hashlib reads memory as it lies there, so rows must be contiguous
    images = np.ascontiguousarray(images)
    digests = [hashlib.sha256(image).digest() for image in images]
    # equal images of one class are interchangeable, so ties need no rule
    order = sorted(range(len(labels)), key=lambda i: (labels[i], digests[i]))
    return images[order], np.asarray(labels, dtype=np.int64)[order]


def content_digest(class_names: Iterable[str], *arrays: np.ndarray) -> str:
    """Return the sha256, as hex, of class names and arrays (with their shapes)."""
    digest = hashlib.sha256("\0".join(class_names).encode("utf-8", "surrogateescape"))
    for array in arrays:
        # without shapes, moving a row from one array to the next would go unnoticed
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def resident_source(
    name: str,
    class_names: list[str],
    arrays: dict[str, np.ndarray],
    digest: str | None = None,
    fingerprint: str | None = None,
    notes: tuple[str, ...] = (),
) -> Source:
    """Make a source of images that all fit in memory.

    `arrays`: `train_images`, `train_labels`, `test_images`, `test_labels`, in canonical order.
    `digest`: their `content_digest`, where it is known already.
    """
    # shares the memory of the arrays
    images, tested = (torch.from_numpy(arrays[f"{part}_images"]) for part in ("train", "test"))
    mean, std = channel_statistics(images if len(images) else tested)
    # small images are resized on the device, after the augmentation: the window is all of them
    side = images.shape[1]
    return Source(
        name=name,
        class_names=class_names,
        train=Split(torch.from_numpy(arrays["train_labels"]), images),
        test=Split(torch.from_numpy(arrays["test_labels"]), tested),
        stored=side,
        window=side,
        mean=mean,
        std=std,
        digest=digest or content_digest(class_names, *(arrays[k] for k in sorted(arrays))),
        fingerprint=fingerprint,
        notes=notes,
    )
