"""SqueezeNet in the CIFAR form that hsnet, table 4 counted (0.78 M, 2.69 G).

SqueezeNet (Iandola et al. 2016, fig. 2, with simple bypass), https://arxiv.org/abs/1602.07360. The
first convolution is 3 x 3 at stride 1, every convolution has a bias and (the paper's have none) a
batch norm.
"""

import torch
from torch import Tensor, nn

from ..layers.conv import biased_conv_norm, conv_norm, initialise
from ..layers.deform import Offsets, Stem, stem_conv
from ..registry import MODELS, Fraction

# fmt: off
FIRES = [  # the paper's table 1, fire2 to fire9; pool: 2 x 2 max pooling before it
    # out, squeeze, pool
    (128, 16, 1),
    (128, 16, 0),
    (256, 32, 0),
    (256, 32, 1),
    (384, 48, 0),
    (384, 48, 0),
    (512, 64, 0),
    (512, 64, 1),
]
BYPASSED = (1, 3, 5)  # indices in FIRES with a shortcut; fire9, which could have one, has none
# fmt: on


class Fire(nn.Module):
    """Squeeze to few channels, expand half by 1 x 1 and half by 3 x 3, at the input's size."""

    def __init__(self, in_channels: int, out_channels: int, *, squeeze: int, bypass: bool) -> None:
        super().__init__()
        self.squeeze = biased_conv_norm(in_channels, squeeze, activation=nn.ReLU)
        self.expand1 = biased_conv_norm(squeeze, out_channels // 2, activation=nn.ReLU)
        self.expand3 = biased_conv_norm(squeeze, out_channels // 2, 3, activation=nn.ReLU)
        self.bypass = bypass

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.squeeze(x)
        y = torch.cat([self.expand1(squeezed), self.expand3(squeezed)], 1)
        return x + y if self.bypass else y


class CifarSqueezeNet(nn.Module):
    """The network that `cifar_squeezenet` builds."""

    def __init__(self, num_classes: int, *, stem: nn.Module, dropout: float) -> None:
        super().__init__()
        self.stem = conv_norm(3, 96, activation=nn.ReLU, conv=stem)
        self.fires = nn.Sequential()
        channels = 96
        for index, (out, squeeze, pool) in enumerate(FIRES):
            if pool:
                self.fires.append(nn.MaxPool2d(2))
            self.fires.append(Fire(channels, out, squeeze=squeeze, bypass=index in BYPASSED))
            channels = out
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.classifier(self.dropout(self.fires(self.stem(x))))
        return x.mean((2, 3))


@MODELS.register
def cifar_squeezenet(
    num_classes: int,
    *,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    dropout: Fraction = 0.0,
) -> nn.Module:
    """SqueezeNet for small images; input (N, 3, H, W), output (N, num_classes) logits.

    `dropout` is applied before the classifying convolution, as in the paper. The total stride is 8.
    """
    first = stem_conv(3, 96, stride=1, stem=stem, offsets=offsets, bias=True)
    model = CifarSqueezeNet(num_classes, stem=first, dropout=dropout)
    initialise(model)
    # initialised as the linear layer that it replaces: with Kaiming's fan-out the first logits
    # would be several units large
    nn.init.normal_(model.classifier.weight, 0.0, 0.01)
    return model
