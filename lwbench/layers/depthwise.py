"""Convolutions that train faster on a CPU: depthwise ones, and 1 x 1 on maps of a few pixels.

`accelerate` replaces the computation of a network's convolutions (`nn.Conv2d._conv_forward`) where
a faster one is known. Types, parameters, state dict, hooks and counts stay as they are, so it works
for networks of any library. Which computation runs depends on the layer's geometry, the map's size
and the tensors' type and layout. Nothing is timed, so that a run takes the same one at each start:

- depthwise, kernels above 3 x 3, or any kernel on maps of at most 2 x 2 pixels: PyTorch's forward
  pass; the gradient of the weight by the kernel of `depthwise_cpu`, that of the input at stride 1
  as a convolution with the flipped kernel;
- depthwise, maps of one pixel: a product with the one tap that meets it;
- 1 x 1, maps of at most 2 x 2 pixels: a matrix product.

Everything else is PyTorch's: other devices, half precision, autocast, layouts other than
channels_last, compilers, exporters, function transforms and tools that count operators.
"""

from abc import ABC, abstractmethod
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import depthwise_cpu, native
from .depthwise_cpu import Pair
from .native import is_channels_last, may_replace

# Pixels of the input up to which the gradients of a 3 x 3 convolution are faster here.
SMALL_MAP = 4
# Height and width up to which a 1 x 1 convolution is faster as a matrix product.
TINY_SIDE = 2


def accelerate(model: nn.Module) -> nn.Module:
    """Replace the computation of the network's convolutions; returns the model.

    Does nothing where the compiler (llvmlite) is missing or fails. Results differ from PyTorch's in
    the last digits: see `accelerated.path`.
    """
    if not native.available():
        return model
    convolutions = [module for module in model.modules() if _is_plain(module)]
    # compiled now, so that a failure is known before the first step; 3 x 3 ones may not be needed
    kernels = [conv.kernel_size for conv in convolutions if _is_depthwise(conv)]
    widths = {width for height, width in kernels if height * width > 9}
    if any(depthwise_cpu.compiled(width, torch.float32) is None for width in widths):
        return model
    for conv in convolutions:
        if _is_depthwise(conv):
            vars(conv)["_conv_forward"] = Depthwise(conv)
        elif conv.groups == 1 and conv.kernel_size == (1, 1):
            vars(conv)["_conv_forward"] = Pointwise(conv)
    return model


def is_accelerated(module: nn.Module) -> bool:
    """Whether `accelerate` has replaced the module's computation."""
    return isinstance(vars(module).get("_conv_forward"), Replacement)


