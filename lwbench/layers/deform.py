"""Deformable convolution: the operator, the layer (DC) and its low-cost form (LDC).

Modulated deformable convolution (Zhu et al., DCNv2, CVPR 2019), ldc eq. 1: y(p) = sum_n w_n x(p +
p_n + dp_n) dm_n with N = K * K sampling points. DC learns offsets dp and masks dm with ordinary K x
K convolutions, LDC (ldc section 3.1, eq. 7) with depthwise separable ones.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .deform_cpu import DeformConv

Backend = Literal["grid_sample", "cpu", "triton", "torchvision"]
Branch = Literal["dc", "ldc"]
Offsets = Literal["separate", "shared"]


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> Tensor:
    """Modulated deformable convolution, equal to `torchvision.ops.deform_conv2d`.

    x (N, C, H, W); offset (N, 2 * K * K, OH, OW) in pixels, (dy, dx) interleaved a sampling point;
    mask (N, K * K, OH, OW), or None for ones; weight (O, C / groups, K, K). Returns (N, O, OH, OW).
    Outside the map the value is zero, which is what clamping the position on the zero-padded map
    gives (ldc eq. 1). An offset that is not finite counts as zero. Coordinates are computed in
    float32, whatever the precision of `x`. Which implementation runs: see `backend`.
    """
    run = _BACKENDS[_fastest(x, offset, weight) if _forced is None else _forced]
    out = run(x, offset, mask, weight, stride, padding, dilation)
    return out if bias is None else out + bias.view(1, -1, 1, 1)


@contextmanager
def backend(name: Backend) -> Iterator[None]:
    """Run every deformable convolution inside the `with` block by one implementation.

    "grid_sample": plain PyTorch, for tracing and any device, the only one with a second derivative;
    "cpu": the fast one for CPUs; "triton": the fused kernel for CUDA; "torchvision": the oracle.
    Without it the choice follows from the device. Raises ValueError for another name.
    """
    global _forced
    if name not in _BACKENDS:
        raise ValueError(f"no deformable backend {name!r}: {', '.join(_BACKENDS)}")
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


def _fastest(x: Tensor, offset: Tensor, weight: Tensor) -> Backend:
    """The backend for `x`; compilers, exporters and fake tensors get what they can look into."""
    if torch.compiler.is_compiling() or type(x) not in (Tensor, nn.Parameter):
        return "grid_sample"
    if x.device.type == "cpu":
        return "cpu"
    if x.device.type == "cuda" and find_spec("triton"):
        from . import deform_triton  # Triton is absent from some platforms

        if deform_triton.suits(x, offset, weight) and deform_triton.works(x.device):
            return "triton"
    return "grid_sample"


def _grid_sample(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: int,
    padding: int,
    dilation: int,
) -> Tensor:
    n, c, h, w = x.shape
    kh, kw = weight.shape[-2:]
    oh, ow = offset.shape[-2:]
    groups = c // weight.shape[1]
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    # NaN or infinite coordinates crash the CPU backward of grid_sample with a segmentation fault
    offset = offset.to(dtype).nan_to_num(0.0, 0.0, 0.0).view(n, kh * kw, 2, oh, ow)
    rows = torch.arange(oh, device=x.device, dtype=dtype) * stride - padding
    cols = torch.arange(ow, device=x.device, dtype=dtype) * stride - padding
    tap = torch.arange(kh * kw, device=x.device)
    base_y = rows.view(1, 1, oh, 1) + (tap // kw * dilation).to(dtype).view(1, -1, 1, 1)
    base_x = cols.view(1, 1, 1, ow) + (tap % kw * dilation).to(dtype).view(1, -1, 1, 1)
    y = (offset[:, :, 0] + base_y).clamp(-2, h + 1)
    x_position = (offset[:, :, 1] + base_x).clamp(-2, w + 1)
    # pixel centres to grid_sample's [-1, 1] (align_corners=False): (2 p + 1) / size - 1
    grid = torch.stack([(2 * x_position + 1) / w - 1, (2 * y + 1) / h - 1], -1)
    sampled = F.grid_sample(
        x.to(dtype), grid.view(n, kh * kw * oh, ow, 2), "bilinear", "zeros", align_corners=False
    )
    sampled = sampled.view(n, c, kh * kw, oh, ow).to(weight.dtype)
    if mask is not None:
        sampled = sampled * mask.unsqueeze(1)
    columns = sampled.view(n, groups, c // groups * kh * kw, oh * ow).to(weight.dtype)
    kernels = weight.view(groups, weight.shape[0] // groups, -1)
    return torch.matmul(kernels, columns).view(n, weight.shape[0], oh, ow)


def _torchvision(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: int,
    padding: int,
    dilation: int,
) -> Tensor:
    from torchvision.ops import deform_conv2d as oracle  # slow to import, and an oracle only

    offset = offset.nan_to_num(0.0, 0.0, 0.0)
    return oracle(x, offset, weight, None, stride, padding, dilation, mask)


def _triton(*arguments: Any) -> Tensor:
    from .deform_triton import FusedDeformConv  # Triton is absent from some platforms

    return FusedDeformConv.apply(*arguments)


_BACKENDS: dict[str, Callable[..., Tensor]] = {
    "grid_sample": _grid_sample,
    "cpu": DeformConv.apply,
    "triton": _triton,
    "torchvision": _torchvision,
}
_forced: str | None = None


class DeformConv2d(nn.Module):
    """Modulated deformable convolution layer, (N, I, H, W) -> (N, O, OH, OW), in place of a K x K
    convolution.

    `branch="dc"`: offsets and masks from ordinary K x K convolutions, 3 N H W I K^2 MACs more (ldc
    eq. 6); `branch="ldc"`: from depthwise separable ones, H W I K^2 + 3 N H W I more (eq. 7). For
    "ldc" the counts of ldc table 4 fit two readings alike: `offsets="separate"`, a biased depthwise
    and pointwise pair each for offsets and masks; `offsets="shared"`, one depthwise for both, each
    half with batch norm and without bias.

    Offsets start at zero and masks at one half everywhere, so that the layer starts as the plain
    convolution up to a factor that the batch norm after it absorbs.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        branch: Branch = "dc",
        offsets: Offsets = "separate",
    ) -> None:
        super().__init__()
        self.stride, self.dilation = stride, dilation
        self.padding = dilation * (kernel - 1) // 2 if padding is None else padding
        self.points = kernel * kernel
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel, stride, self.padding, dilation, groups, bias=False
        )
        geometry = (kernel, stride, self.padding, dilation)

        def plain(channels: int) -> nn.Module:
            return nn.Conv2d(in_channels, channels, *geometry)

        def separable(channels: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(in_channels, in_channels, *geometry, groups=in_channels),
                nn.Conv2d(in_channels, channels, 1),
            )

        if branch == "ldc" and offsets == "shared":
            self.offset_mask = nn.Sequential(
                nn.Conv2d(in_channels, in_channels, *geometry, groups=in_channels, bias=False),
                nn.BatchNorm2d(in_channels),
                nn.Conv2d(in_channels, 3 * self.points, 1, bias=False),
                nn.BatchNorm2d(3 * self.points),
            )
        else:
            convolution = plain if branch == "dc" else separable
            self.offset = convolution(2 * self.points)
            self.mask = convolution(self.points)
        self.reset_offsets()

    def branches(self) -> list[nn.Module]:
        """The networks that yield offsets and masks."""
        return [getattr(self, n) for n in ("offset_mask", "offset", "mask") if hasattr(self, n)]

    def offset_parameters(self) -> list[nn.Parameter]:
        """Parameters of offsets and masks; an optimizer may train them at a rate of their own."""
        return [parameter for branch in self.branches() for parameter in branch.parameters()]

    def reset_offsets(self) -> None:
        """Offsets to zero, masks to one half.

        Only the last module of a branch is zeroed, or nothing would ever train it.

        Where the last convolution feeds a batch norm ("shared"), the norm's scale is zeroed in its
        place: behind a zeroed convolution the norm would blow the first step's gradient up by 1 /
        sqrt(eps).
        """
        for branch in self.branches():
            last = branch[-1] if isinstance(branch, nn.Sequential) else branch
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def offsets_and_masks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Finite offsets in pixels (N, 2 K K, OH, OW) and masks in [0, 1] (N, K K, OH, OW)."""
        if hasattr(self, "offset_mask"):
            offset, mask = self.offset_mask(x).split([2 * self.points, self.points], 1)
        else:
            offset, mask = self.offset(x), self.mask(x)
        return offset.nan_to_num(0.0, 0.0, 0.0), mask.sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        offset, mask = self.offsets_and_masks(x)
        return deform_conv2d(
            x,
            offset,
            mask,
            self.conv.weight,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )


Stem = Literal["conv", "dc", "ldc"]


def stem_conv(
    in_channels: int,
    out_channels: int,
    kernel: int = 3,
    *,
    stride: int = 2,
    stem: Stem = "conv",
    offsets: Offsets = "separate",
    bias: bool = False,
) -> nn.Module:
    """A network's first convolution, plain or deformable.

    "a seamless replacement" (ldc, section 3.1).
    """
    if stem == "conv":
        return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=bias)
    return DeformConv2d(
        in_channels, out_channels, kernel, stride=stride, branch=stem, offsets=offsets
    )
