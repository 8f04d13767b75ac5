"""Width multipliers and the rounding of scaled channel numbers."""

from typing import Annotated

from pydantic import Field

# A width multiplier; above 16 every network here exceeds any machine's memory.
Width = Annotated[float, Field(gt=0, le=16)]


def divisible(channels: float, divisor: int = 8) -> int:
    """Round `channels` to a multiple of `divisor`: the nearest, but not below 90 % of `channels`.

    The rounding of MobileNetV2 and V3 (Sandler et al. 2018; Howard et al. 2019), whose divisor is
    8; halves are rounded up. At least `divisor`.
    """
    # a plain round-down could remove up to half of a narrow layer's channels
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor
