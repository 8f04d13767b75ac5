"""SqueezeNet 1.0 and 1.1: fire modules, no batch norm, no fully connected layer.

Iandola et al., 2016, https://arxiv.org/abs/1602.07360; 1.1 is the authors' later release, with the
pools earlier and a quarter of the MACs.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from ..layers.conv import initialise
from ..layers.deform import DeformConv2d, Offsets, Stem
from ..registry import MODELS, Fraction

POOL = (0, 0)
# fmt: off
FIRES = {  # fire modules in order, with the max pools between them
    # squeeze, out
    "1.0": [(16, 128), (16, 128), (32, 256), POOL,
            (32, 256), (48, 384), (48, 384), (64, 512), POOL, (64, 512)],
    "1.1": [(16, 128), (16, 128), POOL, (32, 256), (32, 256), POOL,
            (48, 384), (48, 384), (64, 512), (64, 512)],
}
# fmt: on
STEMS = {"1.0": (96, 7), "1.1": (64, 3)}  # channels, kernel; stride 2, not padded


def first_conv(channels: int, kernel: int, *, stem: Stem, offsets: Offsets) -> nn.Module:
    """The unpadded first convolution, biased if plain; a deformable one has no bias."""
    if stem == "conv":
        return nn.Conv2d(3, channels, kernel, 2)
    return DeformConv2d(3, channels, kernel, stride=2, padding=0, branch=stem, offsets=offsets)


class Fire(nn.Module):
    """Squeeze by 1 x 1 convolutions, expand by 1 x 1 and 3 x 3 ones, half of the maps each.

    (N, in_channels, H, W) -> (N, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, *, squeeze: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1 = nn.Conv2d(squeeze, out_channels // 2, 1)
        self.expand3 = nn.Conv2d(squeeze, out_channels // 2, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.squeeze(x))
        return self.relu(torch.cat([self.expand1(x), self.expand3(x)], 1))


class SqueezeNet(nn.Module):
    """The networks of the paper's table 1 and of the 1.1 release; see `squeezenet`."""

    def __init__(
        self,
        num_classes: int,
        *,
        version: Literal["1.0", "1.1"],
        stem: Stem,
        offsets: Offsets,
        dropout: float,
    ) -> None:
        super().__init__()
        channels, kernel = STEMS[version]
        first = first_conv(channels, kernel, stem=stem, offsets=offsets)
        self.stem = nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True))
        self.fires = nn.Sequential()
        for squeeze, out_channels in FIRES[version]:
            if (squeeze, out_channels) == POOL:
                self.fires.append(nn.MaxPool2d(3, 2, ceil_mode=True))
                continue
            self.fires.append(Fire(channels, out_channels, squeeze=squeeze))
            channels = out_channels
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.fires(self.stem(x)))
        return self.pool(self.relu(self.classifier(x))).flatten(1)


@MODELS.register
def squeezenet(
    num_classes: int,
    *,
    version: Literal["1.0", "1.1"] = "1.1",
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    dropout: Fraction = 0.0,
) -> nn.Module:
    """SqueezeNet; input (N, 3, H, W), output (N, num_classes) logits, which are never negative.

    `stem` and `offsets`: see `layers.deform`. `dropout` is applied before the last convolution (0.5
    in the paper). Without batch norm it needs a smaller learning rate than the other networks
    here (the paper: 0.04).
    """
    model = SqueezeNet(num_classes, version=version, stem=stem, offsets=offsets, dropout=dropout)
    initialise(model)
    # with Kaiming's fan-out the initial logits of ten classes would be in the tens
    nn.init.normal_(model.classifier.weight, 0.0, 0.01)
    return model
