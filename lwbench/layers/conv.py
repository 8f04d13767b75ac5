"""Convolutions with what follows them, and the initialisation of a whole network."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from .deform import DeformConv2d


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    activation: Callable[[], nn.Module] | None = None,
    conv: nn.Module | None = None,
) -> nn.Sequential:
    """Return a convolution, by default without bias, a batch norm and, if given, an activation.

    (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)) for an odd
    kernel: padding keeps the size at stride 1. `conv`, if given, is used as the convolution (a
    deformable one, for example).
    """
    # attributes rather than indices: state-dict keys then name the layer
    layers = nn.Sequential()
    layers.conv = conv or nn.Conv2d(
        in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=bias
    )
    layers.norm = nn.BatchNorm2d(out_channels)
    if activation is not None:
        layers.activation = activation()
    return layers


# Several public CIFAR networks (hsnet, table 4) have a bias in front of their batch norm, which
# subtracts it again: the function stays, but parameters and, under most rules, operations are more.
biased_conv_norm = partial(conv_norm, bias=True)


def initialise(model: nn.Module) -> nn.Module:
    """Initialise a network's weights in place and return it.

    Kaiming normal (fan-out) for convolutions, 1 and 0 for norms, N(0, 0.01) for linear layers, as
    in the listing of dcnn, 5.4.1. Offset branches are reset to zero afterwards: see
    `deform.DeformConv2d.reset_offsets`.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.ones_(module.weight)
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)
    # last, since the loop above has just given the branches' convolutions random weights
    for module in model.modules():
        if isinstance(module, DeformConv2d):
            module.reset_offsets()
    return model
