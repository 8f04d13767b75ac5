"""Batch norm over the whole batch where several processes have a part of it each.

On GPUs this is torch.nn.SyncBatchNorm, which refuses tensors of a CPU. There, `forward` of each
norm is replaced: statistics of the parts are exchanged in the forward pass and combined by the
formula of Chan et al. (1979); the backward pass exchanges two sums. Types, parameters and state
dict stay as they are.
"""

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import PeerLostError, UsageError
from .norm import counted_momentum


def synchronise(model: nn.Module) -> nn.Module:
    """Let the network's batch norms normalise by the whole batch in training.

    Returns the model. Raises UsageError for a batch norm that computes something else as well.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        if type(norm).forward is not _BatchNorm.forward:
            raise UsageError(
                f"{type(norm).__name__} of this network cannot normalise over several processes: "
                "train with local_batchnorm=true"
            )
    if next(model.parameters()).device.type == "cuda":
        synchronised: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return synchronised
    for norm in norms:
        # in place of that of `norm.accelerate`, which knows one process's images alone
        vars(norm)["forward"] = partial(_forward, norm)
    return model


def _forward(norm: _BatchNorm, x: Tensor) -> Tensor:
    if not norm.training:
        return _BatchNorm.forward(norm, x)
    norm._check_input_dim(x)
    momentum = counted_momentum(norm)
    out, mean, variance, count = _Normalised.apply(x, norm.weight, norm.bias, norm.eps)
    if norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            norm.running_mean.lerp_(mean, momentum)
            norm.running_var.lerp_(variance * (count / (count - 1)), momentum)
    return out


class _Normalised(torch.autograd.Function):
    """F.batch_norm of the whole batch in training, with its mean, variance and count."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # sums in float32 at least, whatever the network computes in
        values = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        variance, mean = torch.var_mean(values, _all_but_channels(x), correction=0)
        count = mean.new_tensor([x.numel() // x.shape[1]])
        parts = _gathered(torch.cat([mean, variance, count]).double())
        means, variances, counts = parts.split([len(mean), len(mean), 1], dim=1)
        total = counts.sum()
        whole = (counts * means).sum(0) / total
        spread = (counts * (variances + (means - whole).square())).sum(0) / total
        mean, variance, total = whole.to(mean), spread.to(mean), total.to(mean)
        out = F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, variance, total)
        ctx.eps, ctx.has_bias = eps, bias is not None
        ctx.mark_non_differentiable(mean, variance, total)
        return out, mean, variance, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance, total = ctx.saved_tensors
        # as if the statistics were constants, and this process's part of both sums
        d_x, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        if weight is None:  # then the sums are not computed
            dims, shape = _all_but_channels(x), _shape(x)
            gradient = gradient.to(mean.dtype)
            d_bias = gradient.sum(dims)
            scaled = (x - mean.view(shape)) * (variance + ctx.eps).rsqrt().view(shape)
            d_weight = (gradient * scaled).sum(dims)
        sums = torch.stack([d_bias, d_weight])
        try:
            dist.all_reduce(sums)
        except RuntimeError as error:
            raise PeerLostError(f"the connection to another process was lost: {error}") from error
        # the rest is by way of mean and variance, which depend on the images of all processes
        inverse = (variance + ctx.eps).rsqrt()
        scale = inverse if weight is None else inverse * weight
        constant = (scale * sums[0] / total).view(_shape(x))
        slope = (scale * inverse * sums[1] / total).view(_shape(x))
        d_x = (d_x - constant - (x - mean.view(_shape(x))) * slope).to(x.dtype)
        has_weight = weight is not None
        return d_x, d_weight if has_weight else None, d_bias if ctx.has_bias else None, None


def _all_but_channels(x: Tensor) -> list[int]:
    return [dim for dim in range(x.dim()) if dim != 1]


def _shape(x: Tensor) -> list[int]:
    return [1, -1, *[1] * (x.dim() - 2)]


def _gathered(own: Tensor) -> Tensor:
    """The vectors of all processes, one in a row."""
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    try:
        dist.all_gather(parts, own)
    except RuntimeError as error:
        raise PeerLostError(f"the connection to another process was lost: {error}") from error
    return torch.stack(parts)
