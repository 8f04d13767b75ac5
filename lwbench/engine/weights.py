"""Weights in checkpoint files of lwbench and of other tools: which they are, whether they fit.

Nothing here runs code from a file; `checkpoint.load` reads it.
"""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError

# Keys under which tools keep a state dict beside other things; the first that is there is taken.
# Raw weights come before averaged ones, since a training that continues starts from them.
WRAPPERS = (
    "model", "state_dict", "model_state_dict", "net", "network", "module", "weights", "ema",
    "state_dict_ema", "model_ema",
)  # fmt: skip
AVERAGED = ("state_dict_ema", "model_ema", "ema")
# Prefixes of names that come from wrapping the network: DataParallel, torch.compile, Lightning
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")


def weights(state: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Find the network's weights in a checkpoint or bare state dict.

    `own`: the state dict of the network they are for. Prefixes that wrapping the network put before
    all names are removed, unless the network has them. Returns the weights by name, and a remark
    where the file holds several; "" otherwise.
    """
    key = next((key for key in WRAPPERS if _is_state_dict(state.get(key))), None)
    found = dict(state if key is None else state[key])
    others = [k for k in WRAPPERS if k != key and _is_state_dict(state.get(k))]
    remark = f"weights under {key!r}; not used: {', '.join(map(repr, others))}" if others else ""
    if key in AVERAGED:
        remark = f"averaged weights, under {key!r}"
    while prefix := _common_prefix(found, own):
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found, remark


def load_weights(model: nn.Module, state: Mapping[str, Any], where: Path) -> str:
    """Put a checkpoint's weights into `model`; return a remark on which they are, or "".

    Raises UsageError as `check_fits` does, and where a weight is not finite.
    """
    check_fits(model, state, where)
    found, remark = weights(state, model.state_dict())
    for name, value in found.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UsageError(
                f"{where}: the weights are not finite, first in {name!r}; the training that wrote "
                "them has diverged: use an earlier checkpoint"
            )
    given = OrderedDict(found)
    # Some networks (MNASNet) ask for the version of a module's format, which a plain dictionary
    # lacks. Names and shapes fit, so it is the present one.
    vars(given)["_metadata"] = vars(model.state_dict())["_metadata"]
    model.load_state_dict(given)
    return remark


def check_fits(model: nn.Module, state: Mapping[str, Any], where: Path) -> None:
    """Raises UsageError naming what differs: a class count, or the first key or shape that does."""
    own = model.state_dict()
    given, _ = weights(state, own)
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


def _is_state_dict(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(v, Tensor) for v in value.values())


def _common_prefix(names: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """A prefix of all names that wrapping explains and the network does not have."""
    for prefix in PREFIXES:
        has_it = any(name.startswith(prefix) for name in own)
        if names and not has_it and all(str(name).startswith(prefix) for name in names):
            return prefix
    return ""
