"""What a run's result and its arrays hold, from its rows and its last evaluations."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..runs.schema import Row
from .evaluate import Evaluation
from .recorder import Arrays


def figures(row: Row, prefix: str = "") -> dict[str, Any]:
    """The part of a row that result.json holds; see `runs.schema.Figures`."""
    figures: dict[str, Any] = {"epoch": row["epoch"], "train_top1": row["train_top1"]}
    names = ("test_loss", "test_top1", "test_top5")
    return figures | {name: dict(row)[prefix + name] for name in names}


def held_out_figures(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures of the epoch that is best on held-out training images, if there are any.

    The first of equally good epochs.
    """
    known = [row for row in rows if "validation_top1" in row]
    if not known:
        return {}
    return {"held_out": figures(max(known, key=lambda row: row["validation_top1"]))}


def final_arrays(
    test: Evaluation, train: Evaluation | None, class_names: Sequence[str]
) -> dict[str, Arrays]:
    """The confusion matrices, and which test images the last weights classify correctly.

    The latter are a bit per image in canonical order, for comparisons image by image.
    """
    confusion = {
        "test": test.confusion,
        "class_names": np.array(class_names, dtype=np.str_),
    }
    if train is not None:
        confusion["train"] = train.confusion
    bits, count = np.packbits(test.correct), np.array(len(test.correct))
    return {"confusion": confusion, "predictions": {"correct": bits, "count": count}}
