"""MobileNetV3 Large and Small as listed in dcnn, section 5.4.1.

Howard et al., ICCV 2019, https://arxiv.org/abs/1905.02244. The listing is followed, not dcnn's
tables 5-7 and 5-8, which are misprinted. It differs from the paper's own code: a block has its
expanding convolution even where that changes no width, squeeze-and-excitation has no biases and
precedes the activation, and its hidden layer has a quarter of the channels, not rounded to
multiples of 8.
"""

from typing import Literal

from torch import Tensor, nn

from ..layers.attention import SqueezeExcite
from ..layers.conv import conv_norm, initialise
from ..layers.deform import Offsets, Stem, stem_conv
from ..layers.width import Width, divisible
from ..registry import MODELS, Fraction

# fmt: off
LARGE = [  # dcnn 5.4.1: kernel, exp, out, SE, nonlinearity, stride
    # k, exp, out, se, nl, s
    (3,  16,  16,  0, "RE", 1),
    (3,  64,  24,  0, "RE", 2),
    (3,  72,  24,  0, "RE", 1),
    (5,  72,  40,  1, "RE", 2),
    (5, 120,  40,  1, "RE", 1),
    (5, 120,  40,  1, "RE", 1),
    (3, 240,  80,  0, "HS", 2),
    (3, 200,  80,  0, "HS", 1),
    (3, 184,  80,  0, "HS", 1),
    (3, 184,  80,  0, "HS", 1),
    (3, 480, 112,  1, "HS", 1),
    (3, 672, 112,  1, "HS", 1),
    (5, 672, 160,  1, "HS", 2),
    (5, 960, 160,  1, "HS", 1),
    (5, 960, 160,  1, "HS", 1),
]
SMALL = [
    # k, exp, out, se, nl, s
    (3,  16,  16,  1, "RE", 2),
    (3,  72,  24,  0, "RE", 2),
    (3,  88,  24,  0, "RE", 1),
    (5,  96,  40,  1, "HS", 2),
    (5, 240,  40,  1, "HS", 1),
    (5, 240,  40,  1, "HS", 1),
    (5, 120,  48,  1, "HS", 1),
    (5, 144,  48,  1, "HS", 1),
    (5, 288,  96,  1, "HS", 2),
    (5, 576,  96,  1, "HS", 1),
    (5, 576,  96,  1, "HS", 1),
]
# fmt: on
SIZES = {"large": (LARGE, 960), "small": (SMALL, 576)}  # blocks, channels of the last convolution
ACTIVATIONS = {"RE": nn.ReLU, "HS": nn.Hardswish}


class Bneck(nn.Module):
    """Expand, depthwise with SE between its norm and its activation, project.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride); the input is added where
    the shapes agree.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        expand: int,
        se: bool,
        activation: type[nn.Module],
        stride: int,
    ) -> None:
        super().__init__()
        self.expand = conv_norm(in_channels, expand, activation=activation)
        self.depthwise = conv_norm(expand, expand, kernel, stride=stride, groups=expand)
        self.se = SqueezeExcite(expand) if se else nn.Identity()
        self.activation = activation()
        self.project = conv_norm(expand, out_channels)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.se(self.depthwise(self.expand(x))))
        y = self.project(y)
        return x + y if self.residual else y


class MobileNetV3(nn.Module):
    """The network of dcnn's listing; see `mobilenetv3`."""

    def __init__(
        self,
        num_classes: int,
        *,
        size: Literal["large", "small"],
        width: float,
        stem: Stem,
        offsets: Offsets,
        dropout: float,
    ) -> None:
        super().__init__()
        blocks, last = SIZES[size]
        channels = divisible(16 * width)
        first = stem_conv(3, channels, stem=stem, offsets=offsets)
        self.stem = conv_norm(3, channels, conv=first, activation=nn.Hardswish)
        self.blocks = nn.Sequential()
        for kernel, expand, out, se, activation, stride in blocks:
            out_channels = divisible(out * width)
            block = Bneck(
                channels,
                out_channels,
                kernel=kernel,
                expand=divisible(expand * width),
                se=bool(se),
                activation=ACTIVATIONS[activation],
                stride=stride,
            )
            self.blocks.append(block)
            channels = out_channels
        last = divisible(last * width)
        hidden = divisible(1280 * max(1.0, width))
        self.head = conv_norm(channels, last, activation=nn.Hardswish)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Sequential(nn.Conv2d(last, hidden, 1), nn.Hardswish())
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.head(self.blocks(self.stem(x))))
        return self.classifier(self.dropout(self.hidden(x).flatten(1)))


@MODELS.register
def mobilenetv3(
    num_classes: int,
    *,
    size: Literal["large", "small"] = "large",
    width: Width = 1.0,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    dropout: Fraction = 0.0,
) -> nn.Module:
    """MobileNetV3; input (N, 3, H, W), output (N, num_classes) logits. The total stride is 32.

    `width`: multiplier of all channels, rounded to multiples of 8; the hidden layer has at least
    1280. `stem` and `offsets`: see `layers.deform`. `dropout` is applied before the
    classifier; the listing gives 0.8, which in the paper is the share that is kept, so the rate
    that it means is probably 0.2.
    """
    return initialise(
        MobileNetV3(
            num_classes, size=size, width=width, stem=stem, offsets=offsets, dropout=dropout
        )
    )
