"""VGG16 for small images and Ghost-VGG16 (hsnet, tables 3 and 4).

VGG16 (Simonyan, Zisserman, ICLR 2015, table 1, D), https://arxiv.org/abs/1409.1556. hsnet's table 4
prints the parameters of a CIFAR form, 512-4096-4096-100 after the convolutions (34.0 M), beside the
FLOPs of the ImageNet network (15.48 G): two networks. Its Ghost-VGG16 (table 3, 12.38 G) is
described nowhere; ours is a fit.
"""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from ..errors import UsageError
from ..layers.conv import initialise
from ..layers.deform import Offsets, Stem, stem_conv
from ..layers.ghost import GhostModule
from ..registry import MODELS, Fraction

STAGES = [(64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)]


def _features(first: nn.Module, *, norm: bool, ghost_stages: list[int]) -> nn.Sequential:
    """Five stages of 3 x 3 convolutions, each ended by 2 x 2 max pooling."""
    features = nn.Sequential()
    channels = 3
    for stage, widths in enumerate(STAGES, 1):
        for width in widths:
            if stage in ghost_stages:
                features.append(GhostModule(channels, width, 3))
            else:
                features.append(nn.Conv2d(channels, width, 3, padding=1) if channels > 3 else first)
                if norm:
                    features.append(nn.BatchNorm2d(width))
                features.append(nn.ReLU())
            channels = width
        features.append(nn.MaxPool2d(2))
    return features


class CifarVGG(nn.Module):
    """The network that `cifar_vgg16` builds."""

    def __init__(
        self, num_classes: int, *, features: nn.Module, hidden: list[int], dropout: float
    ) -> None:
        super().__init__()
        self.features = features
        self.hidden = nn.Sequential()
        channels = 512
        for width in hidden:
            self.hidden.extend([nn.Linear(channels, width), nn.ReLU(), nn.Dropout(dropout)])
            channels = width
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        # one value per channel already at 32 pixels; larger images are averaged down to it
        x = self.features(x).mean((2, 3))
        return self.classifier(self.hidden(x))


@MODELS.register
def cifar_vgg16(
    num_classes: int,
    *,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    norm: bool = True,
    ghost_stages: list[int] = [],  # noqa: B006 -- plain data, never changed
    hidden: list[Annotated[int, Field(ge=1)]] = [4096, 4096],  # noqa: B006
    dropout: Fraction = 0.5,
) -> nn.Module:
    """VGG16 for small images; input (N, 3, H, W), output (N, num_classes) logits.

    `norm`: a batch norm behind each convolution (not those of Ghost modules, which always have
    theirs); a deformable first convolution has no bias, with or without it. `ghost_stages`: the
    stages, 2 to 5, whose convolutions become Ghost modules of 3 x 3 convolutions with ratio 2.
    `hidden`: the linear layers' widths, each followed by `dropout` (without hidden layers there is
    none). H and W of 32 or more; the total stride is 32. Raises UsageError for a stage that is
    not there.
    """
    if unknown := sorted(set(ghost_stages) - {2, 3, 4, 5}):
        raise UsageError(f"model.ghost_stages={unknown}: stages 2 to 5 can have Ghost modules")
    first = stem_conv(3, 64, stride=1, stem=stem, offsets=offsets, bias=True)
    features = _features(first, norm=norm, ghost_stages=ghost_stages)
    return initialise(CifarVGG(num_classes, features=features, hidden=hidden, dropout=dropout))
