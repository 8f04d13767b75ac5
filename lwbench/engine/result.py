"""The part of a run's rows that its result holds."""

from collections.abc import Sequence
from typing import Any

from ..runs.schema import Row


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
