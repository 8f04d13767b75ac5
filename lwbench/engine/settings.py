"""How to train, apart from the optimizer and the schedule."""

from dataclasses import dataclass

from ..runs.runconfig import Precision


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys of a `RunConfig` that the training loop reads; see there."""

    epochs: int
    precision: Precision = "auto"
    label_smoothing: float = 0.0
    clip_grad_norm: float | None = None
    compile: bool = False
