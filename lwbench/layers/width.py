"""Width multipliers: how a scaled number of channels becomes a whole one."""

from typing import Annotated

from pydantic import Field

Width = Annotated[float, Field(gt=0, le=16)]  # a multiplier; above 16 no network fits a machine


def divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, at least one, never below 90 % of it.

    The rounding of MobileNetV2 and V3 (Sandler et al. 2018; Howard et al. 2019), whose divisor is
    8; halves go up.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor
