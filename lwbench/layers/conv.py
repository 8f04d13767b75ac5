"""Convolutions with what follows them, and the initialisation of a whole network."""

from collections.abc import Callable

from torch import Tensor, nn

from .deform import DeformConv2d


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = None,
    conv: nn.Module | None = None,
) -> nn.Sequential:
    """Return a convolution without bias, a batch norm and, if given, an activation.

    (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)) for an odd
    kernel: padding keeps the size at stride 1. `conv`, if given, is used as the convolution (a
    deformable one, for example).
    """
    # attributes rather than indices: state-dict keys then name the layer
    layers = nn.Sequential()
    layers.conv = conv or nn.Conv2d(
        in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    layers.norm = nn.BatchNorm2d(out_channels)
    if activation is not None:
        layers.activation = activation()
    return layers


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
