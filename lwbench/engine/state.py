"""The state of a training: all that its next steps depend on, to be saved and restored."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DamagedError
from ..runs.schema import Row
from .distributed import Ranks
from .step import TrainStep
from .weights import load_weights


@dataclass
class Position:
    """How far a training is; part of every checkpoint."""

    epoch: int = 0  # finished epochs
    step: int = 0  # finished batches of the current epoch
    images: int = 0  # of the current epoch
    sums: Tensor | None = None  # loss and correct predictions over these images; on the device
    train_seconds: float = 0.0  # of the current epoch
    seconds: float = 0.0  # of all finished epochs, evaluations included
    best: dict[str, Any] = field(default_factory=dict)  # figures of the best epoch so far
    rows: list[Row] = field(default_factory=list)  # of metrics.csv


OWN = (
    "rng",
    "cuda_rng",
    "gradients",
)  # of each rank; between two batches of a cycle gradients differ


def captured(step: TrainStep, position: Position, device: torch.device) -> dict[str, Any]:
    """Return the state as tensors and plain data, for `checkpoint.save`; tensors are not copied.

    To be called by all ranks; that of rank 0 has what differs between them, too.
    """
    # the order of the data, its augmentation and the learning rate follow from the position
    sums = None if position.sums is None else position.sums.cpu()
    state = {
        "model": step.model.state_dict(),
        "optimizer": step.optimizer.state_dict(),
        "scaler": step.scaler.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if device.type == "cuda" else [],
        "threads": torch.get_num_threads(),
        "position": vars(position) | {"sums": sums},
    }
    if step.average:
        state["ema"] = step.average.network.state_dict()
    if gradients := step.gradients(position.step):
        state["gradients"] = gradients
    if step.ranks.size > 1:
        own = {key: state[key] for key in OWN if key in state}
        state["ranks"] = step.ranks.gathered(own)
    return state


def restored(state: dict[str, Any], path: Path, step: TrainStep, device: torch.device) -> Position:
    """Restore what `captured` returned, and return the position. `path`: the file, for errors.

    Raises UsageError for weights of another network, DamagedError for no state of a training.
    """
    state = state | _own(state, step.ranks)
    load_weights(step.model, {"model": state.get("model")}, path)
    if step.average:
        load_weights(step.average.network, {"model": state.get("ema")}, path)
    try:
        step.optimizer.load_state_dict(state["optimizer"])
        step.scaler.load_state_dict(state["scaler"])
        parameters = dict(step.model.named_parameters())
        for name, gradient in state.get("gradients", {}).items():
            parameters[name].grad = torch.empty_like(parameters[name]).copy_(gradient)
        torch.set_rng_state(state["rng"])
        # random numbers on GPUs cannot be continued with another number of GPUs
        if device.type == "cuda" and len(state["cuda_rng"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        # how a sum is divided among threads determines its last digits
        torch.set_num_threads(state["threads"])
        position = Position(**state["position"])
    except torch.OutOfMemoryError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DamagedError(f"{path} is not the state of such a training: {reason}") from None
    if position.sums is not None:
        position.sums = position.sums.to(device)
    return position


def _own(state: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """What a rank restores in place of rank 0's: its own random state and gradients."""
    saved = state.get("ranks") or []
    if len(saved) == ranks.size > 1:
        return saved[ranks.rank]
    # by another number of ranks: what they had summed up so far goes on in rank 0
    parts = [part["gradients"] for part in saved if "gradients" in part]
    own: dict[str, Any] = {"gradients": {}} if ranks.rank else {}
    if parts and not ranks.rank:
        own["gradients"] = {name: sum(part[name] for part in parts) for name in parts[0]}
    return own | ({"rng": torch.get_rng_state()} if ranks.rank else {})


def guarantee(device: torch.device, is_deformable: bool, ranks: Ranks | None = None) -> str:
    """Say what a resumed run has in common with an uninterrupted one."""
    if ranks is not None and ranks.size > 1:
        return f"{guarantee(device, is_deformable)}, if as many processes ({ranks.size}) resume it"
    # kernels of deformable layers on GPUs add atomically, in an order that varies
    is_exact = torch.backends.cudnn.deterministic and not is_deformable
    if device.type == "cpu" or is_exact:
        return "resumed, this run equals an uninterrupted one to the last bit"
    return (
        "resumed, this run has the same order of data, random numbers and learning rates as "
        "an uninterrupted one; its sums may differ in their last digits"
    )
