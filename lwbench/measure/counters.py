"""Other counters, run for comparison: the installed thop, and torch's FlopCounterMode."""

import logging
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib import metadata
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.deform import DeformConv2d
from .data_free import data_free, without_data
from .tools import Tool
from .walk import Walk

log = logging.getLogger(__name__)
COUNTERS = ("thop", "flop_counter")


def compared(model: nn.Module, image_size: int = 224) -> dict[str, int | None]:
    """Return the MACs that each of COUNTERS counts, or None with the reason in the log."""
    counters: dict[str, Callable[[], int]] = {
        "thop": lambda: thop_macs(model, image_size)[0],
        "flop_counter": lambda: flop_counter_macs(model, image_size),
    }
    found: dict[str, int | None] = {}
    for name in COUNTERS:
        try:
            found[name] = counters[name]()
        except Exception as error:  # whatever fails in foreign code costs its own figure alone
            reason = (str(error).splitlines() or [""])[0][:200]
            log.warning("no count by %s: %s: %s", name, type(error).__name__, reason)
            found[name] = None
    return found


def thop_macs(model: nn.Module, image_size: int = 224, in_channels: int = 3) -> tuple[int, int]:
    """Return MACs and parameters as the installed thop counts them.

    thop does not see functions, nor a deformable layer's main convolution with its parameters.
    Raises ImportError where it is not installed, or where ultralytics-thop is: that package
    (another licence) has the same import name, and the two overwrite each other.
    """
    profile = _thop().profile
    image = (in_channels, image_size, image_size)

    def run(device: str) -> tuple[int, int]:
        x = torch.zeros(1, *image, device=device)
        macs, params = profile(data_free(model, device), inputs=(x,), verbose=False)
        return int(macs), int(params)

    return without_data(run, model, image)


def thop_not_covered(walk: Walk) -> dict[str, int]:
    """Return the classes that compute something which the installed thop counts as nothing."""
    _thop()
    # `thop.profile` is the function; the module of that name is hidden behind it
    known = sys.modules["thop.profile"].register_hooks
    tool = Tool(dict.fromkeys(known, lambda module, call: 0), knows_deformable=False)
    return tool.not_covered(walk)


def _thop() -> Any:
    try:
        metadata.distribution("ultralytics-thop")
    except metadata.PackageNotFoundError:
        metadata.distribution("thop")
    else:
        raise ImportError("ultralytics-thop is installed in the place of thop")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports distutils.version
        import thop
    return thop


def flop_counter_macs(model: nn.Module, image_size: int = 224, in_channels: int = 3) -> int:
    """Return MACs as torch.utils.flop_counter counts them: its FLOPs / 2.

    torch has no formula for deformable convolutions: torchvision's operator is counted as the
    convolution here, and replaces our layer's own arithmetic. Raises UsageError if the network
    cannot take the image.
    """
    image = (in_channels, image_size, image_size)
    return without_data(lambda device: _flop_counter(model, image, device), model, image)


def _flop_counter(model: nn.Module, image: tuple[int, int, int], device: str) -> int:
    from torch.utils.flop_counter import FlopCounterMode
    from torchvision.ops import deform_conv2d

    # without gradients, for which the counter would register hooks that fail on some networks
    model = data_free(model, device).requires_grad_(False)
    for layer in model.modules():
        if isinstance(layer, DeformConv2d):
            # set on the instance of the copy: the class stays as it is
            vars(layer)["forward"] = partial(_torchvision_forward, layer, deform_conv2d)
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
