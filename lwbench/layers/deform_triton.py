"""Deformable convolution fused for CUDA: sampling, mask and reduction in one pass, in Triton.

The usual operator writes K * K * C columns to memory, multiplies them and scatters; here a program
keeps a block of pixels in registers from the four corners to the sum over channels. The gradient of
the weight is a partial sum a program, added up afterwards: no atomics, so it is deterministic.
Only the image's gradient, which a stem does not need, is scattered with atomics.

Sums run over outer products in float32 rather than over matrix units: a stem has 27 terms.
"""

import warnings
from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Elements of a program's tile (pixels times output channels of a group).
TILE = 4096
# The partial sums of the weight's gradient; above it the plain path serves better.
PARTIAL_BYTES = 1 << 28


@triton.jit
def _position(offset, first, p, inside, start, pixels, size):
    shift = tl.load(offset + first * pixels + p, mask=inside, other=0.0).to(tl.float32)
    shift = tl.where(tl.abs(shift) < float("inf"), shift, 0.0)  # false for NaN too
    at = tl.minimum(tl.maximum(start.to(tl.float32) + shift, -2.0), size + 1.0)
    low = tl.floor(at)
    return low.to(tl.int32), at - low


@triton.jit
def _corners(x, plane, y, x0, inside, height, width):
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
    n, g = tl.program_id(1).to(tl.int64), tl.program_id(2)
    p = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    o = tl.arange(0, BLOCK_O)
    inside = p < pixels
    total = tl.zeros((BLOCK_P, BLOCK_O), dtype=tl.float32)
    for k in range(POINTS):
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
                d_value = tl.sum(tile * kernel[None, :], axis=1)
                slope_m += d_value * value
                d_value = d_value * scale
                slope_y += d_value * ((c - a) * (1 - fx) + (d - b) * fx)
                slope_x += d_value * ((b - a) * (1 - fy) + (d - c) * fy)
                share = tl.sum(tile * (value * scale)[:, None], axis=0)
                first = program * groups * out_channels * channels * POINTS
                tl.store(partial + first + index, share, mask=o < out_channels)
                if IMAGE:
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
    """Pixels and output channels of a program's tile, powers of two."""
    out = triton.next_power_of_2(max(1, len(weight) // groups))
    return max(16, min(256, TILE // out)), out


def suits(x: Tensor, offset: Tensor, weight: Tensor) -> bool:
    """Whether the kernel takes these types, and its partial sums stay small."""
    pixels = offset.shape[-2] * offset.shape[-1]
    block, _ = _blocks(weight, x.shape[1] // weight.shape[1])
    programs = len(x) * triton.cdiv(pixels, block)
    return x.dtype in DTYPES and 4 * programs * weight.numel() <= PARTIAL_BYTES


@cache
def works(device: torch.device) -> bool:
    """Whether a first small launch succeeds there (driver, compiler); warns once if it does not."""
    try:
        x, offset = torch.zeros(1, 1, 2, 2, device=device), torch.zeros(1, 2, 2, 2, device=device)
        FusedDeformConv.apply(x, offset, None, x.new_zeros(1, 1, 1, 1), 1, 0, 1).sum().item()
    except Exception as error:  # whatever the reason, the plain path serves
        reason = str(error).split("\n")[0]
        warnings.warn(f"deformable convolution goes unfused, Triton: {reason}", stacklevel=2)
        return False
    return True


class FusedDeformConv(torch.autograd.Function):
    """See `deform.deform_conv2d`. Its gradient cannot be differentiated again: an error."""

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
        x, offset, weight = x.contiguous(), offset.contiguous(), weight.contiguous()
        mask = None if mask is None else mask.contiguous()
        ctx.save_for_backward(x, offset, mask, weight)
        ctx.geometry = (stride, padding, dilation)
        device = x.device.type
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
        image = ctx.needs_input_grad[0]
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
    """Groups, points, tile, and the sizes that both kernels take in this order."""
    height, width = x.shape[-2:]
    out_height, out_width = offset.shape[-2:]
    groups = x.shape[1] // weight.shape[1]
    per_group = weight.shape[1], len(weight) // groups
    sizes = height, width, out_height * out_width, out_width, *per_group, groups, weight.shape[-1]
    return groups, weight.shape[-2] * weight.shape[-1], *_blocks(weight, groups), sizes
