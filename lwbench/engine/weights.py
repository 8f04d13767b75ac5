"""Weights in files of lwbench and of other tools: which they are, whether they fit a network.

Nothing here runs code from a file: `checkpoint.load` and safetensors read tensors and plain data.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DamagedError, UsageError
from . import checkpoint

# Keys under which tools keep a state dict beside other things; the first that is there is taken.
# Raw weights come before averaged ones, since a training that continues starts from them.
WRAPPERS = (
    "model", "state_dict", "model_state_dict", "net", "network", "module", "weights", "ema",
    "state_dict_ema", "model_ema",
)  # fmt: skip
AVERAGED = ("state_dict_ema", "model_ema", "ema")
# Prefixes of names that come from wrapping the network: DataParallel, torch.compile, Lightning
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
# Entries that no figure depends on: classifiers used in training alone (GoogLeNet, Inception), and
# the counters that thop leaves in a network.
IGNORED_PREFIXES = ("aux1.", "aux2.", "AuxLogits.")
IGNORED_NAMES = ("total_ops", "total_params")
# A counter of batch norms that files of old versions of PyTorch lack and evaluation does not use
COUNTER = "num_batches_tracked"
MOST_NAMED = 3  # entries of a kind in a message


def read(path: Path) -> dict[str, Any]:
    """Read a file of weights, `.safetensors` or what torch.save writes, as data.

    Raises UsageError where it is missing, DamagedError where it is damaged or not plain data.
    """
    if path.suffix != ".safetensors":
        return checkpoint.load(path)
    from safetensors.torch import load_file

    if not path.is_file():
        raise UsageError(f"no checkpoint at {path}")
    try:
        return dict(load_file(path))
    except Exception as error:  # SafetensorError, and what damaged lengths lead to
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DamagedError(f"{path} is not a readable safetensors file: {reason}") from None


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
    return {name: value for name, value in found.items() if not _is_ignored(name, own)}, remark


@dataclass(frozen=True)
class Fit:
    """How given weights compare with those that a network has.

    `fitting`: names of equal shape; `missing`: what the network needs and the file lacks;
    `unexpected`: what the file alone has; `reshaped`: name -> shape there, shape here. `head`: the
    names of the last layer, where they are the only ones of another shape and differ in the number
    of classes alone, of which the file's network has `classes`.
    """

    fitting: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    reshaped: Mapping[str, tuple[tuple[int, ...] | None, tuple[int, ...]]] | None = None
    head: tuple[str, ...] = ()
    classes: int | None = None

    @property
    def is_complete(self) -> bool:
        """Whether every weight of the network is given, and nothing else."""
        return not (self.missing or self.unexpected or self.reshaped)

    @property
    def text(self) -> str:
        """What does not fit, in a line: `2 missing (a, b), 1 of another shape (...)`."""
        reshaped = [
            f"{name}: {'no tensor' if theirs is None else list(theirs)} there, {list(ours)} here"
            for name, (theirs, ours) in (self.reshaped or {}).items()
        ]
        kinds = (
            (list(self.missing), "missing"),
            (list(self.unexpected), "unexpected"),
            (reshaped, "of another shape"),
        )
        return ", ".join(f"{len(k)} {what} ({_some(k)})" for k, what in kinds if k)


def fit(own: Mapping[str, Any], given: Mapping[str, Any]) -> Fit:
    """Compare given weights with a network's state dict `own` by names and shapes."""
    shapes = {
        name: (_shape(given[name]), tuple(value.shape))
        for name, value in own.items()
        if name in given
    }
    reshaped = {name: pair for name, pair in shapes.items() if pair[0] != pair[1]}
    counts = {
        (theirs[0], ours[0]) if theirs and ours and theirs[1:] == ours[1:] else None
        for theirs, ours in reshaped.values()
    }
    (count,) = counts if len(counts) == 1 else (None,)
    return Fit(
        fitting=tuple(name for name in shapes if name not in reshaped),
        missing=tuple(n for n in own if n not in given and not _is_counter(n)),
        # counters last: the names of layers say more
        unexpected=tuple(sorted((n for n in given if n not in own), key=_is_counter)),
        reshaped=reshaped,
        head=tuple(reshaped) if count else (),
        classes=count[0] if count else None,
    )


def load_fitting(model: nn.Module, given: Mapping[str, Any], found: Fit, where: object) -> None:
    """Put the weights that fit into `model`; the others keep their values.

    Weights of another precision (float16) are converted. Raises UsageError where one is not finite.
    """
    for name in found.fitting:
        value = given[name]
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UsageError(
                f"{where}: the weights are not finite, first in {name!r}; the training that wrote "
                "them has diverged: use an earlier checkpoint"
            )
    own = model.state_dict()
    complete = OrderedDict(own | {name: given[name] for name in found.fitting})
    # Some networks (MNASNet) ask for the version of a module's format, which a plain dictionary
    # lacks. Names and shapes fit, so it is the present one.
    vars(complete)["_metadata"] = vars(own)["_metadata"]
    model.load_state_dict(complete)


def load_weights(model: nn.Module, state: Mapping[str, Any], where: Path) -> str:
    """Put a checkpoint's weights into `model`; return a remark on which they are, or "".

    Raises UsageError as `check_fits` does, and where a weight is not finite.
    """
    check_fits(model, state, where)
    given, remark = weights(state, model.state_dict())
    load_fitting(model, given, fit(model.state_dict(), given), where)
    return remark


def check_fits(model: nn.Module, state: Mapping[str, Any], where: Path) -> None:
    """Raises UsageError naming what differs: a class count, or the keys and shapes that do."""
    own = model.state_dict()
    found = fit(own, weights(state, own)[0])
    if found.head and not (found.missing or found.unexpected):
        raise UsageError(
            f"{where} is of a network with {found.classes} classes or channels at "
            f"{found.head[0]!r}, this one has {len(own[found.head[0]])}; choose the model and "
            "data it was trained with"
        )
    if not found.is_complete:
        raise UsageError(f"{where} is of another network: {found.text}")


def _shape(value: object) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _is_counter(name: object) -> bool:
    return str(name).endswith(COUNTER)


def _some(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + ", ..." * (len(names) > MOST_NAMED)


def _is_state_dict(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(v, Tensor) for v in value.values())


def _is_ignored(name: object, own: Mapping[str, Any]) -> bool:
    text = str(name)
    is_extra = text.startswith(IGNORED_PREFIXES) or text.rpartition(".")[2] in IGNORED_NAMES
    return is_extra and name not in own


def _common_prefix(names: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """A prefix of all names that wrapping explains and the network does not have."""
    for prefix in PREFIXES:
        has_it = any(name.startswith(prefix) for name in own)
        if names and not has_it and all(str(name).startswith(prefix) for name in names):
            return prefix
    return ""
