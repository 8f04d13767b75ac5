"""What a network costs: parameters, MACs under each named rule, activations and memory.

The counts reproduce what published tables print, each under the rule it was counted with
(`measure.rules`). Two other counters stand beside them for comparison: the installed thop, and
torch's own FlopCounterMode.
"""

import logging
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.deform import DeformConv2d
from .memory import peak_bytes, saved_bytes
from .rules import RULES, priced
from .walk import Call, Walk, data_free, walked, without_data

log = logging.getLogger(__name__)

__all__ = ["RULES", "Complexity", "Layer", "count", "flop_counter_macs", "thop_macs"]


@dataclass(frozen=True)
class Layer:
    """A module's share: its own parameters, the shapes of its call, MACs per rule.

    Functions that a module's forward calls are its own. `name` is "" for the network itself.
    """

    name: str
    type: str
    params: int
    in_shape: list[int]
    out_shape: list[int]
    macs: dict[str, int]


@dataclass(frozen=True)
class Complexity:
    """Counts for one image (batch 1, float32, evaluation mode); plain numbers throughout."""

    params: int  # parameter elements, shared ones once
    buffers: int  # buffer elements (running statistics)
    macs: dict[str, int]  # rule -> count
    deform_sampling: int  # operations of deformable layers' sampling: in no rule
    activations: int  # output elements of convolutions, linear layers and matrix products
    peak_bytes: int  # computed peak of a forward pass, weights included: `memory.peak_bytes`
    saved_bytes: int  # what autograd keeps for a backward pass: `memory.saved_bytes`
    unknown: dict[str, int]  # operators that no rule knows, not counted -> times
    layers: list[Layer]  # in the order of their first call


def count(model: nn.Module, *, image_size: int = 224, in_channels: int = 3) -> Complexity:
    """The cost of a forward pass of one (in_channels, image_size, image_size) image.

    The network itself is neither run nor changed; its train or eval mode makes no difference.
    Deformable layers count as the convolution they stand for, plus their branches; their sampling,
    N * OH * OW * K * K * C * (4 corners + 1 with a mask) operations, is `deform_sampling`.
    Raises UsageError where the network cannot take the image.
    """
    walk = walked(model, (in_channels, image_size, image_size))
    return Complexity(
        params=sum(parameter.numel() for parameter in model.parameters()),
        buffers=sum(buffer.numel() for buffer in model.buffers()),
        macs={name: _total(walk, name) for name in RULES},
        deform_sampling=walk.sampling,
        activations=sum(step.amounts.outputs for step in walk.steps if step.amounts.macs),
        peak_bytes=peak_bytes(walk),
        saved_bytes=saved_bytes(walk),
        unknown=dict(sorted(walk.unknown.items())),
        layers=_layers(model, walk),
    )


def _total(walk: Walk, rule: str) -> int:
    return sum(priced(RULES[rule], step.kind, step.amounts) for step in walk.steps)


def _layers(model: nn.Module, walk: Walk) -> list[Layer]:
    params: dict[str, int] = defaultdict(int)
    for name, parameter in model.named_parameters():
        params[_owner(name, walk.calls)] += parameter.numel()
    steps = defaultdict(list)
    for step in walk.steps:
        steps[step.module].append(step)
    layers = []
    for name in sorted(params.keys() | steps.keys(), key=_order(walk.calls)):
        call = walk.calls.get(name, Call("not called", [], []))
        macs = {
            rule: sum(priced(table, step.kind, step.amounts) for step in steps[name])
            for rule, table in RULES.items()
        }
        layers.append(Layer(name, call.type, params[name], call.in_shape, call.out_shape, macs))
    return layers


def _order(calls: dict[str, Call]) -> Callable[[str], int]:
    order = {name: index for index, name in enumerate(calls)}
    return lambda name: order.get(name, len(order))


def _owner(parameter: str, calls: dict[str, Call]) -> str:
    """The called module that a parameter belongs to.

    The nearest one where its own module was only read (a deformable layer's convolution).
    """
    module = parameter.rpartition(".")[0]
    owner = module
    while owner and owner not in calls:
        owner = owner.rpartition(".")[0]
    return owner or ("" if "." not in parameter else module)


def thop_macs(
    model: nn.Module, image_size: int = 224, in_channels: int = 3
) -> tuple[int, int] | None:
    """MACs and parameters as the installed thop counts them, or None with the reason in the log.

    thop does not see functions, nor a deformable layer's main convolution with its parameters.
    ultralytics-thop (another licence) has the same import name: where it is installed, nothing is
    counted, since the two overwrite each other.
    """
    try:
        _check_thop()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports distutils.version
            from thop import profile
        image = (in_channels, image_size, image_size)
        return without_data(lambda device: _thop(profile, model, image, device), image)
    except Exception as error:
        log.warning("no count by thop: %s: %s", type(error).__name__, error)
        return None


def _check_thop() -> None:
    try:
        metadata.distribution("ultralytics-thop")
    except metadata.PackageNotFoundError:
        metadata.distribution("thop")
    else:
        raise ImportError("ultralytics-thop is installed in the place of thop")


def _thop(
    profile: Callable[..., Any], model: nn.Module, image: tuple[int, int, int], device: str
) -> tuple[int, int]:
    x = torch.zeros(1, *image, device=device)
    macs, params = profile(data_free(model, device), inputs=(x,), verbose=False)
    return int(macs), int(params)


def flop_counter_macs(model: nn.Module, image_size: int = 224, in_channels: int = 3) -> int:
    """MACs as torch.utils.flop_counter counts them: its FLOPs / 2.

    torch has no formula for deformable convolutions: torchvision's operator gets that of the
    convolution here, and takes the place of our layer's own arithmetic. Raises UsageError where the
    network cannot take the image.
    """
    image = (in_channels, image_size, image_size)
    return without_data(lambda device: _flop_counter(model, image, device), image)


def _flop_counter(model: nn.Module, image: tuple[int, int, int], device: str) -> int:
    from torch.utils.flop_counter import FlopCounterMode
    from torchvision.ops import deform_conv2d

    model = data_free(model, device)
    for layer in model.modules():
        if isinstance(layer, DeformConv2d):
            layer.forward = partial(_torchvision_forward, layer, deform_conv2d)
    formula = {torch.ops.torchvision.deform_conv2d: _deformable_flops}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=formula) as mode:
        model(torch.zeros(1, *image, device=device))
    return mode.get_total_flops() // 2


def _torchvision_forward(layer: DeformConv2d, operator: Callable[..., Tensor], x: Tensor) -> Tensor:
    offset, mask = layer.offsets_and_masks(x)
    geometry = (layer.stride, layer.padding, layer.dilation)
    return operator(x, offset, layer.conv.weight, None, *geometry, mask)


def _deformable_flops(x: Any, weight: Any, *arguments: Any, out_shape: Any) -> int:
    return 2 * prod(out_shape) * prod(weight[1:])
