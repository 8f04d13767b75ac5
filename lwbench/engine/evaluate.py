"""Evaluation: loss, top-1, top-5 and which class every image was taken for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .distributed import Ranks
from .precision import Autocast


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy, top-1 and top-5 in percent.

    `cells`: true class * num_classes + predicted class of each image, (N,) int64. `probability`:
    of the predicted class, (N,) float32, where it was asked for.
    """

    loss: float
    top1: float
    top5: float
    cells: np.ndarray
    num_classes: int
    probability: np.ndarray | None = None

    @property
    def labels(self) -> np.ndarray:
        """The true class of each image, (N,) int64."""
        return self.cells // self.num_classes

    @property
    def predictions(self) -> np.ndarray:
        """The predicted class of each image, (N,) int64."""
        return self.cells % self.num_classes

    @property
    def correct(self) -> np.ndarray:
        """Whether each image was taken for its class, (N,) bool, in the order of the batches."""
        hits: np.ndarray = self.cells // self.num_classes == self.cells % self.num_classes
        return hits

    @property
    def confusion(self) -> np.ndarray:
        """Counts as [true, predicted], (num_classes, num_classes) int32."""
        # made on request: with 10,000 classes it takes 400 MB, which an epoch has no use for
        matrix = np.zeros(self.num_classes**2, dtype=np.int32)
        found, counts = np.unique(self.cells, return_counts=True)
        matrix[found] = counts
        return matrix.reshape(self.num_classes, self.num_classes)


def confusion_bytes(num_classes: int) -> int:
    """What the confusion matrices of training and test images take at the end of a run."""
    return 2 * 4 * num_classes**2


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    *,
    autocast: Autocast,
    after_batch: Callable[[], None] = lambda: None,
    probabilities: bool = False,
    ranks: Ranks | None = None,
) -> Evaluation:
    """Evaluate `model` in eval mode on batches of images (N, C, H, W) and labels (N,).

    With fewer than five classes, top-5 is over all of them. `after_batch` is called after each
    batch and may raise. `probabilities`: also keep that of each predicted class. The model's mode
    is restored. `ranks`: the processes that have a part of each batch, possibly an empty one; the
    figures are of all of them.
    """
    was_training = model.training
    # running statistics in batch norms, no dropout
    model.eval()
    sums: Tensor | None = None
    cells: list[Tensor] = []
    certain: list[Tensor] = []
    try:
        for images, labels in batches:
            if not len(labels):  # of a last batch with fewer images than ranks
                cells.append(labels)
                after_batch()
                continue
            with autocast():
                logits = model(images)
            # losses and rankings in float32, whatever the network computes in
            logits = logits.float()
            # one ranking for all figures, so that a tie counts the same in top-1 and confusion
            top = logits.topk(min(5, num_classes), 1).indices
            hits = top == labels[:, None]
            loss = F.cross_entropy(logits, labels, reduction="sum").double()
            batch = torch.stack([loss, hits[:, 0].sum().double(), hits.sum().double()])
            cells.append(labels * num_classes + top[:, 0])
            if probabilities:
                certain.append(logits.softmax(1).amax(1))
            # sums stay on the device: reading them would wait for it in every batch; in float64
            # they are exact enough not to depend on the batch size
            sums = batch if sums is None else sums + batch
            after_batch()
    finally:
        # `after_batch` may have raised; the network is saved and used again all the same
        model.train(was_training)
    if sums is None:  # of a rank that had an image of no batch
        sums = torch.zeros(3, dtype=torch.float64)
    ranks = ranks or Ranks()
    sums, found = ranks.add_up(sums.cpu()), ranks.joined(cells)
    count = len(found)
    assert count, "an evaluation needs an image"
    loss_sum, top1, top5 = sums.tolist()
    return Evaluation(
        loss=loss_sum / count,
        top1=100 * top1 / count,
        top5=100 * top5 / count,
        cells=found.numpy(),
        num_classes=num_classes,
        probability=torch.cat(certain).cpu().numpy() if certain else None,
    )


@torch.no_grad()
def predict(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, autocast: Autocast
) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted class of each image, (N,) int64, and its probability, (N,) float32.

    Labels are not used. The model is left in eval mode.
    """
    model.eval()
    found: list[tuple[Tensor, Tensor]] = []
    for images, _ in batches:
        with autocast():
            logits = model(images)
        probability, predicted = logits.float().softmax(1).max(1)
        found.append((predicted.cpu(), probability.cpu()))
    predicted, probability = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return predicted, probability
