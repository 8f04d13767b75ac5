"""MobileNetV3-Small re-lightened with low-cost deformable convolution: mb0, DC0, LDC0-3.

Sun, Pan, Zhang: "Re-lightweight Method of MobileNet Based on Low-cost Deformable Convolution"
(ldc), tables 1-3. The text names neither squeeze-and-excitation nor the heads' norms; where they
sit follows from the printed counts: SE acts on a block's *output*, after the projection's norm, and
layer 15 is a biased linear layer with a batch norm.
"""

from torch import Tensor, nn

from ..errors import UsageError
from ..layers.attention import SqueezeExcite
from ..layers.conv import conv_norm, initialise
from ..layers.deform import Offsets, Stem, stem_conv
from ..registry import MODELS, Fraction

# fmt: off
LAYERS = {  # ldc table 1: layer -> kernel, exp, out, SE, nonlinearity, stride
    #    k, exp, out, se, nl, s
    2:  (3,  16,  16,  1, "RE", 2),
    3:  (3,  72,  24,  0, "RE", 2),
    4:  (3,  88,  24,  0, "RE", 1),
    5:  (5,  96,  40,  1, "HS", 2),
    6:  (5, 240,  40,  1, "HS", 1),
    7:  (5, 240,  40,  1, "HS", 1),
    8:  (5, 120,  48,  1, "HS", 1),
    9:  (5, 144,  48,  1, "HS", 1),
    10: (5, 288,  96,  1, "HS", 2),
    11: (5, 576,  96,  1, "HS", 1),
    12: (5, 576,  96,  1, "HS", 1),
}
# fmt: on
ACTIVATIONS = {"RE": nn.ReLU, "HS": nn.Hardswish}


class Bneck(nn.Module):
    """Inverted-residual bottleneck.

    Expand, depthwise, project, SE on the output; a shortcut at stride 1.

    Where stride is 1 but the widths differ (layer 8) the shortcut is a 1 x 1 convolution with batch
    norm.
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
        self.depthwise = conv_norm(
            expand, expand, kernel, stride=stride, groups=expand, activation=activation
        )
        self.project = conv_norm(expand, out_channels)
        self.se = SqueezeExcite(out_channels, norm=True) if se else nn.Identity()
        self.shortcut: nn.Module | None = None
        if stride == 1:
            same = in_channels == out_channels
            self.shortcut = nn.Identity() if same else conv_norm(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.se(self.project(self.depthwise(self.expand(x))))
        return y if self.shortcut is None else y + self.shortcut(x)


class MobileNetLDC(nn.Module):
    """The network of ldc tables 1-3; see `mobilenet_ldc`."""

    def __init__(
        self,
        num_classes: int,
        *,
        stem: Stem,
        offsets: Offsets,
        drop_layers: list[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.stem = conv_norm(
            3, 16, activation=nn.Hardswish, conv=stem_conv(3, 16, stem=stem, offsets=offsets)
        )
        self.blocks = nn.Sequential()
        channels = 16
        for layer, (kernel, expand, out, se, activation, stride) in LAYERS.items():
            if layer in drop_layers:
                continue
            self.blocks.add_module(
                str(layer),
                Bneck(
                    channels,
                    out,
                    kernel=kernel,
                    expand=expand,
                    se=bool(se),
                    activation=ACTIVATIONS[activation],
                    stride=stride,
                ),
            )
            channels = out
        self.head = conv_norm(channels, 576, activation=nn.Hardswish)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Sequential(nn.Linear(576, 1280), nn.BatchNorm1d(1280), nn.Hardswish())
        self.classifier = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem(x)))
        # a function rather than a module, since the paper's counter, which sees modules only, did
        # not count a pooling layer here
        x = x.mean((2, 3))
        return self.classifier(self.hidden(self.dropout(x)))


@MODELS.register
def mobilenet_ldc(
    num_classes: int,
    *,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    drop_layers: list[int] = [],  # noqa: B006 -- plain data, never changed
    dropout: Fraction = 0.0,
) -> nn.Module:
    """MobileNetV3-Small of ldc; input (N, 3, H, W), output (N, num_classes) logits.

    `stem` and `offsets`: see `layers.deform`. `drop_layers`: layers 2 to 12 of table 1 to leave
    out; ldc leaves out 6 and 11, whose neighbours have the same widths (section 3.3). If another
    layer is left out, the next one changes the width in its place, and its stride is missing.
    `dropout` is applied to the pooled features, before layer 15: the paper gives its rate, not its
    position. (Before the classifier, whose 1280 inputs carry most of the gradient at the paper's
    learning rate, a rate of 0.25 cost a third of the accuracy in a first measurement.) The total
    stride is 32. Raises UsageError for a layer that is not in the table.
    """
    if unknown := sorted(set(drop_layers) - set(LAYERS)):
        raise UsageError(f"model.drop_layers={unknown}: layers 2 to 12 can be left out")
    return initialise(
        MobileNetLDC(
            num_classes, stem=stem, offsets=offsets, drop_layers=drop_layers, dropout=dropout
        )
    )
