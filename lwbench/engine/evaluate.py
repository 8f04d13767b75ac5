"""Evaluation: loss, top-1, top-5 and the confusion matrix, summed on the device."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy, top-1 and top-5 in percent, confusion[true, predicted] as counts."""

    loss: float
    top1: float
    top5: float
    confusion: np.ndarray


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    *,
    autocast: Callable[[], Any],
    after_batch: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Evaluate `model` in eval mode over (images, labels) batches; its mode is restored afterwards.

    With fewer than five classes, top-5 is over all of them. `after_batch` is called at every batch.
    """
    was_training = model.training
    model.eval()
    sums: Tensor | None = None
    confusion: Tensor | None = None
    count = 0
    try:
        for images, labels in batches:
            with autocast():
                logits = model(images)
            logits = logits.float()
            # one stable ranking for every figure: a tie counts the same in top-1 and confusion
            top = logits.topk(min(5, num_classes), 1).indices
            hits = top == labels[:, None]
            loss = F.cross_entropy(logits, labels, reduction="sum").double()
            batch = torch.stack([loss, hits[:, 0].sum().double(), hits.sum().double()])
            cells = torch.bincount(labels * num_classes + top[:, 0], minlength=num_classes**2)
            sums = batch if sums is None else sums + batch
            confusion = cells if confusion is None else confusion + cells
            count += len(labels)
            after_batch()
    finally:
        model.train(was_training)
    assert sums is not None and confusion is not None, "an evaluation needs an image"
    loss, top1, top5 = sums.tolist()
    return Evaluation(
        loss=loss / count,
        top1=100 * top1 / count,
        top5=100 * top5 / count,
        confusion=confusion.view(num_classes, num_classes).cpu().numpy(),
    )
