"""ShuffleNet and ShuffleNetV2 in the CIFAR forms that hsnet, table 4 counted (2.22 G and 2.23 G).

ShuffleNet (Zhang et al., CVPR 2018, table 1, g = 3), https://arxiv.org/abs/1707.01083; ShuffleNetV2
(Ma et al., ECCV 2018, table 5, 1x), https://arxiv.org/abs/1807.11164. Both start at stride 1 and
without pooling; their convolutions have biases before the norms (see `layers.conv`).
"""

import torch
from torch import Tensor, nn

from ..layers.conv import biased_conv_norm, conv_norm, initialise
from ..layers.deform import Offsets, Stem, stem_conv
from ..layers.shuffle import channel_shuffle
from ..registry import MODELS, Fraction

REPEATS = (4, 8, 4)  # units of each stage, the first at stride 2
V1_WIDTHS = (240, 480, 960)
V2_WIDTHS = (116, 232, 464)


class ShuffleUnit(nn.Module):
    """Grouped 1 x 1, shuffle, depthwise, grouped 1 x 1 (the paper's fig. 2b, 2c).

    (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

    At stride 2 an average-pooled copy of the input makes the first `in_channels` of the output. The
    first convolution is grouped in every unit, though the paper leaves stage 2's whole.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        mid = out_channels // 4
        made = out_channels if stride == 1 else out_channels - in_channels
        self.reduce = biased_conv_norm(in_channels, mid, groups=groups, activation=nn.ReLU)
        self.depthwise = biased_conv_norm(mid, mid, 3, stride=stride, groups=mid)
        self.expand = biased_conv_norm(mid, made, groups=groups)
        self.pool = nn.AvgPool2d(3, 2, 1) if stride > 1 else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = channel_shuffle(self.reduce(x), self.groups)
        y = self.expand(self.depthwise(y))
        return self.relu(x + y if self.pool is None else torch.cat([self.pool(x), y], 1))


class ShuffleUnitV2(nn.Module):
    """Two paths, concatenated and shuffled (the paper's fig. 3c, 3d).

    (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

    At stride 1 half of the channels pass unchanged; at stride 2 both paths see all channels.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        half = out_channels // 2
        path = in_channels if stride > 1 else half
        self.main = nn.Sequential(
            biased_conv_norm(path, path, activation=nn.ReLU),
            biased_conv_norm(path, path, 3, stride=stride, groups=path),
            biased_conv_norm(path, half, activation=nn.ReLU),
        )
        self.side = None
        if stride > 1:
            self.side = nn.Sequential(
                biased_conv_norm(path, path, 3, stride=stride, groups=path),
                biased_conv_norm(path, half, activation=nn.ReLU),
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.side is None:
            kept, x = x.chunk(2, 1)
        else:
            kept = self.side(x)
        return channel_shuffle(torch.cat([kept, self.main(x)], 1), 2)


class CifarShuffleNet(nn.Module):
    """A stem, the stages, a head and a classifier; see the builders."""

    def __init__(
        self,
        num_classes: int,
        *,
        stem: nn.Module,
        stages: nn.Module,
        head: nn.Module,
        channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.stem, self.stages, self.head = stem, stages, head
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.stages(self.stem(x))).mean((2, 3))
        return self.classifier(self.dropout(x))


@MODELS.register
def cifar_shufflenet(
    num_classes: int,
    *,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    dropout: Fraction = 0.0,
) -> nn.Module:
    """ShuffleNet (g = 3) for small images; input (N, 3, H, W), output (N, num_classes) logits.

    `dropout` is applied before the classifier. The total stride is 8.
    """
    first = stem_conv(3, 24, stride=1, stem=stem, offsets=offsets, bias=True)
    stages = nn.Sequential()
    channels = 24
    for width, repeats in zip(V1_WIDTHS, REPEATS, strict=True):
        for index in range(repeats):
            stages.append(ShuffleUnit(channels, width, stride=1 if index else 2, groups=3))
            channels = width
    return initialise(
        CifarShuffleNet(
            num_classes,
            stem=conv_norm(3, 24, activation=nn.ReLU, conv=first),
            stages=stages,
            head=nn.Identity(),
            channels=channels,
            dropout=dropout,
        )
    )


@MODELS.register
def cifar_shufflenetv2(
    num_classes: int,
    *,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    dropout: Fraction = 0.0,
) -> nn.Module:
    """ShuffleNetV2 1x for small images; input (N, 3, H, W), output (N, num_classes) logits.

    The first convolution has a norm but no ReLU. `dropout` is applied before the classifier. The
    total stride is 8.
    """
    first = stem_conv(3, 24, stride=1, stem=stem, offsets=offsets, bias=True)
    stages = nn.Sequential()
    channels = 24
    for width, repeats in zip(V2_WIDTHS, REPEATS, strict=True):
        for index in range(repeats):
            stages.append(ShuffleUnitV2(channels, width, stride=1 if index else 2))
            channels = width
    return initialise(
        CifarShuffleNet(
            num_classes,
            stem=conv_norm(3, 24, conv=first),
            stages=stages,
            head=biased_conv_norm(channels, 1024, activation=nn.ReLU),
            channels=1024,
            dropout=dropout,
        )
    )
