"""The deformable convolution operator and the choice of its implementation.

Modulated deformable convolution (Zhu et al., DCNv2, CVPR 2019), ldc eq. 1: y(p) = sum_n w_n x(p +
p_n + dp_n) dm_n with N = K * K sampling points.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from .deform_cpu import DeformConv
from .deform_reference import reference

Backend = Literal["grid_sample", "cpu", "triton", "torchvision"]


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
    float32, or in float64 for float64 inputs. Which implementation runs: see `backend`.

    Raises RuntimeError, as torchvision does, where the shapes do not fit together.
    """
    if not _is_recorded():  # sizes are symbols then, and comparing them would fix them
        _check_shapes(x, offset, mask, weight, bias, stride, padding, dilation)
    run = _BACKENDS[_fastest(x, offset, weight) if _forced is None else _forced]
    out = run(x, offset, mask, weight, stride, padding, dilation)
    # no backend adds the bias: the layers here have none, since a batch norm follows them
    return out if bias is None else out + bias.view(1, -1, 1, 1)


def _check_shapes(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
) -> None:
    """Raise RuntimeError unless the arguments of `deform_conv2d` fit together.

    The backends take their sizes from `offset` and `weight`: wrong shapes would give a wrong result
    rather than an error.
    """
    if x.dim() != 4 or weight.dim() != 4:
        raise RuntimeError(
            "deform_conv2d takes x (N, C, H, W) and weight (O, C / groups, K, K), got shapes "
            f"{tuple(x.shape)} and {tuple(weight.shape)}"
        )
    out_channels, per_group, *kernel = weight.shape
    if x.shape[1] % per_group or out_channels % (x.shape[1] // per_group):
        raise RuntimeError(
            f"deform_conv2d: a weight of shape {tuple(weight.shape)} does not divide "
            f"{x.shape[1]} channels of x into groups"
        )
    # the output's size follows from the geometry; offsets and masks must have exactly that size
    sides = zip(x.shape[2:], kernel, strict=True)
    out = [(side + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for side, k in sides]
    points = kernel[0] * kernel[1]
    _check_shape("offset", offset, (x.shape[0], 2 * points, *out))
    if mask is not None:
        _check_shape("mask", mask, (x.shape[0], points, *out))
    if bias is not None:
        _check_shape("bias", bias, (out_channels,))
    if min(out) <= 0:
        raise RuntimeError(f"deform_conv2d: the output has {out[0]} x {out[1]} pixels")


def _check_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected:
        raise RuntimeError(
            f"deform_conv2d: {name} has shape {tuple(tensor.shape)}, expected {expected}"
        )


@contextmanager
def backend(name: Backend) -> Iterator[None]:
    """Run every deformable convolution inside the `with` block by one implementation.

    "grid_sample": plain PyTorch, for tracing and any device, the only one with a second derivative;
    "cpu": optimised for CPUs; "triton": the fused kernel for CUDA; "torchvision": the reference of
    the tests. Without this context the choice follows from the device. Raises ValueError for
    another name.
    """
    global _forced
    if name not in _BACKENDS:
        raise ValueError(f"no deformable backend {name!r}: {', '.join(_BACKENDS)}")
    # blocks may be nested: the outer one's choice is restored
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


def _fastest(x: Tensor, offset: Tensor, weight: Tensor) -> Backend:
    """Return the backend for `x`: the fastest that its device and its caller can use."""
    # Compilers, tracers, exporters and fake tensors see plain operators only: an autograd function
    # would be opaque to them, and its loops over the batch would be recorded for one batch size.
    if _is_recorded() or type(x) not in (Tensor, nn.Parameter):
        return "grid_sample"
    if x.device.type == "cpu":
        return "cpu"
    if x.device.type == "cuda" and find_spec("triton"):
        from . import deform_triton  # imported late: Triton is absent from some platforms

        # the kernel is compared with the reference before its first use on a device
        if deform_triton.suits(x, offset, weight) and deform_triton.works(x.device, x.dtype):
            return "triton"
    return "grid_sample"


def _is_recorded() -> bool:
    """Return whether a compiler or tracer is recording the operators that run."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _torchvision(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    stride: int,
    padding: int,
    dilation: int,
) -> Tensor:
    from torchvision.ops import deform_conv2d as oracle  # slow to import, and for tests only

    # torchvision crashes on offsets that are not finite; here they count as zero
    offset = offset.nan_to_num(0.0, 0.0, 0.0)
    return oracle(x, offset, weight, None, stride, padding, dilation, mask)


def _triton(*arguments: Any) -> Tensor:
    from .deform_triton import FusedDeformConv  # imported late: absent from some platforms

    return cast(Tensor, FusedDeformConv.apply(*arguments))


_BACKENDS: dict[str, Callable[..., Tensor]] = {
    "grid_sample": reference,
    "cpu": DeformConv.apply,
    "triton": _triton,
    "torchvision": _torchvision,
}
# set by `backend`; process-wide, since autograd calls back from threads of its own
_forced: str | None = None
