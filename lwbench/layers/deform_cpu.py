"""Deformable convolution on a CPU: an autograd function around PyTorch's own bilinear sampler.

Two things make it several times faster than an im2col with a scattering gradient: the image of a
stem needs no gradient, so none is computed, and the batch is processed a few images at a time, so
that coordinates, samples and their gradients stay in the cache. Samples are recomputed in the
backward pass: that costs little more than reading them back, and K * K * C planes per layer need
not be kept.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Bytes of columns (C * K * K planes) per thread in one chunk: about the size of a level-2 cache.
CHUNK_BYTES = 1 << 20
# Up to this many channels, one product per channel is cheaper than transposing channels_last maps.
FEW_CHANNELS = 4


class Planes:
    """Columns as (n, C, K K, pixels): for contiguous maps, any channels and groups."""

    memory_format = torch.contiguous_format

    def __init__(self, weight: Tensor, groups: int) -> None:
        # (groups, O / groups, C / groups * K K): one batched product covers all groups
        self.kernels = weight.reshape(groups, len(weight) // groups, -1)

    def positions(self, offset: Tensor) -> Tensor:
        """(n, 2 K K, OH, OW) -> (n, K K, pixels, 2), a view."""
        n, channels, height, width = offset.shape
        return offset.view(n, channels // 2, 2, height * width).transpose(2, 3)

    def points(self, mask: Tensor) -> Tensor:
        """(n, K K, OH, OW) -> (n, K K, pixels), a view."""
        return mask.view(*mask.shape[:2], -1)

    def convolve(self, columns: Tensor) -> Tensor:
        """Columns times kernels, (n, O, pixels)."""
        n, _, _, pixels = columns.shape
        return (self.kernels @ columns.view(n, len(self.kernels), -1, pixels)).view(n, -1, pixels)

    def spread(self, d_out: Tensor, columns: Tensor) -> Tensor:
        """Gradient of the columns from that of the output, (n, O, pixels)."""
        d_out = d_out.reshape(len(d_out), len(self.kernels), -1, d_out.shape[-1])
        return (self.kernels.transpose(1, 2) @ d_out).view_as(columns)

    def correlate(self, d_out: Tensor, columns: Tensor) -> Tensor:
        """Gradient of the kernels, (O, C / groups * K K)."""
        d_out = d_out.reshape(len(d_out), len(self.kernels), -1, d_out.shape[-1])
        columns = columns.view(len(d_out), len(self.kernels), -1, d_out.shape[-1])
        # summed over the chunk's images; `_backward` adds the chunks up
        return (d_out @ columns.transpose(2, 3)).sum(0).flatten(0, 1)


class Pixels:
    """Columns as (n, C, pixels, K K): for channels_last maps of few channels, as a stem's.

    No tensor has to be transposed: offsets, masks, output and their gradients have this layout.
    """

    memory_format = torch.channels_last

    def __init__(self, weight: Tensor, groups: int) -> None:
        assert groups == 1  # `_prepare` chooses this layout for ungrouped kernels only
        self.kernels = weight.flatten(2).transpose(0, 1).contiguous()  # (C, O, K K)

    def positions(self, offset: Tensor) -> Tensor:
        """(n, 2 K K, OH, OW) -> (n, pixels, K K, 2), a view."""
        n, channels, height, width = offset.shape
        return offset.permute(0, 2, 3, 1).view(n, height * width, channels // 2, 2)

    def points(self, mask: Tensor) -> Tensor:
        """(n, K K, OH, OW) -> (n, pixels, K K), a view."""
        return mask.permute(0, 2, 3, 1).flatten(1, 2)

    def convolve(self, columns: Tensor) -> Tensor:
        """Columns times kernels, (n, O, pixels)."""
        n, channels, pixels, _ = columns.shape
        # one small product per channel, accumulated in place: no copy of the columns is made
        out = columns.new_empty(n, pixels, self.kernels.shape[1])
        for image in range(n):
            torch.mm(columns[image, 0], self.kernels[0].t(), out=out[image])
            for c in range(1, channels):
                out[image].addmm_(columns[image, c], self.kernels[c].t())
        return out.transpose(1, 2)

    def spread(self, d_out: Tensor, columns: Tensor) -> Tensor:
        """Gradient of the columns from that of the output, (n, O, pixels)."""
        d_columns = torch.empty_like(columns)
        for image, channel in ((i, c) for i in range(len(d_out)) for c in range(len(self.kernels))):
            torch.mm(d_out[image].t(), self.kernels[channel], out=d_columns[image, channel])
        return d_columns

    def correlate(self, d_out: Tensor, columns: Tensor) -> Tensor:
        """Gradient of the kernels, (O, C * K K)."""
        d_kernels = torch.zeros_like(self.kernels)
        for image, channel in ((i, c) for i in range(len(d_out)) for c in range(len(self.kernels))):
            d_kernels[channel].addmm_(d_out[image], columns[image, channel])
        return d_kernels.transpose(0, 1).flatten(1)


class Sampler:
    """Samples of some images at the K * K shifted points of every window.

    PyTorch's sampler takes positions as fractions of the map's size. The map is therefore placed on
    a zero-filled square whose side is a power of two: pixel numbers are then converted to fractions
    and back without rounding, and an offset of exactly zero (as at the start of a training) gets
    the gradient to its right, as in `torchvision.ops`, rather than one that rounding selects.
    """

    def __init__(
        self,
        x: Tensor,
        kernel: tuple[int, int],
        out: tuple[int, int],
        layout: Planes | Pixels,
        *,
        stride: int,
        padding: int,
        dilation: int,
    ) -> None:
        # everything below depends on sizes alone and is computed once for all chunks of the batch
        self.dtype = compute_dtype(x)
        self.layout = layout
        self.height, self.width = x.shape[-2:]
        self.side = 1 << (max(self.height, self.width) - 1).bit_length()
        self.step = 2 / self.side  # one pixel, in the sampler's coordinates from -1 to 1
        rows, columns = (torch.arange(n, dtype=self.dtype) * stride - padding for n in out)
        down, right = (torch.arange(n, dtype=self.dtype) * dilation for n in kernel)
        y = down.view(-1, 1, 1, 1) + rows.view(-1, 1)
        # (1, 2 K K, OH, OW): the undeformed positions in the order of the offsets
        position = torch.stack(torch.broadcast_tensors(y, right.view(-1, 1, 1) + columns), 2)
        position = position.view(1, -1, *out).contiguous(memory_format=layout.memory_format)
        self.start = layout.positions(position) * self.step + (1 / self.side - 1)
        self.canvas: Tensor | None = None

    def images(self, x: Tensor) -> Tensor:
        """(n, C, H, W) of any float type -> (n, C, side, side), transposed.

        The sampler expects (x, y) while offsets are (y, x): transposing the map, a view, avoids
        swapping the offsets.
        """
        # a map that is such a square already is used as it is
        if self.height == self.width == self.side and x.dtype == self.dtype:
            return x.transpose(2, 3)
        # one canvas for all chunks: its border is zeroed once and never written again
        if self.canvas is None:
            self.canvas = x.new_zeros(*x.shape[:2], self.side, self.side, dtype=self.dtype)
        canvas = self.canvas[: len(x)]
        canvas[..., : self.height, : self.width] = x
        return canvas.transpose(2, 3)

    def grid(self, offset: Tensor) -> Tensor:
        """Offsets (n, 2 K K, OH, OW) in pixels -> finite positions in the layout's order."""
        # a coordinate that is not finite crashes the sampler's backward pass
        grid = self.layout.positions(offset.to(self.dtype)).nan_to_num(0.0, 0.0, 0.0)
        torch.add(self.start, grid, alpha=self.step, out=grid)
        # samples far outside are zero; the clamp keeps the sampler's integers from overflowing
        return grid.clamp_(-4, 4)

    def sample(self, images: Tensor, grid: Tensor) -> Tensor:
        """Return the columns, in the layout's order."""
        # modes: bilinear, zeros outside, align_corners=False
        return torch.ops.aten.grid_sampler_2d(images, grid, 0, 0, False)

    def gradients(
        self, d_columns: Tensor, images: Tensor, grid: Tensor, needs_image: bool
    ) -> tuple[Tensor | None, Tensor]:
        """Return the gradients of the images (n, C, H, W), if needed, and of the offsets."""
        image, position = torch.ops.aten.grid_sampler_2d_backward(
            d_columns, images, grid, 0, 0, False, [needs_image, True]
        )
        if needs_image:
            # undo the transposition and drop the canvas's border
            image = image.transpose(2, 3)[..., : self.height, : self.width]
        # from the sampler's coordinates to pixels: the chain rule's factor
        return image if needs_image else None, position.mul_(self.step)


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return the precision of coordinates: half precision has only 8 or 11 significant bits."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


