"""Evaluate a run again, or weights from elsewhere."""

from pathlib import Path
from typing import Any

from ..config import command_values, typed_values
from ..errors import UsageError
from ..runs.directory import Run
from ._eval_run import evaluate_run
from ._eval_weights import evaluate_weights
from ._keys import Key, help_of_groups
from ._robustness import evaluate_corruptions

FLAGS: tuple[str, ...] = ()
KEYS: dict[str, Key] = {}


def help() -> str:
    return help_of_groups("eval")


def run(arguments: list[str], flags: set[str]) -> int:
    """Evaluate `run=<directory>`, or `weights=...` with model and data."""
    # weights= had another name
    former = "checkpoint="
    arguments = [
        "weights=" + a.removeprefix(former) if a.startswith(former) else a for a in arguments
    ]
    changes = (
        typed_values(arguments, "eval") if any(a.startswith("run=") for a in arguments) else {}
    )
    if changes.get("run") is not None:
        directory = Path(str(changes.pop("run")))
        trust_code = changes.pop("trust_code", False) is True
        reference = changes.pop("reference", None)
        is_every_corruption = changes.get("data") == "cifar10_c" and not (
            {"data.corruption", "data.severity", "predictions"} & changes.keys()
        )
        changes |= _other_data(arguments, changes)
        if is_every_corruption:
            return evaluate_corruptions(Run(directory), changes, reference, trust_code)
        if reference is not None:
            raise UsageError("reference= has no effect without data=cifar10_c, all corruptions")
        return evaluate_run(Run(directory), changes, trust_code)
    ((values, choices),) = command_values("eval", [arguments])
    if values["weights"] is None:
        raise UsageError("eval needs run=<run directory>, or weights=<file> with model and data")
    return evaluate_weights(values, choices)


def _other_data(arguments: list[str], changes: dict[str, Any]) -> dict[str, Any]:
    """The whole group of another data set, where `data=<name>` chooses one."""
    if "data" not in changes:
        return {}
    chosen = [a for a in arguments if a.partition("=")[0].split(".")[0] == "data"]
    ((values, _),) = command_values("eval", [chosen])
    return {"data": values["data"]}
