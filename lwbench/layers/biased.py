"""Convolutions with a bias in front of their batch norm.

Several public CIFAR networks have them (hsnet, table 4). The norm subtracts the bias again, so that
the network computes the same function, but the bias adds parameters and, under most rules, counted
operations.
"""

from collections.abc import Callable

from torch import nn

from .conv import conv_norm


def biased_conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = None,
) -> nn.Sequential:
    """Return `conv_norm` with a bias in its convolution; shapes as there."""
    # padding keeps the size at stride 1, as `conv_norm` does
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups)
    return conv_norm(in_channels, out_channels, activation=activation, conv=conv)
