"""Networks of torchvision and timm as baselines, with random weights and their own initialisation.

VGG (Simonyan & Zisserman, 2015), GoogLeNet (Szegedy et al., CVPR 2015), ResNet (He et al., CVPR
2016) and all others that the two libraries list.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast, get_type_hints

from torch import Tensor, nn

from ..errors import UsageError, nearest
from ..layers.deform import DeformConv2d, Offsets, Stem
from ..registry import MODELS, Fraction

# Auxiliary classifiers would add parameters that an evaluation does not use.
NO_AUXILIARIES: dict[str, dict[str, bool]] = {
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

    Without auxiliary classifiers. `stem` and `offsets`: see `replace_stem`. `dropout`: None for the
    network's own rate. Raises UsageError for an unknown `arch`, or for a dropout rate where the
    network has no dropout.
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
    return classifier(replace_stem(model, arch, stem=stem, offsets=offsets))


def dropout_option(builder: Callable[..., Any], arch: str, dropout: float) -> dict[str, float]:
    """Return the argument of torchvision's `builder` that sets the dropout rate.

    Empty for a network without dropout, for which a rate of 0 is right. Raises UsageError for
    another rate.
    """
    # the builders take `**kwargs`; the class that they return lists the parameters
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
    own rate. Raises UsageError for an unknown `arch`, or if timm is not installed.
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
    return classifier(replace_stem(model, arch, stem=stem, offsets=offsets))


def classifier(model: nn.Module) -> nn.Module:
    """Make a network return its main logits where it returns several results; returns the model.

    A hook rather than a module around the network, so that the names of its weights stay.
    """
    model.register_forward_hook(_to_logits)
    return model


def _to_logits(module: nn.Module, args: Any, output: Any) -> Any:
    return main_logits(output)


def main_logits(output: Any) -> Any:
    """Return the logits among a network's results, or the output itself if there is no tensor.

    `logits` (an attribute or a key, as in the outputs of GoogLeNet and of many libraries) or else
    the first result: auxiliary and distillation heads follow the main one.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        parts = [output["logits"]] if "logits" in output else list(output.values())
    elif hasattr(output, "logits"):
        parts = [output.logits]
    else:
        parts = list(output) if isinstance(output, list | tuple) else []
    found = (main_logits(part) for part in parts)
    return next((logits for logits in found if isinstance(logits, Tensor)), output)


def replace_stem(model: nn.Module, arch: str, *, stem: Stem, offsets: Offsets) -> nn.Module:
    """Replace the network's first convolution by a deformable one; returns the model.

    Weights, stride and padding are kept; a bias is dropped (VGG's, which no norm follows). Raises
    UsageError if the network does not begin with a plain, square convolution of three channels.
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
        padding=cast(int, first.padding[0]),  # a string was refused by `is_plain`
        branch=stem,
        offsets=offsets,
    )
    deformable.conv.weight = first.weight
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, deformable)
    return model


def is_plain(conv: nn.Conv2d) -> bool:
    """Return whether `DeformConv2d` can replace this stem: one size in both directions."""
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
