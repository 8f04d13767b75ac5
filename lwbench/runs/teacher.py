"""The teacher of a distillation: which run or weights it is, wherever they lie."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .directory import Run
from .schema import Result
from .weights_id import identity_of


def with_teacher(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in `distillation.network` of a configuration that has a `teacher`, and return it.

    Raises UsageError where the teacher is neither the directory of a finished run nor, with
    `distillation.model`, weights; and where the key, which follows from it, is set.
    """
    keys = values.get("distillation")
    if isinstance(keys, Mapping) and keys.get("network") is not None:
        raise UsageError("distillation.network follows from teacher= and cannot be set")
    if not values.get("teacher") or not isinstance(keys, Mapping):
        return dict(values)
    teacher = str(values["teacher"])
    network = _name(teacher) if keys.get("model") is None else identity_of(teacher)
    return {**values, "distillation": {**keys, "network": network}}


def finished(teacher: str) -> tuple[Run, Result]:
    """Return the run in the directory `teacher` and its result. Raises UsageError without one."""
    run = Run(Path(teacher))
    result = run.read_result()
    if result is None:
        raise UsageError(
            f"teacher={teacher}: not the directory of a finished run (it has no readable "
            "result.json)\na run's directory is in the last line that lwbench train prints; "
            "weights need their network, too: model@distillation.model=<network>"
        )
    return run, result


def _name(teacher: str) -> str:
    """Name the run `teacher` and what it has reached: `resnet50/1a2b3c4d-s0 of 5e6f7a8b`.

    The figures stand for the weights. Equal ones, to the last digit of a mean loss, come from
    equal weights; and archived runs, from which tables are made, have figures but no weights.
    """
    _, result = finished(teacher)
    figures = [result.precision, result.final.model_dump()]
    digest = hashlib.sha256(json.dumps(figures, sort_keys=True).encode()).hexdigest()[:8]
    return f"{result.model}/{result.identity}-s{result.seed} of {digest}"
