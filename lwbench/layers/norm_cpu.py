"""Batch norm and the activation behind it on a CPU, in training: forward and backward passes.

PyTorch reads the input three times and writes the output, then the activation reads and writes it
again; the backward passes read and write five tensors more than is necessary. The functions of
`norm_llvm` read the input twice in each direction, and the second time what is left of it in the
cache.

Rows (pixels) are divided among PyTorch's threads. The sums of the parts are added up in a fixed
order, so that the result depends on the number of threads and on nothing else.
"""

import ctypes
import logging
import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import native

log = logging.getLogger(__name__)

# Values of a tensor (20 microseconds' worth) below which a part costs more to hand over.
SERIAL_VALUES = 1 << 16


class Kernel(NamedTuple):
    """The compiled functions for one activation and type; see `norm_llvm`."""

    forward_sums: native.Parallel
    forward_finish: Callable[[Any, int], None]
    forward_rows: native.Parallel
    backward_sums: native.Parallel
    backward_finish: Callable[[Any, int], None]
    backward_rows: native.Parallel


def forward(
    kernel: Kernel,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running: tuple[Tensor, Tensor] | None,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """activation(batch norm(x)), and statistics for `backward`, (3, C).

    x (N, C, H, W) is channels_last and of the type that `kernel` was compiled for, as are the
    vectors (C,). `running`: mean and variance, which are updated.
    """
    out = torch.empty_like(x, memory_format=torch.channels_last)
    channels, parts = x.shape[1], _parts(x)
    scratch = x.new_empty(3 + 2 * parts, channels)
    statistics = scratch[:3]
    size = channels * x.element_size()
    mean, variance = (0, 0) if running is None else (r.data_ptr() for r in running)
    fields = _fields(
        *(x.data_ptr(), out.data_ptr(), 0, 0),
        *(weight.data_ptr(), bias.data_ptr(), mean, variance, 0, 0),
        *(scratch.data_ptr(), scratch.data_ptr() + 3 * size, 0),
        *(x.numel() // channels, channels, parts, momentum, eps),
    )
    kernel.forward_sums(fields, parts)
    kernel.forward_finish(fields, 0)
    kernel.forward_rows(fields, parts)
    return out, statistics


def backward(
    kernel: Kernel, gradient: Tensor, x: Tensor, bias: Tensor, statistics: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias, from that of the output, which is channels_last."""
    d_x = torch.empty_like(x, memory_format=torch.channels_last)
    channels, parts = x.shape[1], _parts(x)
    d_weight, d_bias = x.new_empty(channels), x.new_empty(channels)
    scratch = x.new_empty(3 + 2 * parts, channels)
    size = channels * x.element_size()
    fields = _fields(
        *(x.data_ptr(), 0, gradient.data_ptr(), d_x.data_ptr()),
        *(0, bias.data_ptr(), 0, 0, d_weight.data_ptr(), d_bias.data_ptr()),
        *(statistics.data_ptr(), scratch.data_ptr() + 3 * size, scratch.data_ptr()),
        *(x.numel() // channels, channels, parts, 0.0, 0.0),
    )
    kernel.backward_sums(fields, parts)
    kernel.backward_finish(fields, 0)
    kernel.backward_rows(fields, parts)
    return d_x, d_weight, d_bias


def _parts(x: Tensor) -> int:
    if x.numel() < SERIAL_VALUES:
        return 1
    return min(torch.get_num_threads(), x.numel() // x.shape[1])


_PACKED = struct.Struct("=16q2d")  # norm_llvm.FIELDS


def _fields(*values: float) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(_PACKED.pack(*values), _PACKED.size)


@cache
def compiled(activation: str, dtype: torch.dtype) -> Kernel | None:
    """The functions for float32 or float64; None, with a warning, if LLVM fails.

    A failure must not end a training that PyTorch can do.
    """
    try:
        return _compile(activation, dtype)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        log.warning("PyTorch computes batch norms, since llvmlite cannot: %s", reason)
        return None


def _compile(activation: str, dtype: torch.dtype) -> Kernel:
    from . import norm_llvm  # needs llvmlite

    own, common = _code(norm_llvm.OWN, activation, dtype), _common(dtype)
    return Kernel(
        common.parallel("forward_sums"),
        common.serial("forward_finish"),
        own.parallel("forward_rows"),
        own.parallel("backward_sums"),
        common.serial("backward_finish"),
        own.parallel("backward_rows"),
    )


@cache
def _common(dtype: torch.dtype) -> native.Code:
    from . import norm_llvm

    return _code(norm_llvm.COMMON, "identity", dtype)


def _code(names: Sequence[str], activation: str, dtype: torch.dtype) -> native.Code:
    from . import norm_llvm

    types = native.type_name(dtype), native.register_bytes()
    return native.Code(norm_llvm.generate(names, activation, *types, native.team_functions()))
