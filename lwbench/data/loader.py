"""Batches of normalised images on the device, for training and evaluation.

Small sets lie on the device as one uint8 tensor, large ones stream from files or packs; order and
augmentation are functions of (seed, epoch, image) in both cases, see `draws`.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError
from .augment import Augment, soft_labels
from .draws import Draws, epoch_order, evaluation_sample
from .held_out import held_out
from .prefetch import copied_ahead
from .source import Source, Split
from .workers import Fit, Paths, decoded_batches

Batch = tuple[Tensor, Tensor]


class Data:
    """A data set on a device, as batches; see `train_batches` and `eval_batches`.

    `validation`: the share of each class's training images that is held out, the same for every
    seed: `eval_batches("validation")`. `nbytes`: what stays on the device during the whole run.
    `mean`, `std`: of the training images in [0, 1], per channel. Raises UsageError where the
    training set has fewer than two images, or where images are mixed in pairs and the batch size is
    odd.
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
        validation: float = 0.0,
    ) -> None:
        # a set without training images can be evaluated on
        if len(source.train) == 1:
            raise UsageError(f"data {source.name}: training needs at least two images")
        if augment.mixes and batch_size % 2:
            raise UsageError(
                f"batch_size={batch_size}: mixup and cutmix mix pairs, so it must be even"
            )
        train, packing = source.train, source.packing
        if augment.crops and train.paths:
            # crops are of whole images, of which a packed square has lost a part
            train = Split(train.labels, None, train.paths)
            packing = "crop_scale cuts whole images: those to train on are decoded in every epoch"
        self.source, self.augment = source, augment
        self.packing = packing  # where decoded images are kept, in a line
        self.name, self.class_names = source.name, source.class_names
        self.num_classes = len(source.class_names)
        self.image_size, self.batch_size, self.seed = image_size, batch_size, seed
        self._parts = held_out(source.train.labels, validation)
        self.train_size, self.validation_size = map(len, self._parts.values())
        self.test_size = len(source.test)
        self.mean, self.std, self.digest = source.mean, source.std, source.digest
        self.streaming = train.images is None
        # a tensor's device has an index ("cuda:0"), so that devices compare equal
        self.device = torch.empty(0, device=device).device
        self.dtype, self.workers = dtype, workers
        self.steps_per_epoch = len(self._train_bounds())
        self._shared = (0, 1)  # this process among those that share every batch
        self._splits = {"train": self._place(train), "test": self._place(source.test)}
        kept = [t for s in self._splits.values() for t in (s.labels, s.images) if t is not None]
        self.nbytes = sum(t.nbytes for t in kept if t.device.type == self.device.type)
        # one factor per value of a row rather than per channel: the innermost loop is long enough
        # to be vectorised
        scale, shift = 1 / (255 * torch.tensor(self.std)), torch.tensor(self.mean)
        self._scale = scale.repeat(source.window).to(self.device)
        self._shift = (-shift / torch.tensor(self.std)).repeat(source.window).to(self.device)

    def train_batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the epoch's batches from optimizer step `start` on; nothing before it is read.

        Images: (B, 3, image_size, image_size) in `dtype`, channels_last, augmented. Labels: (B,)
        int64, or (B, num_classes) float32 with mixup or cutmix.
        """
        # of the whole epoch, also when starting in its middle: a draw depends on the image alone
        draws = self.augment.draw(
            self.train_size,
            stored=self.source.stored,
            window=self.source.window,
            seed=self.seed,
            epoch=epoch,
        )
        crop, draws = draws.crop, draws.to(self.device)
        order = epoch_order(self.train_size, self.seed, epoch)
        bounds = self._train_bounds()[start:]
        for index, images, labels in self._raw("train", order, bounds, crop):
            yield self._augmented(images, labels, draws.take(index))

    def eval_batches(
        self, split: Literal["test", "train", "validation"] = "test", most: int | None = None
    ) -> Iterator[Batch]:
        """Yield the images of a split once, in canonical order: their central windows and labels.

        Shapes as in `train_batches`, with hard labels. Of a split with more than `most` images, as
        many of them, drawn by the seed.
        """
        for windows, labels in self.eval_windows(split, most):
            yield self.prepared(windows), labels

    def eval_windows(
        self, split: Literal["test", "train", "validation"] = "test", most: int | None = None
    ) -> Iterator[Batch]:
        """Yield what `eval_batches` yields before it is prepared: (B, W, W, 3) uint8 and labels."""
        order = torch.arange(self.test_size if split == "test" else len(self._parts[split]))
        if most is not None and most < len(order):
            order = evaluation_sample(len(order), most, self.seed)
        count = len(order)
        bounds = [
            (first, min(first + self.batch_size, count))
            for first in range(0, count, self.batch_size)
        ]
        # the window that training takes at random is taken from the centre
        margin = (self.source.stored - self.source.window) // 2
        inner = slice(margin, margin + self.source.window)
        for _, images, labels in self._raw(split, order, bounds):
            yield images[:, inner, inner], labels

    def prepared(self, windows: Tensor) -> Tensor:
        """Normalise and resize windows (B, W, W, 3) uint8 to the network's input."""
        return self._resized(self._normalised(windows))

    def part(self, rank: int, size: int) -> "Data":
        """The same set, of whose batches each has this rank's images of `size` ranks alone.

        The ranks' images of a batch, one rank after the other, are those of the whole batch.
        """
        other = copy.copy(self)
        other._shared = (rank, size)
        return other

    def smallest_part(self, size: int) -> int:
        """The fewest images that one of `size` ranks has of a training batch."""
        ranks = [self.part(rank, size) for rank in range(size)]
        parts = [rank._own(bounds) for bounds in self._train_bounds()[-1:] for rank in ranks]
        return min((last - first for first, last in parts), default=0)

    def fill_packs(self, workers: int) -> None:
        """Decode the images of all packs that are not complete, in `workers` threads."""
        decode = partial(self._decoded, workers=workers)
        for split in self._splits.values():
            if split.images is None and split.pack and split.pack.finished() is None:
                rows = torch.arange(len(split)).split(self.batch_size)
                for _ in split.pack.batches(rows, decode):
                    pass

    def _own(self, bounds: tuple[int, int]) -> tuple[int, int]:
        """This rank's images of a batch; pairs that are mixed stay together."""
        first, last = bounds
        rank, size = self._shared
        unit = 2 if self.augment.mixes else 1
        units = -(-(last - first) // unit)
        low, high = (first + unit * (units * r // size) for r in (rank, rank + 1))
        return low, min(high, last)

    def _train_bounds(self) -> list[tuple[int, int]]:
        firsts = list(range(0, self.train_size, self.batch_size))
        if not firsts:
            return []
        # batch norm cannot train on one image: a last batch of one joins the batch before it
        if len(firsts) > 1 and self.train_size - firsts[-1] == 1:
            firsts.pop()
        return list(zip(firsts, [*firsts[1:], self.train_size], strict=True))

    def _place(self, split: Split) -> Split:
        images = split.images
        # labels always fit; images may have to be copied batch by batch
        if images is not None and self._fits(images.nbytes):
            images = images.to(self.device)
        return replace(split, labels=split.labels.to(self.device), images=images)

    def _fits(self, nbytes: int) -> bool:
        # a quarter of what is free: the rest is for the network, its activations and other splits
        if self.device.type != "cuda":
            return True
        return nbytes <= torch.cuda.mem_get_info(self.device)[0] // 4

    def _raw(
        self,
        name: str,
        order: Tensor,
        bounds: list[tuple[int, int]],
        crop: Tensor | None = None,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield (index (B,), images (B, S, S, 3) uint8, labels (B,)) for each part of `order`.

        `crop`: draws of resized crops, by which streamed images are cut to the window's size.
        """
        bounds = [self._own(batch) for batch in bounds]
        place = "test" if name == "test" else "train"  # held-out images lie among those of training
        split = self._splits[place]
        if split.images is None and split.pack and (packed := split.pack.finished()) is not None:
            split = self._splits[place] = self._place(replace(split, images=packed))
        # draws are by the position among the images of the part
        drawn, cuts = order.to(self.device), None if crop is None else crop[order]
        if self.validation_size and name != "test":
            order = self._parts[name][order]
        indices = [order[first:last] for first, last in bounds]
        placed = order.to(self.device)
        if split.images is None:
            parts = None if cuts is None else [cuts[first:last] for first, last in bounds]
            batches = self._stream(split, indices, parts)
        elif split.images.device == self.device:
            batches = (split.images.index_select(0, placed[first:last]) for first, last in bounds)
        else:
            # a cache on disk that is larger than the device's memory
            batches = (split.images.index_select(0, index) for index in indices)
        for (first, last), images in zip(bounds, copied_ahead(batches, self.device), strict=True):
            index = placed[first:last]
            yield drawn[first:last], images, split.labels.index_select(0, index)

    def _stream(
        self, split: Split, indices: list[Tensor], cuts: list[Tensor] | None
    ) -> Iterator[Tensor]:
        paths = split.paths or []
        names = [[paths[i] for i in index.tolist()] for index in indices]
        if cuts is not None:
            # drawn for all images of the part, and cut in the threads that decode them
            fits = (partial(self._cut, draws) for draws in cuts)
            return self._decoded(names, self.source.window, fits)
        return split.pack.batches(indices, self._decoded) if split.pack else self._decoded(names)

    def _decoded(
        self,
        batches: Sequence[Paths],
        side: int | None = None,
        fits: Iterable[Fit] | None = None,
        workers: int | None = None,
    ) -> Iterator[Tensor]:
        return decoded_batches(
            batches,
            side or self.source.stored,
            workers=self.workers if workers is None else workers,
            pinned=self.device.type == "cuda",
            fits=fits,
        )

    def _cut(self, draws: Tensor, image: Tensor, row: int) -> Tensor:
        assert self.augment.crops is not None
        return self.augment.crops.cut(image, draws[row], self.source.window)

    def _augmented(self, images: Tensor, labels: Tensor, draws: Draws) -> Batch:
        # cropping before normalising: bytes are moved rather than floats, and pixels outside the
        # window are never converted
        window = self.source.window
        if self.augment.crops and draws.crop is not None and not self.streaming:
            images = self.augment.crops.cut_all(images, draws.crop, window)
        windows = self.augment.recolour(self.augment.crop(images, draws, window), draws)
        x = self._normalised(windows)
        x = self._resized(self.augment.finish(x, draws))
        if draws.mixing is not None:
            labels = soft_labels(labels, draws.mixing, self.num_classes)
        return x, labels

    def _normalised(self, images: Tensor) -> Tensor:
        """(B, H, H, 3) uint8 to (B, 3, H, H), channels_last, zero mean and unit deviation."""
        count, side = images.shape[:2]
        # images lie in memory as rows of interleaved channels, which is channels_last already
        rows = images.reshape(count, side, side * 3).float().mul_(self._scale).add_(self._shift)
        return rows.to(self.dtype).view(count, side, side, 3).permute(0, 3, 1, 2)

    def _resized(self, x: Tensor) -> Tensor:
        """Resize to `image_size`, bilinear, with antialias where images become smaller."""
        size = self.image_size
        if x.shape[-1] != size:
            smaller = size < x.shape[-1]
            # antialiased interpolate does not support half precision on CPU
            source = x.float() if smaller and x.device.type == "cpu" else x
            x = F.interpolate(
                source, (size, size), mode="bilinear", align_corners=False, antialias=smaller
            ).to(x.dtype)
        return x.contiguous(memory_format=torch.channels_last)
