"""The counts of fvcore 0.1.5.post20221221, function by function, as it computes them.

fvcore traces a network and applies a formula by the name of each traced function. It prints its
counts as FLOPs, with one FLOP for a multiply-accumulate; they are MACs in the words used here.
Beside convolutions and matrix products it counts norms, pooling to a given size and resizing. It
has no formula for fused attention, recurrent layers and `baddbmm`, which it counts as nothing. The
formulas were written from its source, and `scripts/golden_rules.py` records what it prints.

One addition: our deformable layer counts as the convolution that it replaces, as under every rule.
"""

from collections import Counter
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

# Takes a function's arguments and its result; returns None where fvcore fails or counts nothing.
Formula = Callable[[tuple[Any, ...], Any], int | None]


def _addmm(args: tuple[Any, ...], out: Tensor) -> int:
    return args[1].numel() * args[2].shape[-1]


def _product(args: tuple[Any, ...], out: Tensor) -> int | None:
    """aten::matmul, mm, bmm; fvcore stops at a vector on the right."""
    a, b = args[:2]
    return a.numel() * b.shape[-1] if b.ndim > 1 else None


def _linear(args: tuple[Any, ...], out: Tensor) -> int:
    return args[0].numel() * args[1].shape[0]


def _convolution(args: tuple[Any, ...], out: Tensor) -> int | None:
    if any(isinstance(argument, str) for argument in args):
        return None  # padding by its name: a function of another name in the trace
    return args[0].shape[0] * args[1].numel() * prod(out.shape[2:])


def _transposed(args: tuple[Any, ...], out: Tensor) -> int:
    return args[0].shape[0] * args[1].numel() * prod(args[0].shape[2:])


def _recurrent_cell(args: tuple[Any, ...], out: Any) -> int:
    """aten::lstm_cell(x, state, w_ih, w_hh, ...), which is traced as two linear functions."""
    return args[0].shape[0] * (args[2].numel() + args[3].numel())


def _einsum(args: tuple[Any, ...], out: Tensor) -> int:
    """Half of the floating point operations that numpy states for the best order."""
    equation, operands = args[:2]
    # shapes are enough for numpy, which reads no element here
    arrays = [np.broadcast_to(np.float32(0), tuple(operand.shape)) for operand in operands]
    report = np.einsum_path(equation.replace(" ", ""), *arrays, optimize="optimal")[1]
    line = next(line for line in report.splitlines() if "optimized flop" in line.lower())
    return int(float(line.split(":")[-1]) / 2)


def _batch_norm(args: tuple[Any, ...], out: Tensor) -> int | None:
    """aten::batch_norm(x, weight, bias, mean, variance, training, ...)."""
    if args[5]:  # with the statistics of the batch, as a norm without running ones
        return _norm(1)(args, out)
    return args[0].numel() * (1 if args[1] is None else 2)


def _norm(weight: int) -> Formula:
    """fvcore's estimate for norms that compute statistics; `weight`: its place in the arguments."""

    def formula(args: tuple[Any, ...], out: Tensor) -> int:
        is_affine = len(args) > weight and args[weight] is not None
        return args[0].numel() * (5 if is_affine else 4)

    return formula


def _inputs(args: tuple[Any, ...], out: Tensor) -> int:
    return args[0].numel()


def _outputs(times: int) -> Formula:
    return lambda args, out: times * out.numel()


FORMULAS: dict[str, Formula] = {
    "aten.addmm": _addmm,
    **dict.fromkeys(("aten.matmul", "aten.mm", "aten.bmm"), _product),
    "aten.linear": _linear,
    **dict.fromkeys(("aten.conv1d", "aten.conv2d", "aten.conv3d"), _convolution),
    **{f"aten.conv_transpose{n}d": _transposed for n in (1, 2, 3)},
    **{f"aten.{kind}_cell": _recurrent_cell for kind in ("lstm", "gru", "rnn_tanh", "rnn_relu")},
    "aten.einsum": _einsum,
    "aten.batch_norm": _batch_norm,
    "aten.group_norm": _norm(2),
    "aten.layer_norm": _norm(2),
    "aten.instance_norm": _norm(1),
    "aten.upsample_nearest2d": _outputs(1),
    "aten.upsample_bilinear2d": _outputs(4),
    "aten.adaptive_avg_pool2d": _inputs,
    "aten.grid_sampler": _outputs(4),
}
# What fvcore counts as nothing although it contains matrix products or is a norm.
NOT_COVERED = frozenset(
    {
        *(f"aten.{product}" for product in ("addbmm", "addmv", "baddbmm", "bilinear", "dot", "mv")),
        *(f"aten.{product}" for product in ("chain_matmul", "inner", "linalg_multi_dot")),
        *(f"aten.{network}" for network in ("gru", "lstm", "rnn_relu", "rnn_tanh")),
        "aten.rms_norm",
        "aten.scaled_dot_product_attention",
        "aten.tensordot",
        "torchvision.deform_conv2d",
    }
)


class Fvcore:
    """Counts by module name, and the functions that fvcore counts as nothing, with their calls."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.not_covered: Counter[str] = Counter()

    def add(self, module: str, function: str, args: tuple[Any, ...], out: Any) -> None:
        """Count a function that a module's own forward calls."""
        formula = FORMULAS.get(function)
        count = formula(args, out) if formula is not None else None
        if count is not None:
            self.counts[module] += count
        elif formula is not None or function in NOT_COVERED:
            self.not_covered[function.partition(".")[2]] += 1
