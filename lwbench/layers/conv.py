"""Convolutions with what follows them, and the initialisation of a whole network."""

from collections.abc import Callable

from torch import nn


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
    """Convolution without bias, batch norm and, if given, an activation.

    Padding keeps the size at stride 1.

    (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)) for an odd
    kernel. `conv` takes the convolution's place (a deformable one, say).
    """
    layers = nn.Sequential()
    layers.conv = conv or nn.Conv2d(
        in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    layers.norm = nn.BatchNorm2d(out_channels)
    if activation is not None:
        layers.activation = activation()
    return layers


def initialise(model: nn.Module) -> nn.Module:
    """Kaiming normal (fan-out) convolutions, norms 1 and 0, linear N(0, 0.01); returns the model.

    As the listing of dcnn, 5.4.1 does. Offset branches are put back to zero afterwards: see
    `layers.deform`.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.ones_(module.weight)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)
    for module in model.modules():
        if hasattr(module, "reset_offsets"):
            module.reset_offsets()
    return model
