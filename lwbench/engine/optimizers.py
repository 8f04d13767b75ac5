"""Optimizers, and which parameters have weight decay or a learning rate of their own."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import nn

from ..errors import UsageError
from ..registry import OPTIMIZERS, Fraction
from .offsets import Deformable

# torch.optim imports torch._dynamo, which takes longer than a short epoch, when an optimizer is
# made and at its first step, only to keep torch.compile out of its methods. No optimizer here is
# compiled, so the methods are called without the wrappers that do this.


def _skip_dynamo() -> None:
    """Let Optimizer's wrapped methods run as they are; the wrapper caches what it calls."""
    for member in vars(torch.optim.Optimizer).values():
        code = getattr(member, "__code__", None)  # properties and constants have none
        if code is not None and code.co_filename.endswith("_compile.py"):
            setattr(member.__wrapped__, "__dynamo_disable", member.__wrapped__)


_skip_dynamo()


def eager_step(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    """`optimizer.step` without its wrappers, for training without gradient scaling."""
    step = inspect.unwrap(type(optimizer).step)

    def call() -> None:
        with torch.no_grad():
            step(optimizer)

    return call


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    decay_norm_bias: bool,
    decay_depthwise: bool,
    offset_lr_factor: float,
) -> list[dict[str, Any]]:
    """Group the parameters by weight decay and learning rate; each group has `lr_factor`.

    `decay_norm_bias`: also decay norms and biases. `decay_depthwise`: also decay depthwise kernels
    (mbv1 recommends "very little or no weight decay" on them). Offset and mask branches are trained
    at `offset_lr_factor` times the learning rate.
    """
    # by identity: tensors compare element by element
    offsets = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, Deformable)
        for parameter in module.offset_parameters()
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for module in model.modules():
        # one filter per input channel; a convolution of a single channel is an ordinary one
        is_depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
        for parameter in module.parameters(recurse=False):
            # norms and biases are vectors; kernels of all layers have two dimensions or more
            is_kernel = parameter.ndim > 1
            decays = (decay_norm_bias or is_kernel) and (
                decay_depthwise or not (is_depthwise and is_kernel)
            )
            factor = offset_lr_factor if id(parameter) in offsets else 1.0
            groups.setdefault((weight_decay if decays else 0.0, factor), []).append(parameter)
    # the training loop sets the learning rate of each group before every step, times `lr_factor`
    return [
        {"params": parameters, "weight_decay": decay, "lr_factor": factor}
        for (decay, factor), parameters in groups.items()
    ]


@OPTIMIZERS.register
def sgd(
    model: nn.Module,
    *,
    lr: PositiveFloat,
    momentum: Fraction = 0.9,
    nesterov: bool = False,
    weight_decay: NonNegativeFloat = 0.0,
    decay_norm_bias: bool = True,
    decay_depthwise: bool = True,
    offset_lr_factor: NonNegativeFloat = 1.0,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum, also in Nesterov's form.

    Raises UsageError for Nesterov's form without momentum.
    """
    if nesterov and momentum == 0:
        raise UsageError("optimizer.nesterov=true needs optimizer.momentum above 0")
    groups = parameter_groups(
        model,
        weight_decay=weight_decay,
        decay_norm_bias=decay_norm_bias,
        decay_depthwise=decay_depthwise,
        offset_lr_factor=offset_lr_factor,
    )
    # fused: one kernel updates all parameters, which small networks notice
    return torch.optim.SGD(groups, lr, momentum, nesterov=nesterov, fused=True)


@OPTIMIZERS.register
def rmsprop(
    model: nn.Module,
    *,
    lr: PositiveFloat,
    alpha: Fraction = 0.9,
    momentum: Fraction = 0.9,
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    decay_norm_bias: bool = True,
    decay_depthwise: bool = True,
    offset_lr_factor: NonNegativeFloat = 1.0,
) -> torch.optim.Optimizer:
    """RMSprop, the optimizer of mbv1.

    `alpha`: decay of the mean of squared gradients; `eps` is added to its root.
    """
    groups = parameter_groups(
        model,
        weight_decay=weight_decay,
        decay_norm_bias=decay_norm_bias,
        decay_depthwise=decay_depthwise,
        offset_lr_factor=offset_lr_factor,
    )
    # torch has no fused RMSprop; foreach is the next fastest
    return torch.optim.RMSprop(groups, lr, alpha, eps, momentum=momentum, foreach=True)


@OPTIMIZERS.register
def adamw(
    model: nn.Module,
    *,
    lr: PositiveFloat,
    beta1: Fraction = 0.9,
    beta2: Fraction = 0.999,
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.01,
    decay_norm_bias: bool = False,
    decay_depthwise: bool = True,
    offset_lr_factor: NonNegativeFloat = 1.0,
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter, ICLR 2019)."""
    groups = parameter_groups(
        model,
        weight_decay=weight_decay,
        decay_norm_bias=decay_norm_bias,
        decay_depthwise=decay_depthwise,
        offset_lr_factor=offset_lr_factor,
    )
    return torch.optim.AdamW(groups, lr, (beta1, beta2), eps, fused=True)
