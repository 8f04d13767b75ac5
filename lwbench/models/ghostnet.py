"""GhostNet (Han et al., CVPR 2020, table 7), https://arxiv.org/abs/1911.11907.

Two releases exist that the paper does not tell apart. The "early" one (late 2019) is what hsnet
counted: 149.23 M with 100 classes under torchstat's rule. The "official" one has the published
weights and is what timm has (149.52 M).
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ..layers.conv import conv_norm, initialise
from ..layers.deform import Offsets, Stem, stem_conv
from ..layers.ghost import GhostModule
from ..registry import MODELS, Fraction

Release = Literal["early", "official"]

# fmt: off
BLOCKS = [  # the paper's table 7, with the kernels of both releases
    # k, exp, out, se, s
    (3,  16,  16,  0, 1),
    (3,  48,  24,  0, 2),
    (3,  72,  24,  0, 1),
    (5,  72,  40,  1, 2),
    (5, 120,  40,  1, 1),
    (3, 240,  80,  0, 2),
    (3, 200,  80,  0, 1),
    (3, 184,  80,  0, 1),
    (3, 184,  80,  0, 1),
    (3, 480, 112,  1, 1),
    (3, 672, 112,  1, 1),
    (5, 672, 160,  1, 2),
    (5, 960, 160,  0, 1),
    (5, 960, 160,  1, 1),
    (5, 960, 160,  0, 1),
    (5, 960, 160,  1, 1),
]
# fmt: on


def divisible_by_4(channels: float) -> int:
    """Round `channels` to a multiple of 4: the nearest, but not below 90 % of it, at least 4."""
    rounded = max(4, int(channels + 2) // 4 * 4)
    return rounded + 4 if rounded < 0.9 * channels else rounded


class GhostExcite(nn.Module):
    """Squeeze-and-excitation by a quarter, (N, C, H, W) -> the same, scaled by channel.

    Early: linear layers and a gate that clamps to [0, 1]. Official: 1 x 1 convolutions, whose width
    is a multiple of 4, and a hard sigmoid.
    """

    def __init__(self, channels: int, *, release: Release) -> None:
        super().__init__()
        self.early = release == "early"
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.relu = nn.ReLU()
        if self.early:
            self.reduce: nn.Module = nn.Linear(channels, channels // 4)
            self.expand: nn.Module = nn.Linear(channels // 4, channels)
        else:
            squeezed = divisible_by_4(channels / 4)
            self.reduce = nn.Conv2d(channels, squeezed, 1)
            self.expand = nn.Conv2d(squeezed, channels, 1)
            self.gate = nn.Hardsigmoid()

    def reset_early(self) -> None:
        """Initialise the linear layers as PyTorch does and as the early release left them.

        With weights of 0.01 and no bias the gates would start at 0, where they have hardly a
        gradient.
        """
        for layer in (self.reduce, self.expand):
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(x)
        if not self.early:
            return x * self.gate(self.expand(self.relu(self.reduce(pooled))))
        scale = self.expand(self.relu(self.reduce(pooled.flatten(1))))
        return x * torch.clamp(scale, 0, 1)[:, :, None, None]


class GhostBottleneck(nn.Module):
    """Ghost bottleneck (the paper's fig. 3).

    (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

    Ghost module, depthwise convolution (at stride 2 only), SE, Ghost module without activation. The
    shortcut's depthwise convolution is 3 x 3 with a ReLU in the early release; in the official one
    it has the block's kernel and no ReLU.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        expand: int,
        se: bool,
        stride: int,
        release: Release,
    ) -> None:
        super().__init__()
        self.ghost1 = GhostModule(in_channels, expand)
        self.depthwise: nn.Module = nn.Identity()
        if stride > 1:
            self.depthwise = conv_norm(expand, expand, kernel, stride=stride, groups=expand)
        self.se = GhostExcite(expand, release=release) if se else nn.Identity()
        self.ghost2 = GhostModule(expand, out_channels, activation=None)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            early = release == "early"
            depthwise = conv_norm(
                in_channels,
                in_channels,
                3 if early else kernel,
                stride=stride,
                groups=in_channels,
                activation=nn.ReLU if early else None,
            )
            self.shortcut = nn.Sequential(depthwise, conv_norm(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.ghost2(self.se(self.depthwise(self.ghost1(x)))) + self.shortcut(x)


class GhostNet(nn.Module):
    """The network of the paper's table 7; see `ghostnet`."""

    def __init__(
        self,
        num_classes: int,
        *,
        stem: Stem,
        offsets: Offsets,
        width: float,
        release: Release,
        dropout: float,
    ) -> None:
        super().__init__()
        channels = divisible_by_4(16 * width)
        conv = stem_conv(3, channels, stem=stem, offsets=offsets)
        self.stem = conv_norm(3, channels, activation=nn.ReLU, conv=conv)
        self.blocks = nn.Sequential()
        for kernel, exp, out, se, stride in BLOCKS:
            expand, out_channels = divisible_by_4(exp * width), divisible_by_4(out * width)
            self.blocks.append(
                GhostBottleneck(
                    channels,
                    out_channels,
                    kernel=kernel,
                    expand=expand,
                    se=bool(se),
                    stride=stride,
                    release=release,
                )
            )
            channels = out_channels
        self.head = conv_norm(channels, expand, activation=nn.ReLU)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = _hidden(expand, release)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.hidden(self.pool(self.head(self.blocks(self.stem(x)))))
        return self.classifier(self.dropout(x))


def _hidden(in_channels: int, release: Release) -> nn.Sequential:
    """(N, in_channels, 1, 1) -> (N, 1280)."""
    if release == "early":
        linear = nn.Linear(in_channels, 1280, bias=False)
        return nn.Sequential(nn.Flatten(), linear, nn.BatchNorm1d(1280), nn.ReLU())
    return nn.Sequential(nn.Conv2d(in_channels, 1280, 1), nn.ReLU(), nn.Flatten())


@MODELS.register
def ghostnet(
    num_classes: int,
    *,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    width: Annotated[float, Field(gt=0)] = 1.0,
    release: Release = "early",
    dropout: Fraction = 0.2,
) -> nn.Module:
    """GhostNet; input (N, 3, H, W), output (N, num_classes) logits.

    `width`: multiplier of all channels. `release`: "early" as hsnet counted it, "official" as the
    published weights need it; they differ in SE, shortcuts and the hidden layer of 1280. `dropout`
    is applied before the classifier (0.2 in both releases). The total stride is 32.
    """
    model = initialise(
        GhostNet(
            num_classes, stem=stem, offsets=offsets, width=width, release=release, dropout=dropout
        )
    )
    for module in model.modules():
        if isinstance(module, GhostExcite):
            module.reset_early()
    return model
