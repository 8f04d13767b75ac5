"""MobileNet and MobileNetV2 in the CIFAR forms that hsnet, table 4 counted (2.34 G and 2.42 G).

MobileNet (Howard et al. 2017, table 1), https://arxiv.org/abs/1704.04861; MobileNetV2 (Sandler et
al., CVPR 2018, table 2), https://arxiv.org/abs/1801.04381. The first layers of both have stride 1;
convolutions with a bias before their norm change the counts: see `layers.conv`.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.conv import biased_conv_norm, conv_norm, initialise
from ..layers.deform import Offsets, Stem, stem_conv
from ..registry import MODELS, Fraction

# fmt: off
SEPARABLE = [  # MobileNet, table 1: out, stride of each depthwise-pointwise pair
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
]
STAGES = [  # MobileNetV2, table 2, but for the stride of the 160 stage: 1, not 2
    # t,   c, n, s
    (1,   16, 1, 1),
    (6,   24, 2, 2),
    (6,   32, 3, 2),
    (6,   64, 4, 2),
    (6,   96, 3, 1),
    (6,  160, 3, 1),
    (6,  320, 1, 1),
]
# fmt: on


class CifarMobileNet(nn.Module):
    """The network that `cifar_mobilenet` builds."""

    def __init__(self, num_classes: int, *, stem: nn.Module, dropout: float) -> None:
        super().__init__()
        self.stem = conv_norm(3, 32, activation=nn.ReLU, conv=stem)
        self.blocks = nn.Sequential()
        channels = 32
        for out, stride in SEPARABLE:
            depthwise = conv_norm(
                channels, channels, 3, stride=stride, groups=channels, activation=nn.ReLU
            )
            pointwise = biased_conv_norm(channels, out, activation=nn.ReLU)
            self.blocks.append(nn.Sequential(depthwise, pointwise))
            channels = out
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x)).mean((2, 3))
        return self.classifier(self.dropout(x))


@MODELS.register
def cifar_mobilenet(
    num_classes: int,
    *,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    dropout: Fraction = 0.0,
) -> nn.Module:
    """MobileNet for small images; input (N, 3, H, W), output (N, num_classes) logits.

    The first convolution has stride 1, the pointwise convolutions have biases. `dropout` is applied
    before the classifier. The total stride is 16.
    """
    first = stem_conv(3, 32, stride=1, stem=stem, offsets=offsets)
    return initialise(CifarMobileNet(num_classes, stem=first, dropout=dropout))


class InvertedResidual(nn.Module):
    """Expand, depthwise, project: (N, in_channels, H, W) -> (N, out_channels, H / s, W / s).

    All convolutions have biases and norms; the first exists even for an `expansion` of 1. The input
    is added where the shapes agree.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.layers = nn.Sequential(
            biased_conv_norm(in_channels, hidden, activation=nn.ReLU6),
            biased_conv_norm(hidden, hidden, 3, stride=stride, groups=hidden, activation=nn.ReLU6),
            biased_conv_norm(hidden, out_channels),
        )
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


class CifarMobileNetV2(nn.Module):
    """The network that `cifar_mobilenetv2` builds."""

    def __init__(self, num_classes: int, *, stem: nn.Module, dropout: float) -> None:
        super().__init__()
        self.stem = conv_norm(3, 32, activation=nn.ReLU6, conv=stem)
        self.blocks = nn.Sequential()
        channels = 32
        for expansion, out, repeats, stride in STAGES:
            for index in range(repeats):
                block = InvertedResidual(
                    channels, out, stride=1 if index else stride, expansion=expansion
                )
                self.blocks.append(block)
                channels = out
        self.head = biased_conv_norm(channels, 1280, activation=nn.ReLU6)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(1280, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        # the first convolution is 1 x 1 with a padding of 1: 226 x 226 maps from 224 x 224 images
        x = self.stem(F.pad(x, (1, 1, 1, 1)))
        x = self.head(self.blocks(x)).mean((2, 3), keepdim=True)
        return self.classifier(self.dropout(x)).flatten(1)


@MODELS.register
def cifar_mobilenetv2(
    num_classes: int,
    *,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    dropout: Fraction = 0.0,
) -> nn.Module:
    """MobileNetV2 for small images; input (N, 3, H, W), output (N, num_classes) logits.

    The first convolution is 1 x 1 with a padding of 1 (a deformable one likewise: it samples one
    point), the stage of 160 channels has stride 1, all convolutions have biases, and the classifier
    is a convolution. `dropout` is applied before it. The total stride is 8.
    """
    first = stem_conv(3, 32, 1, stride=1, stem=stem, offsets=offsets, bias=True)
    model = CifarMobileNetV2(num_classes, stem=first, dropout=dropout)
    initialise(model)
    # initialised as the linear layer that it replaces: with Kaiming's fan-out the first logits
    # would be several units large
    nn.init.normal_(model.classifier.weight, 0.0, 0.01)
    return model
