"""ResNet50, ResNeXt50 and ResNeXt101 for small images, and Ghost-ResNet50 (hsnet, tables 3 and 4).

ResNet (He et al., CVPR 2016, table 1), https://arxiv.org/abs/1512.03385; ResNeXt (Xie et al., CVPR
2017, table 1), https://arxiv.org/abs/1611.05431. A 3 x 3 convolution at stride 1 comes first, no
pooling. hsnet's ResNet50 starts with 64 channels in table 4 and with 16 in table 3 (1.53 M
parameters in the text, which once calls it ResNet56). Its Ghost-ResNet50 (3.92 G) is described
nowhere; ours is a fit.
"""

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..errors import UsageError
from ..layers.conv import conv_norm, initialise
from ..layers.deform import Offsets, Stem, stem_conv
from ..layers.ghost import GhostModule
from ..registry import MODELS, Fraction

Count = Annotated[int, Field(ge=1)]


def _pointwise(in_channels: int, out_channels: int, *, ghost: bool, relu: bool) -> nn.Module:
    activation = nn.ReLU if relu else None
    if ghost:
        return GhostModule(in_channels, out_channels, activation=activation)
    return conv_norm(in_channels, out_channels, activation=activation)


class Bottleneck(nn.Module):
    """Reduce, 3 x 3, expand fourfold; with `ghost` both 1 x 1 convolutions are Ghost modules.

    (N, in_channels, H, W) -> (N, 4 * width, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, width: int, *, stride: int, ghost: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _pointwise(in_channels, width, ghost=ghost, relu=True),
            conv_norm(width, width, 3, stride=stride, activation=nn.ReLU),
            _pointwise(width, 4 * width, ghost=ghost, relu=False),
        )
        self.shortcut = _shortcut(in_channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        # a function rather than a module, since hsnet's counter, which sees modules only, did not
        # count an activation here
        return F.relu(self.layers(x) + self.shortcut(x))


class BottleneckNeXt(nn.Module):
    """Aggregated transformations; the reducing convolution is grouped too, unlike the paper's.

    (N, in_channels, H, W) -> (N, 4 * width, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, in_channels: int, width: int, *, stride: int, groups: int) -> None:
        super().__init__()
        mid = groups * (4 * width // 64)
        self.layers = nn.Sequential(
            conv_norm(in_channels, mid, groups=groups, activation=nn.ReLU),
            conv_norm(mid, mid, 3, stride=stride, groups=groups, activation=nn.ReLU),
            conv_norm(mid, 4 * width),
        )
        self.shortcut = _shortcut(in_channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + self.shortcut(x))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return conv_norm(in_channels, out_channels, stride=stride)


class CifarResNet(nn.Module):
    """A stem, four stages of blocks and a classifier; see the builders."""

    def __init__(
        self, num_classes: int, *, stem: nn.Module, stages: nn.Module, channels: int, dropout: float
    ) -> None:
        super().__init__()
        self.stem, self.stages = stem, stages
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(self.stem(x)).mean((2, 3))
        return self.classifier(self.dropout(x))


@MODELS.register
def cifar_resnet(
    num_classes: int,
    *,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    depths: list[Count] = [3, 4, 6, 3],  # noqa: B006 -- plain data, never changed
    stem_channels: Count = 64,
    ghost_stages: list[int] = [],  # noqa: B006
    dropout: Fraction = 0.0,
) -> nn.Module:
    """ResNet of bottlenecks for small images; input (N, 3, H, W), output (N, num_classes) logits.

    `depths`: blocks per stage. `stem_channels`: channels of the first convolution, which all widths
    follow (doubled from stage to stage). `ghost_stages`: the stages (1 is ResNet's conv2_x) whose 1
    x 1 convolutions, shortcuts aside, become Ghost modules of ratio 2. `dropout` is applied before
    the classifier. Each stage from the second on halves the size: 8 for four stages. Raises
    UsageError for a stage that is not there.
    """
    if unknown := sorted(set(ghost_stages) - set(range(1, len(depths) + 1))):
        raise UsageError(f"model.ghost_stages={unknown}: the stages are 1 to {len(depths)}")
    first = stem_conv(3, stem_channels, stride=1, stem=stem, offsets=offsets)
    stages = nn.Sequential()
    channels = stem_channels
    for stage, depth in enumerate(depths, 1):
        width = stem_channels * 2 ** (stage - 1)
        for index in range(depth):
            stride = 2 if stage > 1 and not index else 1
            ghost = stage in ghost_stages
            stages.append(Bottleneck(channels, width, stride=stride, ghost=ghost))
            channels = 4 * width
    return initialise(
        CifarResNet(
            num_classes,
            stem=conv_norm(3, stem_channels, activation=nn.ReLU, conv=first),
            stages=stages,
            channels=channels,
            dropout=dropout,
        )
    )


@MODELS.register
def cifar_resnext(
    num_classes: int,
    *,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    depths: list[Count] = [3, 4, 6, 3],  # noqa: B006
    groups: Count = 32,
    dropout: Fraction = 0.0,
) -> nn.Module:
    """ResNeXt (32 x 4d) for small images; input (N, 3, H, W), output (N, num_classes) logits.

    `depths`: blocks per stage. `groups`: the cardinality; a group has 4 channels in stage 1,
    doubled from stage to stage. `dropout` is applied before the classifier. Each stage from the
    second on halves the size. Raises UsageError for groups that do not divide the channels.
    """
    if 64 % groups:
        raise UsageError(f"model.groups={groups}: a divisor of the first 64 channels is needed")
    first = stem_conv(3, 64, stride=1, stem=stem, offsets=offsets)
    stages = nn.Sequential()
    channels = 64
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        for index in range(depth):
            stride = 2 if stage and not index else 1
            stages.append(BottleneckNeXt(channels, width, stride=stride, groups=groups))
            channels = 4 * width
    return initialise(
        CifarResNet(
            num_classes,
            stem=conv_norm(3, 64, activation=nn.ReLU, conv=first),
            stages=stages,
            channels=channels,
            dropout=dropout,
        )
    )
