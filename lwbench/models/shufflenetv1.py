"""ShuffleNet: pointwise group convolution and channel shuffle (dcnn table 5-11).

Zhang et al., CVPR 2018, https://arxiv.org/abs/1707.01083.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from ..layers.conv import conv_norm, initialise
from ..layers.deform import Offsets, Stem, stem_conv
from ..layers.shuffle import channel_shuffle
from ..layers.width import Width, divisible
from ..registry import MODELS, Fraction

STEM = 24  # dcnn prints 25 for g = 8: a misprint
# fmt: off
STAGES = {  # dcnn table 5-11, the paper's table 1: groups -> channels of stages 2, 3, 4
    1: (144, 288,  576),
    2: (200, 400,  800),
    3: (240, 480,  960),
    4: (272, 544, 1088),
    8: (384, 768, 1536),
}
# fmt: on
UNITS = (4, 8, 4)  # of stages 2, 3, 4; the first of each at stride 2


class ShuffleUnit(nn.Module):
    """1 x 1 group convolution, shuffle, 3 x 3 depthwise, 1 x 1 group convolution (dcnn fig. 5-11).

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride). At stride 1 the input is
    added and the channels stay; at stride 2 it is average-pooled and concatenated, so that the
    convolutions yield out_channels - in_channels maps. `first_groups`: groups of the first
    convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, groups: int, first_groups: int
    ) -> None:
        super().__init__()
        middle = out_channels // 4
        last = out_channels - in_channels if stride == 2 else out_channels
        self.reduce = conv_norm(in_channels, middle, groups=first_groups, activation=nn.ReLU)
        self.groups = groups
        self.depthwise = conv_norm(middle, middle, 3, stride=stride, groups=middle)
        self.expand = conv_norm(middle, last, groups=groups)
        self.pool = nn.AvgPool2d(3, 2, 1) if stride == 2 else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.depthwise(channel_shuffle(self.reduce(x), self.groups)))
        if self.pool is None:
            return self.relu(x + y)
        return self.relu(torch.cat([self.pool(x), y], 1))


class ShuffleNetV1(nn.Module):
    """The network of dcnn table 5-11; see `shufflenetv1`."""

    def __init__(
        self,
        num_classes: int,
        *,
        groups: int,
        width: float,
        stem: Stem,
        offsets: Offsets,
        dropout: float,
    ) -> None:
        super().__init__()
        channels = divisible(STEM * width, groups)
        first = stem_conv(3, channels, stem=stem, offsets=offsets)
        self.stem = conv_norm(3, channels, conv=first, activation=nn.ReLU)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.stages = nn.Sequential()
        for stage, (out, units) in enumerate(zip(STAGES[groups], UNITS, strict=True)):
            # a quarter of the channels must be a multiple of the groups
            out_channels = divisible(out * width, 4 * groups)
            for unit in range(units):
                self.stages.append(
                    ShuffleUnit(
                        channels,
                        out_channels,
                        stride=2 if unit == 0 else 1,
                        groups=groups,
                        # the stem's few channels are not grouped (the paper, section 3.2)
                        first_groups=1 if stage == unit == 0 else groups,
                    )
                )
                channels = out_channels
        self.average = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.average(self.stages(self.pool(self.stem(x)))).flatten(1)
        return self.classifier(self.dropout(x))


@MODELS.register
def shufflenetv1(
    num_classes: int,
    *,
    groups: Literal[1, 2, 3, 4, 8] = 3,
    width: Width = 1.0,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    dropout: Fraction = 0.0,
) -> nn.Module:
    """ShuffleNet; input (N, 3, H, W), output (N, num_classes) logits. The total stride is 32.

    `groups`: of the pointwise convolutions; the widths of the stages depend on it. `width`: the
    paper's scale factor "s x" of all channels, rounded to multiples of the groups. `stem` and
    `offsets`: see `layers.deform`. `dropout` is applied before the classifier (the paper: none).
    """
    return initialise(
        ShuffleNetV1(
            num_classes, groups=groups, width=width, stem=stem, offsets=offsets, dropout=dropout
        )
    )
