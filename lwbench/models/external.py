"""Networks of torchvision and timm, for plain baselines; built from random weights, never loaded.

VGG (Simonyan & Zisserman, 2015), GoogLeNet (Szegedy et al., CVPR 2015), ResNet (He et al., CVPR
2016) and whatever else the two libraries name. They keep their library's initialisation.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from torch import nn

from ..errors import UsageError, nearest
from ..layers.deform import DeformConv2d, Offsets, Stem
from ..registry import MODELS, Fraction

# auxiliary classifiers make the output of a training network a tuple
NO_AUXILIARIES = {
    name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")
}


@MODELS.register
def torchvision(
    num_classes: int,
    *,
    arch: str,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    dropout: Fraction | None = None,
) -> nn.Module:
    """torchvision's classification network `arch`; (N, 3, H, W) -> (N, num_classes) logits.

    No auxiliary classifiers. `stem` and `offsets`: see `replace_stem`. `dropout`: None for the
    network's own. Raises UsageError for an unknown `arch`, or for a dropout rate where the network
    has no dropout.
    """
    models = importlib.import_module("torchvision.models")
    names = models.list_models(module=models)
    if arch not in names:
        raise UsageError(
            f"model.arch={arch!r}: torchvision has no such network{nearest(arch, names)}"
        )
    options: dict[str, Any] = dict(NO_AUXILIARIES.get(arch, {}))
    if dropout is not None:
        options |= dropout_option(models.get_model_builder(arch), arch, dropout)
    model = models.get_model(arch, weights=None, num_classes=num_classes, **options)
    return replace_stem(model, arch, stem=stem, offsets=offsets)


def dropout_option(builder: Callable[..., Any], arch: str, dropout: float) -> dict[str, float]:
    """The argument of torchvision's `builder` that sets the rate; empty where a rate of 0 is all
    that a network without dropout can do."""
    # the builders take `**kwargs`; the class they return says what it understands
    network = get_type_hints(builder)["return"]
    if "dropout" in inspect.signature(network).parameters:
        return {"dropout": dropout}
    if dropout > 0:
        raise UsageError(f"model.dropout={dropout}: torchvision's {arch} has no dropout; give null")
    return {}


@MODELS.register
def timm(
    num_classes: int,
    *,
    arch: str,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    dropout: Fraction | None = None,
) -> nn.Module:
    """timm's network `arch` (without a weights tag); (N, 3, H, W) -> (N, num_classes) logits.

    `stem` and `offsets`: see `replace_stem`. `dropout`: timm's drop_rate, None for the network's
    own. Raises UsageError for an unknown `arch`, or where timm is not installed.
    """
    try:
        library = importlib.import_module("timm")
    except ModuleNotFoundError:
        raise UsageError("model=timm needs timm: pip install lwbench[zoo]") from None
    names = library.list_models()
    if arch not in names:
        raise UsageError(f"model.arch={arch!r}: timm has no such network{nearest(arch, names)}")
    options = {} if dropout is None else {"drop_rate": dropout}
    try:
        model = library.create_model(arch, pretrained=False, num_classes=num_classes, **options)
    except TypeError as error:
        if "drop_rate" not in str(error):
            raise
        raise UsageError(f"model.dropout={dropout}: timm's {arch} takes none; give null") from None
    return replace_stem(model, arch, stem=stem, offsets=offsets)


def replace_stem(model: nn.Module, arch: str, *, stem: Stem, offsets: Offsets) -> nn.Module:
    """Put a deformable convolution in the place of the network's first one; returns the model.

    Weights, stride and padding stay; a bias is lost (VGG's, which no norm follows). Raises
    UsageError where the network does not begin with a plain, square convolution of three channels.
    """
    if stem == "conv":
        return model
    name, first = next(
        ((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)), ("", None)
    )
    if first is None or not is_plain(first):
        raise UsageError(f"model.stem={stem}: {arch} does not begin with a plain convolution")
    deformable = DeformConv2d(
        first.in_channels,
        first.out_channels,
        first.kernel_size[0],
        stride=first.stride[0],
        padding=first.padding[0],
        branch=stem,
        offsets=offsets,
    )
    deformable.conv.weight = first.weight
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, deformable)
    return model


def is_plain(conv: nn.Conv2d) -> bool:
    """Whether `DeformConv2d` can stand in for this stem: same padding and stride both ways."""
    square = all(len(set(pair)) == 1 for pair in (conv.kernel_size, conv.stride, conv.dilation))
    padded = not isinstance(conv.padding, str) and len(set(conv.padding)) == 1
    return (
        type(conv) is nn.Conv2d
        and square
        and padded
        and conv.dilation[0] == 1
        and conv.in_channels == 3
        and conv.groups == 1
    )
