"""Checkpoints: tensors and plain data, written atomically, read without running pickled code."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import UsageError
from ..runs import write_atomically


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, text, lists, mappings) to `path` in one step."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises UsageError where it is missing, damaged or not plain data.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"no checkpoint at {path}") from None
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"{path} is not a readable checkpoint: {reason[:200]}") from None
    if not isinstance(state, dict):
        raise UsageError(f"{path} is not a checkpoint: it holds a {type(state).__name__}")
    return state


def weights(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The network's weights in a checkpoint of ours, of other tools, or in a bare state dict."""
    for key in ("model", "state_dict"):
        if isinstance(state.get(key), dict):
            state = state[key]
            break
    prefixes = ("module.", "_orig_mod.")
    return {_without(key, prefixes): value for key, value in state.items()}


def _without(key: str, prefixes: tuple[str, ...]) -> str:
    for prefix in prefixes:
        key = key.removeprefix(prefix)
    return key


def load_weights(model: nn.Module, state: dict[str, Any], where: Path) -> None:
    """Put a checkpoint's weights into `model`.

    Raises UsageError naming what differs: a class count, or the first key or shape that does not
    fit.
    """
    given, own = weights(state), model.state_dict()
    for key in own.keys() & given.keys():
        ours, theirs = own[key].shape, getattr(given[key], "shape", None)
        if ours == theirs:
            continue
        if theirs and ours[1:] == theirs[1:]:
            raise UsageError(
                f"{where} is of a network with {theirs[0]} classes or channels at {key!r}, "
                f"this one has {ours[0]}; choose the model and data it was trained with"
            )
        raise UsageError(f"{where}: {key!r} has shape {theirs}, this network needs {tuple(ours)}")
    if missing := sorted(own.keys() - given.keys()):
        raise UsageError(
            f"{where} is of another network: it has no {missing[0]!r} ({len(missing)} are missing)"
        )
    if extra := sorted(given.keys() - own.keys()):
        raise UsageError(
            f"{where} is of another network: it has {extra[0]!r} too ({len(extra)} extra keys)"
        )
    model.load_state_dict(given)
