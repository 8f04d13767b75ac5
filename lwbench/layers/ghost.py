"""Ghost module: some feature maps from a convolution, the others from cheap depthwise ones."""

from collections.abc import Callable
from math import ceil

import torch
from torch import Tensor, nn

from .conv import conv_norm


class GhostModule(nn.Module):
    """Ghost module (Han et al., GhostNet, CVPR 2020, section 3.1), https://arxiv.org/abs/1911.11907.

    (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

    A kernel x kernel convolution computes ceil(out_channels / ratio) intrinsic maps; from each map,
    ratio - 1 depthwise dw_kernel x dw_kernel convolutions compute ghost maps; both are concatenated
    and truncated to `out_channels`. Each half has a batch norm and, unless `activation` is None, an
    activation. In the paper's notation s = ratio and d = dw_kernel. Raises ValueError for a ratio
    below 2, which leaves no ghost maps.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        ratio: int = 2,
        dw_kernel: int = 3,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
    ) -> None:
        super().__init__()
        if ratio < 2:
            raise ValueError(f"ratio={ratio}: a Ghost module needs a ratio of 2 or more")
        self.out_channels = out_channels
        intrinsic = ceil(out_channels / ratio)
        # the stride belongs to the first half: the cheap convolutions see its output
        self.primary = conv_norm(
            in_channels, intrinsic, kernel, stride=stride, activation=activation
        )
        # depthwise with a multiplier of ratio - 1: each intrinsic map yields its own ghost maps
        self.cheap = conv_norm(
            intrinsic, intrinsic * (ratio - 1), dw_kernel, groups=intrinsic, activation=activation
        )

    def forward(self, x: Tensor) -> Tensor:
        intrinsic = self.primary(x)
        # ceil() above may have made a few maps more than are wanted
        return torch.cat([intrinsic, self.cheap(intrinsic)], 1)[:, : self.out_channels]
