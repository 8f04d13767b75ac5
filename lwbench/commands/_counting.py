"""Counts of networks that are in no cache: the one place where `table` and `list` load torch."""

from collections.abc import Sequence
from typing import Any

from ..config import command_values
from ..tables.cells import CountRequest, Counts


def counted(requests: Sequence[CountRequest]) -> dict[CountRequest, Counts]:
    """Parameters, and MACs under each rule, of each requested network."""
    jobs = [
        [*r.model, f"num_classes={r.num_classes}", f"image_size={r.image_size}"] for r in requests
    ]
    found = command_values("profile", jobs)
    return {request: _counts(values) for request, (values, _) in zip(requests, found, strict=True)}


def _counts(values: dict[str, Any]) -> Counts:
    from ..measure.complexity import count
    from ..measure.data_free import measured
    from ..registry import MODELS

    spec = MODELS.spec(values["model"])
    cost = measured(
        lambda: spec.build(values["num_classes"]),
        lambda model: count(model, image_size=values["image_size"]),
    )
    return {"params": cost.params, "macs": cost.macs}
