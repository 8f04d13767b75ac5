"""Fused deformable convolution for CUDA: sampling, mask and reduction in one Triton kernel.

The usual operator writes K * K * C columns to memory and multiplies them afterwards; here a program
keeps a block of pixels in registers from the four corners to the sum over channels. Each program
writes a partial sum of the weight's gradient, which are added afterwards: without atomics, so that
it is deterministic. Only the image's gradient, which a stem does not need, uses atomics.

Sums are accumulated in float32 as outer products rather than on matrix units: a stem has 27 terms.
"""
# Triton reads the annotations of kernels: their parameters are pointers and numbers without types.
# mypy: disable-error-code="no-untyped-def"

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from .deform_reference import reference

# Supported types, with the relative difference from the reference that rounding explains.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
# Elements of a program's tile (pixels times output channels of a group).
TILE = 4096
# Bytes of partial sums of the weight's gradient; above this the unfused path is used.
PARTIAL_BYTES = 1 << 28


# Both kernels run over a grid of (blocks of output pixels, images[, groups]). All tensors are
# contiguous, (N, C, H, W); offsets are (N, K K, (y, x), pixels).


@triton.jit
def _position(offset, first, p, inside, start, pixels, size):
    shift = tl.load(offset + first * pixels + p, mask=inside, other=0.0).to(tl.float32)
    shift = tl.where(tl.abs(shift) < float("inf"), shift, 0.0)  # the comparison is false for NaN
    # the clamp keeps the conversion to integers defined; samples out there are zero anyway
    at = tl.minimum(tl.maximum(start.to(tl.float32) + shift, -2.0), size + 1.0)
    low = tl.floor(at)
    # the upper left corner, and how far the position is from it
    return low.to(tl.int32), at - low


@triton.jit
def _corners(x, plane, y, x0, inside, height, width):
    # each corner outside the map reads as zero; `y` and `x0` may be -1 or the last row or column
    top, bottom = inside & (y >= 0) & (y < height), inside & (y >= -1) & (y < height - 1)
    left, right = (x0 >= 0) & (x0 < width), (x0 >= -1) & (x0 < width - 1)
    at = x + plane + y * width + x0
    a = tl.load(at, mask=top & left, other=0.0).to(tl.float32)
    b = tl.load(at + 1, mask=top & right, other=0.0).to(tl.float32)
    c = tl.load(at + width, mask=bottom & left, other=0.0).to(tl.float32)
    d = tl.load(at + width + 1, mask=bottom & right, other=0.0).to(tl.float32)
    return a, b, c, d


