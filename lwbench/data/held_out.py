"""Hold out a share of the training images, on which the best epoch is chosen."""

import torch
from torch import Tensor


def held_out(labels: Tensor, share: float) -> dict[str, Tensor]:
    """Divide training images, given by their labels (N,), into `train` and `validation` indices.

    Of each class the same share, at least one image and never all, drawn once: the split depends on
    neither the run's seed nor the order of the files, since images lie in canonical order.
    """
    everything = torch.arange(len(labels))
    if not share:
        return {"train": everything, "validation": everything[:0]}
    draws = torch.Generator().manual_seed(0)
    is_held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        of_class = everything[labels.cpu() == label]
        count = min(max(1, round(share * len(of_class))), len(of_class) - 1)
        is_held[of_class[torch.randperm(len(of_class), generator=draws)[:count]]] = True
    return {"train": everything[~is_held], "validation": everything[is_held]}
