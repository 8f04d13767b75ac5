"""Deformable convolution in plain PyTorch operators: slower, but it runs and traces anywhere.

Compilers, tracers and exporters record it, the Triton kernel is compared with it before its first
use, and it is the only implementation with a second derivative.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def reference(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: int,
    padding: int,
    dilation: int,
) -> Tensor:
    """Compute `deform_conv2d` without bias: sample all windows, then multiply with the kernels."""
    n, c, h, w = x.shape
    kh, kw = weight.shape[-2:]
    oh, ow = offset.shape[-2:]
    groups = c // weight.shape[1]
    # half precision has too few bits for positions in a map of more than 256 pixels
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    # NaN or infinite coordinates crash the CPU backward of grid_sample with a segmentation fault
    offset = offset.to(dtype).nan_to_num(0.0, 0.0, 0.0).view(n, kh * kw, 2, oh, ow)
    rows = torch.arange(oh, device=x.device, dtype=dtype) * stride - padding
    cols = torch.arange(ow, device=x.device, dtype=dtype) * stride - padding
    tap = torch.arange(kh * kw, device=x.device)
    # positions of the undeformed grid, (1, K K, OH, 1) and (1, K K, 1, OW)
    base_y = rows.view(1, 1, oh, 1) + (tap // kw * dilation).to(dtype).view(1, -1, 1, 1)
    base_x = cols.view(1, 1, 1, ow) + (tap % kw * dilation).to(dtype).view(1, -1, 1, 1)
    # two pixels outside the map everything is zero; the clamp avoids integer overflow further out
    y = (offset[:, :, 0] + base_y).clamp(-2, h + 1)
    x_position = (offset[:, :, 1] + base_x).clamp(-2, w + 1)
    # pixel centres to grid_sample's [-1, 1] (align_corners=False): (2 p + 1) / size - 1
    grid = torch.stack([(2 * x_position + 1) / w - 1, (2 * y + 1) / h - 1], -1)
    # all K * K points are sampled in one call, as K * K times as many rows
    sampled = F.grid_sample(
        x.to(dtype), grid.view(n, kh * kw * oh, ow, 2), "bilinear", "zeros", align_corners=False
    )
    sampled = sampled.view(n, c, kh * kw, oh, ow).to(weight.dtype)
    if mask is not None:
        # all channels share a point's mask
        sampled = sampled * mask.unsqueeze(1)
    # im2col: one matrix product a group, (O / groups, C / groups K K) @ (C / groups K K, OH OW)
    columns = sampled.view(n, groups, c // groups * kh * kw, oh * ow).to(weight.dtype)
    kernels = weight.reshape(groups, weight.shape[0] // groups, -1)
    return torch.matmul(kernels, columns).view(n, weight.shape[0], oh, ow)
