"""HSNet: heterogeneous convolutions, Ghost modules and channel attention in residual stages.

Yu, Gao, Hu: "Lightweight image classification network based on heterogeneous convolution" (hsnet),
figs. 2, 4, 6 and table 1. Given there: a stem of depthwise separable and pooling paths to half the
size; four stages that each halve it, ResHetModel_B first, then ResHetModel_A repeated; in both a
heterogeneous convolution whose 1 x 1 part is a Ghost module, a Ghost module and a shortcut; ECA in
A of stages 1 to 3; 1280 channels before the classifier; 231.87 M FLOPs, 3.00 M parameters.

Not given: widths, depths, P, the Ghost ratio, ECA's kernel, the figures' details. The defaults are
a *fit* of ours to the two totals (2.984 M, 231.81 M under torchstat's rule with 100 classes), one
of several that come equally close.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from ..errors import UsageError
from ..layers.attention import EfficientChannelAttention
from ..layers.conv import conv_norm, initialise
from ..layers.deform import Offsets, Stem, stem_conv
from ..layers.ghost import GhostModule
from ..layers.hetconv import HetConv
from ..registry import MODELS, Fraction


class StemBlock(nn.Module):
    """(N, 3, H, W) -> (N, 2 * channels, ceil(H / 2), ceil(W / 2)) (hsnet, fig. 4).

    A stride-2 convolution, then two paths: depthwise separable ("SCConv") and max pooling.
    """

    def __init__(self, channels: int, *, stem: Stem, offsets: Offsets) -> None:
        super().__init__()
        conv = stem_conv(3, channels, stem=stem, offsets=offsets)
        self.conv = conv_norm(3, channels, activation=nn.ReLU, conv=conv)
        self.separable = nn.Sequential(
            conv_norm(channels, channels, 3, groups=channels, activation=nn.ReLU),
            conv_norm(channels, channels, activation=nn.ReLU),
        )
        self.pool = nn.MaxPool2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return torch.cat([self.separable(x), self.pool(x)], 1)


def het_ghost(
    in_channels: int, out_channels: int, *, stride: int, parts: int, ratio: int
) -> nn.Sequential:
    """Improved heterogeneous convolution (hsnet, fig. 2), batch norm, ReLU."""
    ghost = GhostModule(in_channels, out_channels, stride=stride, ratio=ratio, activation=None)
    conv = HetConv(in_channels, out_channels, stride=stride, parts=parts, pointwise=ghost)
    return conv_norm(in_channels, out_channels, activation=nn.ReLU, conv=conv)


class ResHetModel(nn.Module):
    """Residual block of hsnet, fig. 6: form A at stride 1, form B (downsampling) at stride 2.

    (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)).

    A adds its input and may weight its channels (`eca`: the kernel, 0 for none); B has a depthwise
    separable shortcut.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, parts: int, ratio: int, eca: int
    ) -> None:
        super().__init__()
        self.het = het_ghost(in_channels, out_channels, stride=stride, parts=parts, ratio=ratio)
        self.ghost = GhostModule(out_channels, out_channels, ratio=ratio, activation=None)
        attend = EfficientChannelAttention(out_channels, kernel=eca) if eca else nn.Identity()
        self.eca = attend
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(
                conv_norm(in_channels, in_channels, 3, stride=stride, groups=in_channels),
                conv_norm(in_channels, out_channels),
            )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.eca(self.ghost(self.het(x))) + self.shortcut(x))


class HSNet(nn.Module):
    """The network of hsnet, table 1; see `hsnet`."""

    def __init__(
        self,
        num_classes: int,
        *,
        stem_block: StemBlock,
        stem_channels: int,
        widths: list[int],
        depths: list[int],
        eca: list[int],
        parts: int,
        ratio: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.stem = stem_block
        self.stages = nn.Sequential()
        channels = 2 * stem_channels
        for width, depth, kernel in zip(widths, depths, eca, strict=True):
            stage = nn.Sequential()
            for index in range(depth):
                stage.append(
                    ResHetModel(
                        channels,
                        width,
                        stride=1 if index else 2,
                        parts=parts,
                        ratio=ratio,
                        eca=kernel if index else 0,
                    )
                )
                channels = width
            self.stages.append(stage)
        self.head = conv_norm(channels, 1280, activation=nn.ReLU)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.stages(self.stem(x))).mean((2, 3))
        return self.classifier(self.dropout(x))


@MODELS.register
def hsnet(
    num_classes: int,
    *,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    eca_stages: list[int] = [1, 2, 3],  # noqa: B006 -- plain data, never changed
    eca_kernel: Annotated[int, Field(ge=1)] = 3,
    parts: Annotated[int, Field(ge=1)] = 8,
    ratio: Annotated[int, Field(ge=2)] = 2,
    stem_channels: Annotated[int, Field(ge=1)] = 16,
    widths: list[Annotated[int, Field(ge=1)]] = [32, 64, 128, 512],  # noqa: B006
    depths: list[Annotated[int, Field(ge=1)]] = [3, 4, 4, 4],  # noqa: B006
    dropout: Fraction = 0.0,
) -> nn.Module:
    """HSNet; input (N, 3, H, W), output (N, num_classes) logits. The total stride is 32.

    `eca_stages`: the stages (from 1) whose ResHetModel_A blocks have ECA of `eca_kernel` (odd);
    hsnet, table 2 varies them, table 1 has 1, 2, 3. `parts`: the paper's P. `ratio`: that of the
    Ghost modules. `widths` and `depths`: channels and blocks per stage, the first block being
    ResHetModel_B. All but `eca_stages` are a fit: the paper gives none of them. `dropout` is
    applied before the classifier. Raises UsageError where the values do not go together.
    """
    _check(eca_stages, eca_kernel, parts, [2 * stem_channels, *widths], depths)
    return initialise(
        HSNet(
            num_classes,
            stem_block=StemBlock(stem_channels, stem=stem, offsets=offsets),
            stem_channels=stem_channels,
            widths=widths,
            depths=depths,
            eca=[eca_kernel * (stage in eca_stages) for stage in range(1, len(widths) + 1)],
            parts=parts,
            ratio=ratio,
            dropout=dropout,
        )
    )


def _check(
    eca_stages: list[int], eca_kernel: int, parts: int, channels: list[int], depths: list[int]
) -> None:
    stages = len(channels) - 1
    if len(depths) != stages or not stages:
        raise UsageError(
            f"model.depths={depths}: one depth for each of the {stages} model.widths is needed"
        )
    if unknown := sorted(set(eca_stages) - set(range(1, stages + 1))):
        raise UsageError(f"model.eca_stages={unknown}: the stages are 1 to {stages}")
    if eca_kernel % 2 == 0:
        raise UsageError(f"model.eca_kernel={eca_kernel}: an odd size is needed")
    if wrong := [c for c in channels if c % parts]:
        raise UsageError(
            f"model.parts={parts}: the channels (twice stem_channels, then widths) must be "
            f"multiples of it; {wrong} are not"
        )
