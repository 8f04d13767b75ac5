"""Deformable convolution on a CPU: an autograd function around PyTorch's own bilinear sampler.

Two things make it several times faster than an im2col that scatters: the image of a stem needs no
gradient, so none is computed, and the batch is walked a few images at a time, so that coordinates,
samples and their gradients stay in the cache. Samples are computed again in the backward pass:
that costs as much as reading them back, and K * K * C planes a layer need not be kept.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Columns (C * K * K planes) of one thread's share of a chunk; about a level-2 cache.
CHUNK_BYTES = 1 << 20


class Sampler:
    """Samples of some images at the K * K shifted points of every window.

    The sampler of PyTorch takes positions as fractions of the map's size. The map is therefore
    placed on a zeroed one whose sides are powers of two: pixel numbers then survive the way to
    fractions and back exactly, and an offset of exactly zero (as at the start of a training) takes
    the slope to its right, as in `torchvision.ops`, rather than the one rounding happens to pick.
    """

    def __init__(
        self,
        x: Tensor,
        kernel: tuple[int, int],
        out: tuple[int, int],
        *,
        stride: int,
        padding: int,
        dilation: int,
    ) -> None:
        self.dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.height, self.width = x.shape[-2:]
        size = torch.tensor([_power_of_two(n) for n in x.shape[-2:]], dtype=self.dtype)
        self.size = [int(n) for n in size]
        rows, columns = (torch.arange(n, dtype=self.dtype) * stride - padding for n in out)
        down, right = (torch.arange(n, dtype=self.dtype) * dilation for n in kernel)
        y = down.view(-1, 1, 1, 1) + rows.view(-1, 1)
        position = torch.stack(torch.broadcast_tensors(y, right.view(-1, 1, 1) + columns))
        points = kernel[0] * kernel[1]
        self.points, self.pixels = points, out[0] * out[1]
        self.step = (2 / size).view(1, 1, 2, 1)
        start = position.view(2, points, self.pixels).transpose(0, 1)
        self.start = (start * self.step + (1 / size - 1).view(1, 1, 2, 1)).contiguous()
        self.canvas: Tensor | None = None

    def images(self, x: Tensor) -> Tensor:
        """(n, C, H, W) of any float type -> (n, C, 2^i, 2^j), transposed.

        The sampler wants (x, y), offsets come as (y, x): turning the map spares turning those.
        """
        if list(x.shape[-2:]) == self.size and x.dtype == self.dtype:
            return x.transpose(2, 3)
        if self.canvas is None or len(self.canvas) < len(x):
            self.canvas = x.new_zeros(*x.shape[:2], *self.size, dtype=self.dtype)
        canvas = self.canvas[: len(x)]
        canvas[..., : self.height, : self.width] = x
        return canvas.transpose(2, 3)

    def grid(self, offset: Tensor) -> Tensor:
        """Offsets (n, 2 K K, OH, OW) in pixels -> finite positions (n, K K, OH * OW, 2)."""
        n = len(offset)
        grid = self.start.new_empty(n, self.points, 2, self.pixels)
        grid.copy_(offset.view(grid.shape)).nan_to_num_(0.0, 0.0, 0.0)
        torch.addcmul(self.start, grid, self.step, out=grid)
        # far outside everything is zero; the clamp keeps the sampler's integers from overflowing
        return grid.clamp_(-4, 4).transpose(2, 3)

    def sample(self, images: Tensor, grid: Tensor) -> Tensor:
        """(n, C, K K, OH * OW)"""
        return torch.ops.aten.grid_sampler_2d(images, grid, 0, 0, False)

    def gradients(
        self, gradient: Tensor, images: Tensor, grid: Tensor, needs_image: bool
    ) -> tuple[Tensor | None, Tensor]:
        """Gradients of images (n, C, H, W), if needed, and offsets (n, K K, 2, OH * OW)."""
        image, position = torch.ops.aten.grid_sampler_2d_backward(
            gradient, images, grid, 0, 0, False, [needs_image, True]
        )
        if needs_image:
            image = image.transpose(2, 3)[..., : self.height, : self.width]
        return image if needs_image else None, position.transpose(2, 3)


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _chunks(n: int, image_bytes: int) -> list[slice]:
    """The batch in slices: at least an image a thread, the sampler's unit of parallel work."""
    step = torch.get_num_threads() * max(1, CHUNK_BYTES // max(1, image_bytes))
    return [slice(i, min(i + step, n)) for i in range(0, n, step)]


class DeformConv(torch.autograd.Function):
    """See `deform_conv2d`. Its gradient cannot be differentiated again: that is an error."""

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
        ctx.save_for_backward(x, offset, mask, weight)
        ctx.geometry = {"stride": stride, "padding": padding, "dilation": dilation}
        autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if autocast else x.dtype
        with torch.autocast("cpu", enabled=False):
            return _forward(x, offset, mask, weight, ctx.geometry, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast("cpu", enabled=False):
            gradients = _backward(
                gradient, *ctx.saved_tensors, ctx.geometry, ctx.needs_input_grad[:4]
            )
        return *gradients, None, None, None


def _prepare(
    x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, geometry: dict[str, int]
) -> tuple[Sampler, Tensor, Tensor | None, Tensor, list[slice]]:
    """What both passes need: sampler, viewable offsets and masks, kernels (G, O / G, C / G K K)."""
    sampler = Sampler(x, tuple(weight.shape[-2:]), tuple(offset.shape[-2:]), **geometry)
    kernels = weight.to(sampler.dtype).reshape(x.shape[1] // weight.shape[1], -1, 1)
    kernels = kernels.reshape(len(kernels), -1, weight[0].numel())
    image_bytes = x.shape[1] * sampler.points * sampler.pixels * sampler.start.element_size()
    offset = _viewable(offset)
    mask = None if mask is None else _viewable(mask)
    return sampler, offset, mask, kernels, _chunks(len(x), image_bytes)


def _viewable(tensor: Tensor) -> Tensor:
    """Contiguous or channels_last: either way the pixels can be seen as one axis."""
    if tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor
    return tensor.contiguous()


def _forward(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    geometry: dict[str, int],
    dtype: torch.dtype,
) -> Tensor:
    sampler, offset, mask, kernels, chunks = _prepare(x, offset, mask, weight, geometry)
    out = x.new_empty(len(x), len(weight), *offset.shape[-2:], dtype=dtype)
    for chunk in chunks:
        columns = sampler.sample(sampler.images(x[chunk]), sampler.grid(offset[chunk]))
        n, _, points, pixels = columns.shape
        if mask is not None:
            columns *= mask[chunk].view(n, 1, points, pixels)
        columns = columns.view(n, len(kernels), -1, pixels)
        out[chunk].view(n, len(kernels), -1, pixels).copy_(kernels @ columns)
    return out


def _backward(
    gradient: Tensor,
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    geometry: dict[str, int],
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    sampler, offset, mask, kernels, chunks = _prepare(x, offset, mask, weight, geometry)
    wanted = zip((x, offset, mask, weight), needs, strict=True)
    d_x, d_offset, d_mask, d_weight = (torch.empty_like(t) if need else None for t, need in wanted)
    d_kernels = torch.zeros_like(kernels)
    for chunk in chunks:
        images, grid = sampler.images(x[chunk]), sampler.grid(offset[chunk])
        columns = sampler.sample(images, grid)
        n, _, points, pixels = columns.shape
        d_out = gradient[chunk].to(sampler.dtype).reshape(n, len(kernels), -1, pixels)
        d_columns = (kernels.transpose(1, 2) @ d_out).view_as(columns)
        if mask is not None:
            if d_mask is not None:
                d_mask[chunk].view(n, points, pixels).copy_((d_columns * columns).sum(1))
            modulation = mask[chunk].view(n, 1, points, pixels)
            columns *= modulation
            d_columns *= modulation
        columns = columns.view(n, len(kernels), -1, pixels)
        d_kernels += (d_out @ columns.transpose(2, 3)).sum(0)
        if d_x is not None or d_offset is not None:
            image, position = sampler.gradients(d_columns, images, grid, d_x is not None)
            if d_x is not None:
                d_x[chunk] = image
            if d_offset is not None:
                d_offset[chunk].view(position.shape).copy_(position * sampler.step)
    if d_weight is not None:
        d_weight.copy_(d_kernels.view_as(d_weight))
    return d_x, d_offset, d_mask, d_weight