class DeformConv(torch.autograd.Function):
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
        ctx.save_for_backward(x, offset, mask, weight)
        ctx.geometry = {"stride": stride, "padding": padding, "dilation": dilation}
        # the output has autocast's type as a convolution's would; inside, types are chosen here
        autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if autocast else x.dtype
        with torch.autocast("cpu", enabled=False):
            return _forward(x, offset, mask, weight, ctx.geometry, dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, offset, mask, weight = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            gradients = _backward(
                gradient, x, offset, mask, weight, ctx.geometry, ctx.needs_input_grad[:4]
            )
        return *gradients, None, None, None


def _prepare(
    x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, geometry: dict[str, int]
) -> tuple[Sampler, Tensor, Tensor | None, list[slice]]:
    """Return what both passes need: sampler, offsets and masks in its layout, batch slices."""
    groups = x.shape[1] // weight.shape[1]
    # a 1 x 1 map is contiguous in both formats: treat it as the general case
    turned = offset.is_contiguous(memory_format=torch.channels_last) and not offset.is_contiguous()
    order = Pixels if turned and groups == 1 and x.shape[1] <= FEW_CHANNELS else Planes
    layout = order(weight.to(compute_dtype(x)), groups)
    kernel, out = (weight.shape[-2], weight.shape[-1]), (offset.shape[-2], offset.shape[-1])
    sampler = Sampler(x, kernel, out, layout, **geometry)
    # copies only where the layout of offsets or masks differs from what the products need
    offset = offset.contiguous(memory_format=layout.memory_format)
    mask = None if mask is None else mask.contiguous(memory_format=layout.memory_format)
    image_bytes = sampler.start.nbytes // 2 * x.shape[1]
    # at least one image per thread: the sampler distributes images over threads
    step = torch.get_num_threads() * max(1, CHUNK_BYTES // max(1, image_bytes))
    return sampler, offset, mask, [slice(i, i + step) for i in range(0, len(x), step)]


def _forward(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    geometry: dict[str, int],
    dtype: torch.dtype,
) -> Tensor:
    sampler, offset, mask, chunks = _prepare(x, offset, mask, weight, geometry)
    layout = sampler.layout
    size = len(x), len(weight), *offset.shape[-2:]
    # in the layout that the next layer expects: that of the input
    out = x.new_empty(size, dtype=dtype).to(memory_format=layout.memory_format)
    for chunk in chunks:
        columns = sampler.sample(sampler.images(x[chunk]), sampler.grid(offset[chunk]))
        if mask is not None:
            # all channels share a point's mask
            columns *= layout.points(mask[chunk]).unsqueeze(1)
        out[chunk] = layout.convolve(columns).unflatten(2, out.shape[-2:])
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
    sampler, offset, mask, chunks = _prepare(x, offset, mask, weight, geometry)
    layout = sampler.layout
    d_x, d_offset, d_mask, d_weight = (
        torch.empty_like(tensor) if need and tensor is not None else None
        for tensor, need in zip((x, offset, mask, weight), needs, strict=True)
    )
    # accumulated in the computing precision: in bf16 a sum over many chunks would stop growing
    d_kernels = torch.zeros(len(weight), weight[0].numel(), dtype=sampler.dtype)
    for chunk in chunks:
        # the samples are computed again rather than kept since the forward pass
        images, grid = sampler.images(x[chunk]), sampler.grid(offset[chunk])
        columns = sampler.sample(images, grid)
        d_out = gradient[chunk].to(sampler.dtype, memory_format=layout.memory_format).flatten(2)
        d_columns = layout.spread(d_out, columns)
        # the mask's gradient needs the samples before they are modulated
        if d_mask is not None:
            layout.points(d_mask[chunk]).copy_((d_columns * columns).sum(1))
        if mask is not None:
            modulation = layout.points(mask[chunk]).unsqueeze(1)
            columns *= modulation
            d_columns *= modulation
        d_kernels += layout.correlate(d_out, columns)
        if d_x is not None or d_offset is not None:
            image, position = sampler.gradients(d_columns, images, grid, d_x is not None)
            if d_x is not None and image is not None:
                d_x[chunk] = image
            if d_offset is not None:
                layout.positions(d_offset[chunk]).copy_(position)
    if d_weight is not None:
        d_weight.copy_(d_kernels.view(weight.shape))
    return d_x, d_offset, d_mask, d_weight
