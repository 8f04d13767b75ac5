"""MobileNetV1 and its skip connections.

Howard et al., 2017, https://arxiv.org/abs/1704.04861 (dcnn table 5-4, mbv1); shortcuts and
pre-activation: Huang, Dong, Bai, "The improvements of MobileNet network" (resmb), table 1.
"""

from typing import Literal

from torch import Tensor, nn

from ..layers.conv import conv_norm, initialise
from ..layers.deform import Offsets, Stem, stem_conv
from ..layers.width import Width
from ..registry import MODELS, Fraction

Skip = Literal["none", "simple", "full"]

# fmt: off
MODULES = [  # dcnn table 5-4, resmb table 1 (Conv_2 to Conv_14): output channels, stride
    #  c,  s
    (64,   1),
    (128,  2),
    (128,  1),
    (256,  2),
    (256,  1),
    (512,  2),
    (512,  1),
    (512,  1),
    (512,  1),
    (512,  1),
    (512,  1),
    (1024, 2),
    (1024, 1),  # dcnn prints stride 2, at 7 x 7 in and out: a misprint
]
# fmt: on


def has_shortcut(skip: Skip, *, same: bool) -> bool:
    """Return whether a module gets a shortcut; `same`: its input and output have one shape."""
    return skip == "full" or (skip == "simple" and same)


class SeparableModule(nn.Module):
    """Depthwise 3 x 3, then pointwise convolution, each with batch norm and ReLU.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride). With a shortcut it is added
    before the last ReLU (resmb eq. 1, 2): the input, or a 1 x 1 convolution with batch norm of it.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, skip: Skip) -> None:
        super().__init__()
        self.depthwise = conv_norm(
            in_channels, in_channels, 3, stride=stride, groups=in_channels, activation=nn.ReLU
        )
        self.pointwise = conv_norm(in_channels, out_channels)
        self.shortcut: nn.Module | None = None
        same = in_channels == out_channels and stride == 1
        if has_shortcut(skip, same=same):
            projection = conv_norm(in_channels, out_channels, stride=stride)
            self.shortcut = nn.Identity() if same else projection
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(self.depthwise(x))
        return self.relu(y if self.shortcut is None else y + self.shortcut(x))


class PreActivatedModule(nn.Module):
    """`SeparableModule` with batch norm and ReLU before its convolutions (resmb, section 2.2).

    As in ResNet-v2 (He et al., ECCV 2016) nothing follows the addition; a 1 x 1 shortcut has no
    norm of its own (the printed 4.9 M allow either) and takes the activated input.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, skip: Skip) -> None:
        super().__init__()
        self.activate = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False
        )
        self.pointwise = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
        )
        same = in_channels == out_channels and stride == 1
        self.shortcut: nn.Conv2d | None = None
        self.identity = same and has_shortcut(skip, same=same)
        if not same and has_shortcut(skip, same=same):
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activate(x)
        y = self.pointwise(self.depthwise(activated))
        if self.shortcut is not None:
            return y + self.shortcut(activated)
        return y + x if self.identity else y


class MobileNetV1(nn.Module):
    """The network of dcnn table 5-4 and resmb table 1; see `mobilenetv1`."""

    def __init__(
        self,
        num_classes: int,
        *,
        width: float,
        skip: Skip,
        pre_activation: bool,
        stem: Stem,
        offsets: Offsets,
        dropout: float,
    ) -> None:
        super().__init__()
        channels = max(1, int(32 * width))
        first = stem_conv(3, channels, stem=stem, offsets=offsets)
        # a pre-activated module begins with norm and ReLU itself
        self.stem = (
            first if pre_activation else conv_norm(3, channels, conv=first, activation=nn.ReLU)
        )
        module = PreActivatedModule if pre_activation else SeparableModule
        self.blocks = nn.Sequential()
        for out, stride in MODULES:
            out_channels = max(1, int(out * width))
            self.blocks.append(module(channels, out_channels, stride=stride, skip=skip))
            channels = out_channels
        if pre_activation:
            self.blocks.append(nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.blocks(self.stem(x))).flatten(1)
        return self.classifier(self.dropout(x))


@MODELS.register
def mobilenetv1(
    num_classes: int,
    *,
    width: Width = 1.0,
    skip: Skip = "none",
    pre_activation: bool = False,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    dropout: Fraction = 0.0,
) -> nn.Module:
    """MobileNetV1; input (N, 3, H, W), output (N, num_classes) logits. The total stride is 32.

    `width`: multiplier of all channels, truncated to whole numbers. `skip`: shortcuts around the
    depthwise separable modules, "simple" where input and output agree, "full" around the others too
    (by 1 x 1 convolutions). `pre_activation`: batch norm and ReLU before the convolutions, in every
    module: resmb's table 1 gives the activation for a network as a whole. `stem` and `offsets`: see
    `layers.deform`. `dropout` is applied before the classifier (0.001 in the authors' code).
    """
    return initialise(
        MobileNetV1(
            num_classes,
            width=width,
            skip=skip,
            pre_activation=pre_activation,
            stem=stem,
            offsets=offsets,
            dropout=dropout,
        )
    )
