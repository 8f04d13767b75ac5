"""Exported networks in their runtimes, as functions from images to logits."""

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from ..errors import LwbenchError

if TYPE_CHECKING:
    from .export import Format

Runtime = Callable[[np.ndarray], np.ndarray]  # (N, ...) images -> (N, classes) float32 logits


def runtime(format: "Format", folder: Path, *, threads: int | None = None) -> Runtime:
    """Load an exported network; `threads`: that it computes with, None for as many as PyTorch.

    Raises LwbenchError where the runtime refuses the file.
    """
    loaders = {"onnx": _onnx, "torch_export": _program, "openvino": _openvino}
    try:
        return loaders[format](folder, threads)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:300]
        raise LwbenchError(f"{format}: the runtime cannot load the file: {reason}") from error


def onnx_file(path: Path, threads: int | None = None) -> Runtime:
    """Load an ONNX file into onnxruntime, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    # by default it starts a thread per core, whatever torch was told
    options.intra_op_num_threads = threads or _torch_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def run(images: np.ndarray) -> np.ndarray:
        (logits,) = session.run(None, {given.name: images})
        return np.asarray(logits)

    return run


def padded(run: Runtime, batch: int | None) -> Runtime:
    """A runtime that takes at most `batch` images, filling up batches of exactly that size."""
    return lambda images: run(filled(images, batch))[: len(images)]


def filled(images: np.ndarray, batch: int | None) -> np.ndarray:
    """A batch as a graph of `batch` images takes it: the last image is repeated at the end."""
    missing = 0 if batch is None else batch - len(images)
    return np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images


def latencies(runs: Sequence[Runtime], images: np.ndarray, rounds: int = 50) -> list[float]:
    """Median time of each runtime on the same batch, in milliseconds; they take turns."""
    seconds = np.empty((len(runs), rounds))
    for _ in range(5):  # the first calls allocate memory
        for run in runs:
            run(images)
    for round in range(rounds):
        for index, run in enumerate(runs):
            begin = perf_counter()
            run(images)
            seconds[index, round] = perf_counter() - begin
    return [float(1000 * value) for value in np.median(seconds, axis=1)]


def _torch_threads() -> int:
    import torch  # not by runtimes whose number of threads is given: they need no torch

    return torch.get_num_threads()


def _onnx(folder: Path, threads: int | None) -> Runtime:
    return onnx_file(folder / "model.onnx", threads)


def _program(folder: Path, threads: int | None) -> Runtime:
    import torch
    import torchvision  # noqa: F401  # registers its deformable convolution

    network = torch.export.load(folder / "model.pt2").module()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            out: np.ndarray = network(torch.from_numpy(images)).numpy()
        return out

    return run


def _openvino(folder: Path, threads: int | None) -> Runtime:
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": "f32"}  # bfloat16 by default on CPUs that have it
    hints["INFERENCE_NUM_THREADS"] = str(threads or _torch_threads())
    network = openvino.Core().compile_model(folder / "model.xml", "CPU", hints)
    return lambda images: np.array(network(images)[0])
