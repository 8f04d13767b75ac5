"""MobileNetV2: inverted residuals and linear bottlenecks (dcnn table 5-5).

Sandler et al., CVPR 2018, https://arxiv.org/abs/1801.04381.
"""

from torch import Tensor, nn

from ..layers.conv import conv_norm, initialise
from ..layers.deform import Offsets, Stem, stem_conv
from ..layers.width import Width, divisible
from ..registry import MODELS, Fraction

# fmt: off
STAGES = [  # dcnn table 5-5, the paper's table 2: expansion, channels, repeats, first stride
    # t,   c, n, s
    (1,   16, 1, 1),
    (6,   24, 2, 2),
    (6,   32, 3, 2),
    (6,   64, 4, 2),
    (6,   96, 3, 1),
    (6,  160, 3, 2),
    (6,  320, 1, 1),
]
# fmt: on


class InvertedResidual(nn.Module):
    """Expand by `expand`, 3 x 3 depthwise, project without activation (the linear bottleneck).

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride); the input is added where
    the shapes agree. At `expand` 1 there is no expanding convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expand: int) -> None:
        super().__init__()
        hidden = in_channels * expand
        self.expand = (
            nn.Identity() if expand == 1 else conv_norm(in_channels, hidden, activation=nn.ReLU6)
        )
        self.depthwise = conv_norm(
            hidden, hidden, 3, stride=stride, groups=hidden, activation=nn.ReLU6
        )
        self.project = conv_norm(hidden, out_channels)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """The network of dcnn table 5-5; see `mobilenetv2`."""

    def __init__(
        self, num_classes: int, *, width: float, stem: Stem, offsets: Offsets, dropout: float
    ) -> None:
        super().__init__()
        channels = divisible(32 * width)
        first = stem_conv(3, channels, stem=stem, offsets=offsets)
        self.stem = conv_norm(3, channels, conv=first, activation=nn.ReLU6)
        self.blocks = nn.Sequential()
        for expand, out, repeats, first_stride in STAGES:
            out_channels = divisible(out * width)
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                self.blocks.append(
                    InvertedResidual(channels, out_channels, stride=stride, expand=expand)
                )
                channels = out_channels
        last = divisible(1280 * max(1.0, width))
        self.head = conv_norm(channels, last, activation=nn.ReLU6)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.head(self.blocks(self.stem(x)))).flatten(1)
        return self.classifier(self.dropout(x))


@MODELS.register
def mobilenetv2(
    num_classes: int,
    *,
    width: Width = 1.0,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    dropout: Fraction = 0.0,
) -> nn.Module:
    """MobileNetV2; input (N, 3, H, W), output (N, num_classes) logits. The total stride is 32.

    `width`: multiplier of all channels, rounded to multiples of 8; the last convolution has at
    least 1280. `stem` and `offsets`: see `layers.deform`. `dropout` is applied before the
    classifier (0.2 in the paper's code).
    """
    return initialise(
        MobileNetV2(num_classes, width=width, stem=stem, offsets=offsets, dropout=dropout)
    )