def _is_plain(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether the module computes what `nn.Conv2d` does; subclasses may pad in their own way."""
    return (
        isinstance(module, nn.Conv2d)
        and type(module).forward is nn.Conv2d.forward
        and type(module)._conv_forward is nn.Conv2d._conv_forward
        and "_conv_forward" not in vars(module)
    )


def _is_depthwise(conv: nn.Conv2d) -> bool:
    return conv.groups == conv.in_channels == conv.out_channels > 1 and conv.kernel_size != (1, 1)


def _padding(conv: nn.Conv2d) -> Pair | None:
    """The zeros on each side, (vertical, horizontal); None where the two sides differ."""
    if not isinstance(conv.padding, str):
        return conv.padding
    if conv.padding == "valid":
        return (0, 0)
    reach = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    return None if any(r % 2 for r in reach) else tuple(r // 2 for r in reach)


class Replacement(ABC):
    """Takes the place of a convolution's `_conv_forward`, as an attribute of the instance.

    Tools count by the type of the module, so a subclass would be invisible to some of them. An
    object, unlike a closure or a bound method, is copied and pickled together with its module.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv = conv  # read at each call, since the geometry may be changed later

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        out = self.compute(x, weight, bias) if may_replace(x, weight) else None
        return nn.Conv2d._conv_forward(self.conv, x, weight, bias) if out is None else out

    @abstractmethod
    def compute(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        """The output, or None where PyTorch is to compute it."""


class Pointwise(Replacement):
    """1 x 1 convolution, on tiny maps a product of (pixels, channels) with the weight.

    Forward and backward on one thread, channels_last: 2.3 to 2.7 times as fast on maps of one
    pixel, 1.1 to 1.7 times on 2 x 2, slower from 4 x 4 on.
    """

    def compute(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        n, channels, height, width = x.shape
        is_tiny = max(height, width) <= TINY_SIDE and is_channels_last(x)
        is_bare = self.conv.stride == (1, 1) and _padding(self.conv) == (0, 0)
        if not (is_tiny and is_bare and channels == weight.shape[1]):
            return None
        pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
        out = F.linear(pixels, weight.flatten(1), bias)
        return out.view(n, height, width, -1).permute(0, 3, 1, 2)


class Depthwise(Replacement):
    """Depthwise convolution with a fast backward pass."""

    def compute(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        conv = self.conv
        if not _is_faster_here(conv.kernel_size, x):
            return None
        padding = _padding(conv)
        if padding is None or conv.padding_mode != "zeros" or x.shape[1] != len(weight):
            return None
        geometry = Geometry(weight, conv.stride, padding, conv.dilation)
        size = geometry.out_size(x)
        if not is_channels_last(x) or min(size) < 1:
            return None
        if (*x.shape[-2:], *size) == (1, 1, 1, 1):
            return _one_pixel(x, weight, bias, geometry)
        needs_gradient = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        if not needs_gradient or depthwise_cpu.compiled(weight.shape[-1], x.dtype) is None:
            return None
        return DepthwiseFunction.apply(x, weight, bias, geometry)


def _is_faster_here(kernel: Pair, x: Tensor) -> bool:
    """Whether the gradients are faster here than in PyTorch; see docs/performance.md."""
    return kernel[0] * kernel[1] > 9 or x.shape[-2] * x.shape[-1] <= SMALL_MAP


class Geometry:
    """Kernel, stride, padding and dilation, each (vertical, horizontal)."""

    def __init__(self, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> None:
        kernel = weight.shape[-2:]
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]

    def out_size(self, x: Tensor) -> Pair:
        sides = zip(x.shape[-2:], self.padding, self.reach, self.stride, strict=True)
        return tuple((size + 2 * p - reach - 1) // s + 1 for size, p, reach, s in sides)

    def flipped_padding(self) -> Pair | None:
        """The padding with which the flipped kernel yields the input's gradient, if it can."""
        padding = tuple(r - p for r, p in zip(self.reach, self.padding, strict=True))
        return padding if self.stride == (1, 1) and min(padding) >= 0 else None


def _one_pixel(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor | None:
    """The convolution of maps of one pixel to one pixel, which a single tap meets."""
    i, j = (p // d for p, d in zip(geometry.padding, geometry.dilation, strict=True))
    if (i * geometry.dilation[0], j * geometry.dilation[1]) != geometry.padding:
        return None  # the pixel lies between two taps
    out = x.flatten(1) * weight[:, 0, i, j]
    if bias is not None:
        out = out + bias
    return out.view(len(x), 1, 1, -1).permute(0, 3, 1, 2)


class DepthwiseFunction(torch.autograd.Function):
    """`F.conv2d(..., groups=C)` of channels_last x, with gradients that are fast on a CPU."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        sizes = (geometry.stride, geometry.padding, geometry.dilation)
        return F.conv2d(x, weight, bias, *sizes, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        geometry, needs = ctx.geometry, list(ctx.needs_input_grad[:3])
        # with create_graph=True the gradients must be differentiable, as PyTorch's are
        if torch.is_grad_enabled() or not may_replace(gradient, weight):
            return *_library_gradients(gradient, x, weight, geometry, needs), None
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        d_x = _input_gradient(gradient, x, weight, geometry) if needs[0] else None
        d_weight = _weight_gradient(gradient, x, weight, geometry) if needs[1] else None
        d_bias = gradient.sum((0, 2, 3)) if needs[2] else None
        return d_x, d_weight, d_bias, None


def _weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    kernel = depthwise_cpu.compiled(weight.shape[-1], x.dtype)
    assert kernel is not None, "the forward pass has asked for it"
    return depthwise_cpu.weight_gradient(
        kernel, x, gradient, weight, geometry.stride, geometry.padding, geometry.dilation
    )


def _input_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, geometry: Geometry
) -> Tensor | None:
    padding = geometry.flipped_padding()
    if padding is None:
        return _library_gradients(gradient, x, weight, geometry, [True, False, False])[0]
    flipped = weight.flip(2, 3)
    return F.conv2d(gradient, flipped, None, 1, padding, geometry.dilation, groups=len(weight))


def _library_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, needs: list[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of input, weight and bias, where needed, as PyTorch computes them."""
    sizes = (geometry.stride, geometry.padding, geometry.dilation)
    groups = len(weight)
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, [groups], *sizes, False, [0, 0], groups, needs
    )
