"""Numeric precision of the forward pass, and its compilation."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..paths import cache_home
from ..runs.keys import Precision
from .compile_cache import use_cache

Autocast = Callable[[], AbstractContextManager[object]]


def resolved_precision(precision: Precision, device: torch.device) -> str:
    """Return what `precision` means on `device`. Raises UsageError if the device cannot do it."""
    if precision == "auto":
        # on CPUs depthwise networks train more slowly in bf16 than in fp32
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return "bf16" if has_bf16 else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("precision=fp16 needs a GPU; on a CPU choose fp32 or bf16")
    return precision


def autocast(precision: str, device: torch.device) -> Autocast:
    """Return a factory of contexts that compute in bf16 or fp16; for fp32 they do nothing."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    # the dtype is ignored where autocast is disabled, but must be one that the device knows
    return partial(torch.autocast, device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return `model` compiled by torch.compile; without a compiler it runs as it is."""
    import torch._dynamo

    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        folder = use_cache(cache_home() / "inductor" / torch.__version__)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    # what cannot be compiled, or has no compiler, is executed as written
    torch._dynamo.config.suppress_errors = True
    return torch.compile(model)
