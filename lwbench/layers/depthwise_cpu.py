"""The weight gradient of a depthwise convolution on a CPU, compiled when it is first needed.

PyTorch's own takes 5 to 20 times as long as the forward pass for 5 x 5 and 7 x 7 kernels. The loops
of `depthwise_llvm` are compiled by llvmlite, the compiler library of numba, in 0.1 s a kernel
width.

The work is divided into as many parts as PyTorch has threads: by channels, or, where these are few,
by images. Parts of the images have sums of their own, which are added up in a fixed order, so that
the result depends on the number of threads and on nothing else. The parts run on the threads that
PyTorch's own operators run on.
"""

import ctypes
import logging
from functools import cache

import torch
from torch import Tensor

from . import native

log = logging.getLogger(__name__)

# Below so many multiplications (about 0.1 ms) a part costs more to hand over than to compute.
SERIAL_MACS = 1 << 20
# With fewer channels a part, vector registers would stay half empty.
PART_CHANNELS = 64

Pair = tuple[int, ...]  # (vertical, horizontal)


def weight_gradient(
    kernel: native.Parallel,
    x: Tensor,
    gradient: Tensor,
    weight: Tensor,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
) -> Tensor:
    """Gradient of `weight` (C, 1, KH, KW) from x (N, C, H, W) and that of the output.

    x and `gradient` are channels_last and of the type that `kernel` was compiled for; pairs are
    (vertical, horizontal).
    """
    images, channels, height, width = x.shape
    kernel_height, kernel_width = weight.shape[-2:]
    is_small = gradient.numel() * kernel_height * kernel_width < SERIAL_MACS
    threads = 1 if is_small else torch.get_num_threads()
    is_wide = channels >= threads * PART_CHANNELS
    image_parts, channel_parts = (1, threads) if is_wide else (min(threads, images), 1)
    sums = x.new_zeros(image_parts, kernel_height * kernel_width, channels)
    values = (  # in the order of depthwise_llvm.FIELDS
        *(x.data_ptr(), gradient.data_ptr(), sums.data_ptr()),
        *(images, height, width, channels, *gradient.shape[-2:], kernel_height),
        *(*stride, *padding, *dilation),
        *(image_parts, channel_parts),
    )
    fields = (ctypes.c_int64 * len(values))(*values)
    kernel(fields, image_parts * channel_parts)
    total = sums[0] if image_parts == 1 else sums.sum(0)
    return total.t().reshape(weight.shape)


@cache
def compiled(kernel_width: int, dtype: torch.dtype) -> native.Parallel | None:
    """The kernel of that width for float32 or float64; None, with a warning, if LLVM fails.

    A failure must not end a training that the library can do.
    """
    try:
        return _compile(kernel_width, dtype)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        log.warning("PyTorch computes depthwise gradients, since llvmlite cannot: %s", reason)
        return None


def _compile(kernel_width: int, dtype: torch.dtype) -> native.Parallel:
    from . import depthwise_llvm  # needs llvmlite

    assembly = depthwise_llvm.generate(
        kernel_width,
        native.type_name(dtype),
        native.register_bytes(),
        native.team_functions(),
    )
    return native.Code(assembly).parallel("part")
