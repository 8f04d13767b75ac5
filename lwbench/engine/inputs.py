"""What a training is given: settings, batches of images, and where it reports its progress."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from ..runs.keys import Precision
from ..runs.schema import Row

Batch = tuple[Tensor, Tensor]  # images (N, C, H, W), labels (N,) or mixed labels (N, classes)
Split = Literal["train", "test", "validation"]


class Batches(Protocol):
    """What the engine needs of a data set; see `data.loader.Data`."""

    num_classes: int
    batch_size: int
    train_size: int
    validation_size: int  # training images that are held out
    steps_per_epoch: int

    @property
    def class_names(self) -> Sequence[str]: ...

    def train_batches(self, epoch: int, start: int = 0) -> Iterator[Batch]: ...

    def eval_batches(self, split: Split, most: int | None = None) -> Iterator[Batch]: ...

    def part(self, rank: int, size: int) -> "Batches":
        """The same set, of whose batches each has this rank's images of `size` ranks alone."""
        ...


class Progress(Protocol):
    """Where the engine reports to; see `logs.EpochProgress`."""

    def epoch_starts(self, epoch: int, images_done: int) -> None: ...

    def images_done(self, images: int) -> None: ...

    def epoch_ends(self, row: Row) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys of a `RunConfig` that the training loop reads; see there.

    `train_evaluated`: the number of training images that the final weights are evaluated on.
    """

    epochs: int
    precision: Precision = "auto"
    label_smoothing: float = 0.0
    clip_grad_norm: float | None = None
    compile: bool = False
    train_evaluated: int | None = None  # None: all
    accumulate: int = 1
    eval_every: int = 1
    ema: float | None = None