@triton.jit
def _forward(
    x, offset, mask, weight, out, height, width, pixels, out_width, channels, out_channels, groups,
    kernel_width, stride, padding, dilation,
    POINTS: tl.constexpr, MASKED: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    # 64 bits: offsets into a large batch exceed 2**31 elements
    n, g = tl.program_id(1).to(tl.int64), tl.program_id(2)
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    o = tl.arange(0, BLOCK_O)
    inside = p < pixels
    total = tl.zeros((BLOCK_P, BLOCK_O), dtype=tl.float32)
    for k in range(POINTS):
        # one sampling point of the kernel for all pixels of the block; all channels share it
        row = p // out_width * stride - padding + k // kernel_width * dilation
        column = p % out_width * stride - padding + k % kernel_width * dilation
        y, fy = _position(offset, (n * POINTS + k) * 2, p, inside, row, pixels, height)
        x0, fx = _position(offset, (n * POINTS + k) * 2 + 1, p, inside, column, pixels, width)
        scale = tl.full((BLOCK_P,), 1.0, dtype=tl.float32)
        if MASKED:
            at = mask + (n * POINTS + k) * pixels + p
            scale = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        for i in range(channels):
            plane = ((n * groups + g) * channels + i) * height * width
            a, b, c, d = _corners(x, plane, y, x0, inside, height, width)
            value = (a * (1 - fx) + b * fx) * (1 - fy) + (c * (1 - fx) + d * fx) * fy
            at = weight + ((g * out_channels + o) * channels + i) * POINTS + k
            kernel = tl.load(at, mask=o < out_channels, other=0.0).to(tl.float32)
            # an outer product of pixels and output channels: the sum over channels and points
            # stays in registers
            total += (value * scale)[:, None] * kernel[None, :]
    at = out + ((n * groups + g) * out_channels + o[None, :]) * pixels + p[:, None]
    tl.store(at, total, mask=inside[:, None] & (o < out_channels)[None, :])


@triton.jit
def _backward(
    x, offset, mask, weight, d_out, d_x, d_offset, d_mask, partial,
    height, width, pixels, out_width, channels, out_channels, groups,
    kernel_width, stride, padding, dilation,
    POINTS: tl.constexpr, MASKED: tl.constexpr, IMAGE: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1).to(tl.int64)
    # The groups are a loop here, since all of them contribute to a pixel's offsets: a program then
    # writes each gradient once, without atomics.
    program = n * tl.num_programs(0) + tl.program_id(0)
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    o = tl.arange(0, BLOCK_O)
    inside = p < pixels
    for k in range(POINTS):
        row = p // out_width * stride - padding + k // kernel_width * dilation
        column = p % out_width * stride - padding + k % kernel_width * dilation
        y, fy = _position(offset, (n * POINTS + k) * 2, p, inside, row, pixels, height)
        x0, fx = _position(offset, (n * POINTS + k) * 2 + 1, p, inside, column, pixels, width)
        scale = tl.full((BLOCK_P,), 1.0, dtype=tl.float32)
        if MASKED:
            at = mask + (n * POINTS + k) * pixels + p
            scale = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        slope_y = tl.zeros((BLOCK_P,), dtype=tl.float32)
        slope_x = tl.zeros((BLOCK_P,), dtype=tl.float32)
        slope_m = tl.zeros((BLOCK_P,), dtype=tl.float32)
        for g in range(groups):
            at = d_out + ((n * groups + g) * out_channels + o[None, :]) * pixels + p[:, None]
            known = inside[:, None] & (o < out_channels)[None, :]
            tile = tl.load(at, mask=known, other=0.0).to(tl.float32)
            for i in range(channels):
                plane = ((n * groups + g) * channels + i) * height * width
                a, b, c, d = _corners(x, plane, y, x0, inside, height, width)
                value = (a * (1 - fx) + b * fx) * (1 - fy) + (c * (1 - fx) + d * fx) * fy
                index = ((g * out_channels + o) * channels + i) * POINTS + k
                kernel = tl.load(weight + index, mask=o < out_channels, other=0.0).to(tl.float32)
                # gradient of the sample, before and after the mask
                d_value = tl.sum(tile * kernel[None, :], axis=1)
                slope_m += d_value * value
                d_value = d_value * scale
                # bilinear interpolation is linear in each direction: its slope is a difference of
                # corners, weighted by the other direction
                slope_y += d_value * ((c - a) * (1 - fx) + (d - b) * fx)
                slope_x += d_value * ((b - a) * (1 - fy) + (d - c) * fy)
                # this program's part of the weight's gradient, in a place of its own
                share = tl.sum(tile * (value * scale)[:, None], axis=0)
                first = program * groups * out_channels * channels * POINTS
                tl.store(partial + first + index, share, mask=o < out_channels)
                if IMAGE:
                    # positions of neighbouring pixels overlap, so the image's gradient is scattered
                    top, bottom = (y >= 0) & (y < height), (y >= -1) & (y < height - 1)
                    left, right = (x0 >= 0) & (x0 < width), (x0 >= -1) & (x0 < width - 1)
                    at = d_x + plane + y * width + x0
                    upper, lower = d_value * (1 - fy), d_value * fy
                    tl.atomic_add(at, upper * (1 - fx), mask=inside & top & left)
                    tl.atomic_add(at + 1, upper * fx, mask=inside & top & right)
                    tl.atomic_add(at + width, lower * (1 - fx), mask=inside & bottom & left)
                    tl.atomic_add(at + width + 1, lower * fx, mask=inside & bottom & right)
        at = d_offset + (n * POINTS + k) * 2 * pixels + p
        tl.store(at, slope_y, mask=inside)
        tl.store(at + pixels, slope_x, mask=inside)
        if MASKED:
            tl.store(d_mask + (n * POINTS + k) * pixels + p, slope_m, mask=inside)


def _blocks(weight: Tensor, groups: int) -> tuple[int, int]:
    """Return the pixels and output channels of one program's tile, powers of two."""
    # Triton's ranges are powers of two; few output channels leave room for more pixels
    out = triton.next_power_of_2(max(1, len(weight) // groups))
    return max(16, min(256, TILE // out)), out


def suits(x: Tensor, offset: Tensor, weight: Tensor) -> bool:
    """Return whether the kernel supports this type and its partial sums fit PARTIAL_BYTES."""
    pixels = offset.shape[-2] * offset.shape[-1]
    block, _ = _blocks(weight, x.shape[1] // weight.shape[1])
    programs = len(x) * triton.cdiv(pixels, block)  # each has a copy of the weight's gradient
    return x.dtype in TOLERANCE and 4 * programs * weight.numel() <= PARTIAL_BYTES


@cache
def works(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether the kernel agrees with `reference` there; compared once per device and type.

    A missing compiler, an unsupported GPU or wrong values disable the kernel with one warning.
    """
    try:
        difference = _difference(device, dtype)
    except Exception as error:  # compilers and drivers fail in many ways; the reference still works
        reason = (str(error).splitlines() or [type(error).__name__])[0]
    else:
        if difference <= TOLERANCE[dtype]:
            return True
        reason = f"its values or gradients differ from the reference by {difference:.1e}"
    warnings.warn(
        f"the fused deformable convolution (Triton) is not used on {device} in {dtype}: {reason}; "
        "the unfused one gives the same results more slowly",
        stacklevel=2,
    )
    return False


def _difference(device: torch.device, dtype: torch.dtype) -> float:
    """Return the largest difference of outputs and gradients on a small masked convolution.

    Relative to the largest value of each, or infinity where a value is not finite.
    """
    generator = torch.Generator().manual_seed(0)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    # Two groups, stride 2 and offsets of up to two pixels cover all branches of the kernels.
    # Positions lie at quarters of a pixel: exact in half precision, and away from whole pixels,
    # where the gradient of bilinear sampling jumps.
    offset = (4 * rand(2, 18, 4, 3) - 2).floor() + 0.25
    inputs = rand(2, 4, 7, 6) - 0.5, offset, rand(2, 9, 4, 3), rand(6, 2, 3, 3) - 0.5
    weighting = torch.linspace(-1, 1, 2 * 6 * 4 * 3).view(2, 6, 4, 3)
    results = []
    implementations: tuple[Callable[..., Tensor], ...] = (FusedDeformConv.apply, reference)
    for run in implementations:
        tensors = [t.detach().to(device, dtype).requires_grad_() for t in inputs]
        with torch.enable_grad(), torch.autocast(device.type, enabled=False):
            out = run(*tensors, 2, 1, 1)
            gradients = torch.autograd.grad((out * weighting.to(out)).sum(), tensors)
        results.append([t.detach().float().cpu() for t in (out, *gradients)])
    differences = [
        ((ours - theirs).abs().max() / theirs.abs().max()).nan_to_num(torch.inf).item()
        for ours, theirs in zip(*results, strict=True)
    ]
    return max(differences)


class FusedDeformConv(torch.autograd.Function):
    """See `deform_conv2d`. Differentiating its gradient again raises RuntimeError."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        offset: Tensor,
        mask: Tensor | None,
        weight: Tensor,
        stride: int,
        padding: int,
        dilation: int,
    ) -> Tensor:
        # the kernels compute addresses from sizes alone
        x, offset, weight = x.contiguous(), offset.contiguous(), weight.contiguous()
        mask = None if mask is None else mask.contiguous()
        ctx.save_for_backward(x, offset, mask, weight)
        ctx.geometry = (stride, padding, dilation)
        device = x.device.type
        # the output has autocast's type, as a convolution's would
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else x.dtype
        out = x.new_empty(len(x), len(weight), *offset.shape[-2:], dtype=dtype)
        groups, points, block_p, block_o, sizes = _sizes(x, offset, weight)
        grid = (triton.cdiv(sizes[2], block_p), len(x), groups)
        _forward[grid](
            x, offset, offset if mask is None else mask, weight, out, *sizes, *ctx.geometry,
            POINTS=points, MASKED=mask is not None, BLOCK_P=block_p, BLOCK_O=block_o,
        )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, offset, mask, weight = ctx.saved_tensors
        _, points, block_p, block_o, sizes = _sizes(x, offset, weight)
        grid = (triton.cdiv(sizes[2], block_p), len(x))
        image = ctx.needs_input_grad[0]  # a stem's image needs no gradient: skip the atomics
        d_x = torch.zeros_like(x, dtype=torch.float32) if image else x
        d_offset = torch.empty_like(offset)
        d_mask = d_offset if mask is None else torch.empty_like(mask)
        partial = weight.new_empty(grid[0] * grid[1], *weight.shape, dtype=torch.float32)
        _backward[grid](
            x, offset, offset if mask is None else mask, weight, d_out.contiguous(),
            d_x, d_offset, d_mask, partial, *sizes, *ctx.geometry,
            POINTS=points, MASKED=mask is not None, IMAGE=image,
            BLOCK_P=block_p, BLOCK_O=block_o,
        )  # fmt: skip
        d_x = d_x.to(x.dtype) if image else None
        d_weight = partial.sum(0).to(weight.dtype)
        return d_x, d_offset, None if mask is None else d_mask, d_weight, None, None, None


def _sizes(x: Tensor, offset: Tensor, weight: Tensor) -> tuple[int, int, int, int, tuple[int, ...]]:
    """Return groups, sampling points, tile, and the sizes that both kernels take in this order."""
    height, width = x.shape[-2:]
    out_height, out_width = offset.shape[-2:]
    groups = x.shape[1] // weight.shape[1]
    per_group = weight.shape[1], len(weight) // groups
    sizes = height, width, out_height * out_width, out_width, *per_group, groups, weight.shape[-1]
    return groups, weight.shape[-2] * weight.shape[-1], *_blocks(weight, groups), sizes
