"""ShuffleNetV2: channel split in place of group convolutions (dcnn table 5-12).

Ma et al., ECCV 2018, https://arxiv.org/abs/1807.11164.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..layers.conv import conv_norm, initialise
from ..layers.deform import Offsets, Stem, stem_conv
from ..layers.shuffle import channel_shuffle
from ..registry import MODELS, Fraction

Halving = Literal["authors", "equal"]

# fmt: off
CHANNELS = {  # dcnn table 5-12: width -> stages 2, 3, 4, last convolution
    0.5: ( 48,  96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),  # dcnn's listing has 1024 here by mistake
}
# fmt: on
UNITS = (4, 8, 4)  # of stages 2, 3, 4; the first of each at stride 2


def branch(in_channels: int, middle: int, out_channels: int, *, stride: int) -> nn.Sequential:
    """1 x 1, 3 x 3 depthwise at `stride`, 1 x 1; the depthwise one without activation."""
    return nn.Sequential(
        conv_norm(in_channels, middle, activation=nn.ReLU),
        conv_norm(middle, middle, 3, stride=stride, groups=middle),
        conv_norm(middle, out_channels, activation=nn.ReLU),
    )


class SplitUnit(nn.Module):
    """Stride-1 unit (dcnn fig. 5-12 c): half of the channels pass unchanged.

    The other half passes the branch. (N, channels, H, W) -> the same shape, shuffled.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = branch(half, half, half, stride=1)

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        return channel_shuffle(torch.cat([left, self.branch(right)], 1), 2)


class HalvingUnit(nn.Module):
    """Stride-2 unit (dcnn fig. 5-12 d): no split, both branches see the whole input.

    (N, in_channels, H, W) -> (N, out_channels, H / 2, W / 2). `halving="authors"`: the shortcut
    keeps in_channels, the branch yields the rest (the code the printed figures were counted with);
    "equal": each yields one half (dcnn's listing, torchvision).
    """

    def __init__(self, in_channels: int, out_channels: int, *, halving: Halving) -> None:
        super().__init__()
        half = out_channels // 2
        side = in_channels if halving == "authors" else half
        self.shortcut = nn.Sequential(
            conv_norm(in_channels, in_channels, 3, stride=2, groups=in_channels),
            conv_norm(in_channels, side, activation=nn.ReLU),
        )
        self.branch = branch(in_channels, half, out_channels - side, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return channel_shuffle(torch.cat([self.shortcut(x), self.branch(x)], 1), 2)


class ShuffleNetV2(nn.Module):
    """The network of dcnn table 5-12; see `shufflenetv2`."""

    def __init__(
        self,
        num_classes: int,
        *,
        width: float,
        halving: Halving,
        stem: Stem,
        offsets: Offsets,
        dropout: float,
    ) -> None:
        super().__init__()
        *stages, last = CHANNELS[width]
        first = stem_conv(3, 24, stem=stem, offsets=offsets)
        self.stem = conv_norm(3, 24, conv=first, activation=nn.ReLU)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.stages = nn.Sequential()
        channels = 24
        for out_channels, units in zip(stages, UNITS, strict=True):
            self.stages.append(HalvingUnit(channels, out_channels, halving=halving))
            self.stages.extend(SplitUnit(out_channels) for _ in range(units - 1))
            channels = out_channels
        self.head = conv_norm(channels, last, activation=nn.ReLU)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.stages(self.pool(self.stem(x))))
        return self.classifier(self.dropout(self.average(x).flatten(1)))


@MODELS.register
def shufflenetv2(
    num_classes: int,
    *,
    width: float = 1.0,
    halving: Halving = "authors",
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    dropout: Fraction = 0.0,
) -> nn.Module:
    """ShuffleNetV2; input (N, 3, H, W), output (N, num_classes) logits. The total stride is 32.

    `width`: 0.5, 1, 1.5 or 2, whose channels the paper lists. `halving`: see `HalvingUnit`; only
    "authors" gives the printed MACs. `stem` and `offsets`: see `layers.deform`. `dropout` is
    applied before the classifier (the paper: none). Raises UsageError for another width.
    """
    if width not in CHANNELS:
        raise UsageError(f"model.width={width}: the paper lists 0.5, 1, 1.5 and 2")
    return initialise(
        ShuffleNetV2(
            num_classes, width=width, halving=halving, stem=stem, offsets=offsets, dropout=dropout
        )
    )
