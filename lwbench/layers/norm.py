"""Batch norms that train faster on a CPU, in one pass with the activation that follows.

`accelerate` replaces the computation (`forward`) of a network's `nn.BatchNorm2d`, and of each
`nn.Sequential` in which one is followed by ReLU, ReLU6 or Hardswish. Types, parameters, running
statistics, state dict, hooks and counts stay as they are. The replacement computes in training
only, on ordinary channels_last tensors of a CPU (`native.may_replace`); a norm or activation with
hooks is called by itself, so that they see what they saw before.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks
from torch.nn.modules.batchnorm import _BatchNorm

from . import native, norm_cpu

ACTIVATIONS: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.Hardswish: "hardswish",
}
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda y: y,
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
}


def accelerate(model: nn.Module) -> None:
    """Replace the computation of the network's batch norms; nothing without the compiler."""
    norms = [module for module in model.modules() if _is_plain(module)]
    if not native.available() or not norms:
        return
    followed = [m for m in model.modules() if _is_sequence(m) and any(_pairs(m))]
    # compiled now, so that a failure is known before the first step
    names = {"identity", *(ACTIVATIONS[type(b)] for m in followed for _, b in _pairs(m))}
    if any(norm_cpu.compiled(name, torch.float32) is None for name in names):
        return
    for norm in norms:
        vars(norm)["forward"] = partial(_norm_forward, norm)
    for sequence in followed:
        vars(sequence)["forward"] = partial(_sequence_forward, sequence)


def is_accelerated(module: nn.Module) -> bool:
    """Whether `accelerate` has replaced the module's computation."""
    forward = vars(module).get("forward")
    return isinstance(forward, partial) and forward.func in (_norm_forward, _sequence_forward)


def _is_plain(module: nn.Module) -> TypeGuard[nn.BatchNorm2d]:
    return type(module) is nn.BatchNorm2d and "forward" not in vars(module)


def _is_sequence(module: nn.Module) -> TypeGuard[nn.Sequential]:
    is_plain = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    return is_plain and "forward" not in vars(module)


def _pairs(sequence: nn.Sequential) -> list[tuple[nn.Module, nn.Module]]:
    """The norms of a sequence with their activations."""
    return [
        (a, b)
        for a, b in pairwise(sequence)
        if type(a) is nn.BatchNorm2d and type(b) in ACTIVATIONS
    ]


# What takes the place of `forward` is a partial function, as an attribute of the instance: unlike a
# closure or a bound method, it is copied and pickled together with its module, and unlike an object
# that can be called, torch.export takes it.


def _norm_forward(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    out = _computed(norm, "identity", x)
    return nn.BatchNorm2d.forward(norm, x) if out is None else out


def _sequence_forward(sequence: nn.Sequential, x: Tensor) -> Tensor:
    """Call the layers in their order, a norm and its activation together where that is possible."""
    layers = list(sequence)
    k = 0
    while k < len(layers):
        out = _together(layers[k], layers[k + 1], x) if k + 1 < len(layers) else None
        if out is None:
            x, k = layers[k](x), k + 1
        else:
            x, k = out, k + 2
    return x


def _together(norm: nn.Module, activation: nn.Module, x: Tensor) -> Tensor | None:
    """Both layers' output, or None where each is to be called by itself."""
    name = ACTIVATIONS.get(type(activation))
    if name is None or type(norm) is not nn.BatchNorm2d or not isinstance(x, Tensor):
        return None
    if not is_accelerated(norm) or "forward" in vars(activation):
        return None
    if _is_hooked(norm) or _is_hooked(activation):
        return None
    return _computed(norm, name, x)


def _is_hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or global_hooks._global_forward_hooks
        or global_hooks._global_forward_pre_hooks
        or global_hooks._global_backward_hooks
        or global_hooks._global_backward_pre_hooks
    )


def _computed(norm: nn.BatchNorm2d, activation: str, x: Tensor) -> Tensor | None:
    """The activation of the norm of x, or None where PyTorch is to compute it."""
    weight, bias = norm.weight, norm.bias
    # without weights, or with their own precision, PyTorch; and where it raises an error
    if not norm.training or weight is None or bias is None:
        return None
    running = (norm.running_mean, norm.running_var) if norm.track_running_stats else ()
    vectors = (weight, bias, *running)
    if any(vector is None for vector in vectors) or not native.may_replace(x, *vectors):
        return None
    channels = x.shape[1]
    is_usual = native.is_channels_last(x) and x.numel() > channels
    if not is_usual or any(v.shape != (channels,) or not v.is_contiguous() for v in vectors):
        return None
    kernel = norm_cpu.compiled(activation, x.dtype)
    if kernel is None:
        return None
    options = (activation, running or None, counted_momentum(norm), norm.eps)
    return NormFunction.apply(x, weight, bias, options)


def counted_momentum(norm: _BatchNorm) -> float:
    """Count the batch, and return the weight of its statistics in the running ones."""
    if norm.track_running_stats and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if norm.momentum is None:  # the mean of all batches
            return 1.0 / float(norm.num_batches_tracked)
    return 0.0 if norm.momentum is None else norm.momentum


class NormFunction(torch.autograd.Function):
    """activation(F.batch_norm(x, running_mean, running_var, weight, bias, training=True))."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, options: tuple[Any, ...]
    ) -> Tensor:
        activation, running, momentum, eps = options
        kernel = norm_cpu.compiled(activation, x.dtype)
        assert kernel is not None, "the caller has asked for it"
        out, statistics = norm_cpu.forward(kernel, x, weight, bias, running, momentum, eps)
        # they were written behind autograd's back
        for tensor in running or ():
            torch.autograd.graph.increment_version(tensor)
        ctx.save_for_backward(x, weight, bias, statistics)
        ctx.kernel, ctx.activation, ctx.eps = kernel, activation, eps
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, statistics = ctx.saved_tensors
        # with create_graph=True the gradients must be differentiable, as PyTorch's are
        if torch.is_grad_enabled() or not native.may_replace(gradient, weight):
            return *_library_gradients(gradient, x, weight, bias, ctx), None
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return *norm_cpu.backward(ctx.kernel, gradient, x, bias, statistics), None


def _library_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, ctx: Any
) -> tuple[Tensor | None, ...]:
    """Gradients of x, weight and bias, where needed, as PyTorch computes them."""
    needs, is_differentiable = ctx.needs_input_grad[:3], torch.is_grad_enabled()
    with torch.enable_grad():
        # leaves, where no second derivative is wanted
        inputs = [
            t if is_differentiable else t.detach().requires_grad_() for t in (x, weight, bias)
        ]
        y = F.batch_norm(inputs[0], None, None, inputs[1], inputs[2], True, 0.0, ctx.eps)
        out = FUNCTIONS[ctx.activation](y)
        wanted = [t for t, needed in zip(inputs, needs, strict=True) if needed]
        found = iter(torch.autograd.grad(out, wanted, gradient, create_graph=is_differentiable))
    return tuple(next(found) if needed else None for needed in needs)
