"""One `Data` object for the engine: batches of normalised images on the device.

Small sets lie on the device as one uint8 tensor, large ones stream from files; order and
augmentation are functions of (seed, epoch, image) in both, see `draws`.
"""

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError
from .augment import Augment, Draws, soft_labels
from .draws import epoch_order
from .source import Source, Split
from .stream import decoded_batches

Batch = tuple[Tensor, Tensor]


class Data:
    """A data set on a device, as batches; see `train_batches` and `eval_batches`.

    `nbytes`: what it keeps on the device for good. `mean`, `std`: of the training images in [0, 1],
    per channel. Raises UsageError where the training set has fewer than two images, or where images
    are mixed in pairs and the batch size is odd.
    """

    def __init__(
        self,
        source: Source,
        *,
        image_size: int,
        batch_size: int,
        seed: int,
        device: torch.device | str,
        augment: Augment,
        workers: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if len(source.train) < 2:
            raise UsageError(f"data {source.name}: training needs at least two images")
        if augment.mixes and batch_size % 2:
            raise UsageError(
                f"batch_size={batch_size}: mixup and cutmix mix pairs, so make it even"
            )
        self.source, self.augment = source, augment
        self.name, self.class_names = source.name, source.class_names
        self.num_classes = len(source.class_names)
        self.image_size, self.batch_size, self.seed = image_size, batch_size, seed
        self.train_size, self.test_size = len(source.train), len(source.test)
        self.mean, self.std, self.digest = source.mean, source.std, source.digest
        self.streaming = source.streaming
        self.device, self.dtype, self.workers = torch.empty(0, device=device).device, dtype, workers
        self.steps_per_epoch = len(self._train_bounds())
        self._splits = {"train": self._place(source.train), "test": self._place(source.test)}
        kept = [t for s in self._splits.values() for t in (s.labels, s.images) if t is not None]
        self.nbytes = sum(t.nbytes for t in kept if t.device.type == self.device.type)
        # one factor a value of a row: repeated, the innermost loop is long enough to vectorise
        scale, shift = 1 / (255 * torch.tensor(self.std)), torch.tensor(self.mean)
        self._scale = scale.repeat(source.window).to(self.device)
        self._shift = (-shift / torch.tensor(self.std)).repeat(source.window).to(self.device)

    def train_batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The epoch's batches from optimizer step `start` on; those before it cost nothing.

        Images: (B, 3, image_size, image_size) in `dtype`, channels_last, augmented. Labels: (B,)
        int64, or (B, num_classes) float32 with mixup or cutmix.
        """
        draws = self.augment.draw(
            self.train_size,
            stored=self.source.stored,
            window=self.source.window,
            seed=self.seed,
            epoch=epoch,
        ).to(self.device)
        order = epoch_order(self.train_size, self.seed, epoch)
        bounds = self._train_bounds()[start:]
        for index, images, labels in self._raw("train", order, bounds):
            yield self._augmented(images, labels, draws.take(index))

    def eval_batches(self, split: Literal["test", "train"] = "test") -> Iterator[Batch]:
        """All images once, in canonical order, by their central windows; as `train_batches`."""
        count = len(self._splits[split])
        bounds = [
            (first, min(first + self.batch_size, count))
            for first in range(0, count, self.batch_size)
        ]
        margin = (self.source.stored - self.source.window) // 2
        inner = slice(margin, margin + self.source.window)
        for _, images, labels in self._raw(split, torch.arange(count), bounds):
            yield self._resized(self._normalised(images[:, inner, inner])), labels

    def _train_bounds(self) -> list[tuple[int, int]]:
        firsts = list(range(0, self.train_size, self.batch_size))
        if len(firsts) > 1 and self.train_size - firsts[-1] == 1:
            firsts.pop()  # batch norm cannot train on one image: it joins the batch before it
        return list(zip(firsts, [*firsts[1:], self.train_size], strict=True))

    def _place(self, split: Split) -> Split:
        images = split.images
        if images is not None and self._fits(images.nbytes):
            images = images.to(self.device)
        return Split(split.labels.to(self.device), images, split.paths)

    def _fits(self, nbytes: int) -> bool:
        """Whether images may live on the device: a quarter of what is free there, at most."""
        if self.device.type != "cuda":
            return True
        return nbytes <= torch.cuda.mem_get_info(self.device)[0] // 4

    def _raw(
        self, name: str, order: Tensor, bounds: list[tuple[int, int]]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(index (B,), images (B, S, S, 3) uint8, labels (B,)) for each part of `order`."""
        split = self._splits[name]
        indices = [order[first:last] for first, last in bounds]
        streamed = self._stream(split, indices) if split.images is None else None
        placed = order.to(self.device)
        for first, last in bounds:
            index = placed[first:last]
            if streamed is not None:
                images = next(streamed)
            elif split.images.device == self.device:
                images = split.images.index_select(0, index)
            else:  # a cache on disk, larger than the device
                images = split.images.index_select(0, order[first:last])
            images = images.to(self.device, non_blocking=True)
            yield index, images, split.labels.index_select(0, index)

    def _stream(self, split: Split, indices: list[Tensor]) -> Iterator[Tensor]:
        return decoded_batches(
            [[split.paths[i] for i in index.tolist()] for index in indices],
            self.source.stored,
            workers=self.workers,
            pinned=self.device.type == "cuda",
        )

    def _augmented(self, images: Tensor, labels: Tensor, draws: Draws) -> Batch:
        x = self._normalised(self.augment.crop(images, draws, self.source.window))
        x = self._resized(self.augment.finish(x, draws))
        if draws.share is not None:
            labels = soft_labels(labels, draws, self.num_classes)
        return x, labels

    def _normalised(self, images: Tensor) -> Tensor:
        """(B, H, H, 3) uint8 to (B, 3, H, H), channels_last, zero mean and unit deviation."""
        count, side = images.shape[:2]
        rows = images.reshape(count, side, side * 3).float().mul_(self._scale).add_(self._shift)
        return rows.to(self.dtype).view(count, side, side, 3).permute(0, 3, 1, 2)

    def _resized(self, x: Tensor) -> Tensor:
        """Bilinear to `image_size`, with antialias where it shrinks."""
        size = self.image_size
        if x.shape[-1] != size:
            smaller = size < x.shape[-1]
            # PyTorch's antialias knows no half precision on CPUs
            source = x.float() if smaller and x.device.type == "cpu" else x
            x = F.interpolate(
                source, (size, size), mode="bilinear", align_corners=False, antialias=smaller
            ).to(x.dtype)
        return x.contiguous(memory_format=torch.channels_last)
