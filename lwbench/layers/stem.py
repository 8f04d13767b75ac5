"""The stride of a network's first convolution, which any network can be given."""

from typing import Literal

from torch import nn

from ..errors import UsageError
from .deform import DeformConv2d


def with_stem_stride(model: nn.Module, *, stem_stride: Literal[1] | None = None) -> nn.Module:
    """Set the stride of the first convolution from 2 to 1; returns the model.

    Behind a padded stem the feature maps of a 32 px image then have the sizes that those of a 64 px
    image have at stride 2, at the native resolution of CIFAR: a network of total stride 32 ends in
    2 x 2 pixels rather than one. Parameters are unchanged. `None` leaves the network as it is.
    Raises UsageError if the first convolution has another stride than 2.
    """
    if stem_stride is None:
        return model
    convolutions = (m for m in model.modules() if isinstance(m, nn.Conv2d | DeformConv2d))
    first = next(convolutions, None)
    stride = None if first is None else first.stride
    if first is None or stride not in (2, (2, 2)):
        own = f"has stride {stride}" if first else "does not exist"
        raise UsageError(
            f"model.stem_stride=1: changes a stride of 2; this network's first convolution {own}"
        )
    if isinstance(first, DeformConv2d):
        first.set_stride(stem_stride)
    else:
        first.stride = (stem_stride, stem_stride)
    return model
