"""How to train, apart from the optimizer and the schedule.

Imports no torch: checked before it loads.
"""

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from ..registry import Fraction

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class Settings:
    """The signature is the schema of the top-level keys that the engine needs.

    `precision`: "auto" is bf16 on GPUs that have it and fp32 on every CPU, where depthwise networks
    are slower in bf16. `clip_grad_norm`: largest norm of all gradients together. `compile`:
    torch.compile, which pays after many epochs only; it falls back to eager execution.
    """

    def __init__(
        self,
        *,
        epochs: PositiveInt,
        precision: Precision = "auto",
        label_smoothing: Fraction = 0.0,
        clip_grad_norm: PositiveFloat | None = None,
        compile: bool = False,
    ) -> None:
        self.epochs, self.precision, self.compile = epochs, precision, compile
        self.label_smoothing, self.clip_grad_norm = label_smoothing, clip_grad_norm
