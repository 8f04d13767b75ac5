"""Static int8 quantisation of ONNX files through onnxruntime.

Weights are int8 with a scale per output channel, activations uint8 with a scale per tensor, which
onnxruntime computes faster on CPUs than int8 ones. Scales of activations are the ranges seen on
training images. Deformable convolutions stay float32.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LwbenchError

LAYERS = ("Conv", "Gemm", "MatMul")  # with weights; what sensitivity is measured of


def prepared(source: Path, target: Path) -> None:
    """Write a copy with inferred shapes and folded norms, which quantisation starts from."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with _silent():
        # shapes are known to the exporter; a second, symbolic inference fails on some of its nodes
        quant_pre_process(source, target, skip_symbolic_shape=True)


def layers(path: Path) -> list[str]:
    """The names of the nodes with weights, in the order of computation."""
    import onnx

    graph = onnx.load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    return [n.name for n in graph.node if n.op_type in LAYERS and weights & {*n.input}]


def quantize(
    source: Path, target: Path, batches: Iterable[np.ndarray], only: Sequence[str] | None = None
) -> None:
    """Write the int8 form of `source`, which `prepared` wrote.

    `batches`: images as the graph takes them. `only`: nodes to quantise, None for all that
    onnxruntime can. Raises LwbenchError where it fails.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    name = onnx.load(source, load_external_data=False).graph.input[0].name

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches: Iterator[np.ndarray] = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {name: batch}

    try:
        with _silent():
            quantize_static(
                source,
                target,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=None if only is None else list(only),
            )
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise LwbenchError(f"onnxruntime cannot quantise the network: {reason}") from error


class _silent:
    """Keep onnxruntime's advice, which is for its own tools, from the screen."""

    def __enter__(self) -> None:
        self._level = logging.root.manager.disable
        logging.disable(logging.WARNING)

    def __exit__(self, *details: Any) -> None:
        logging.disable(self._level)
