"""Networks as files for runtimes: ONNX, PyTorch's exported programs, OpenVINO.

All formats start from the same exported program. OpenVINO converts that program rather than the
ONNX file, from which it does not read deformable convolutions.
"""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import LwbenchError, UsageError
from ..layers.deform import DeformConv2d
from ..layers.deform_operator import backend

Format = Literal["onnx", "torch_export", "openvino"]
Deform = Literal["operator", "decompose"]
OPSET = 20  # the first at which exporter and onnxruntime agree on deformable convolution
FILES: dict[str, tuple[str, ...]] = {
    "onnx": ("model.onnx",),
    "torch_export": ("model.pt2",),
    "openvino": ("model.xml", "model.bin"),
}
INPUT, OUTPUT = "images", "logits"


def program(
    model: nn.Module, example: Tensor, *, batch: int | None, deform: Deform = "operator"
) -> "torch.export.ExportedProgram":
    """Record a network in evaluation mode as a graph of PyTorch's operators.

    `example`: one input without the batch dimension, whose shape and type the graph requires.
    `batch`: the number of images of every batch, None for any. `deform`: deformable convolutions as
    torchvision's operator, or decomposed into grid_sample and matrix products. Raises LwbenchError
    if the network cannot be recorded.
    """
    model.eval()
    # an example of one image would fix what is broadcast over the batch
    images = torch.stack([example] * (batch or 2))
    shapes = None if batch else {0: torch.export.Dim("batch")}
    is_deformable = any(isinstance(module, DeformConv2d) for module in model.modules())
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(torch.no_grad())
        if is_deformable:
            name: Literal["torchvision", "grid_sample"]
            name = "torchvision" if deform == "operator" else "grid_sample"
            stack.enter_context(backend(name))
        try:
            return torch.export.export(model, (images,), dynamic_shapes=(shapes,))
        except Exception as error:
            hint = "\nbatch=1 exports it for single images" if batch is None else ""
            raise LwbenchError(f"the network cannot be exported: {_reason(error)}{hint}") from error


def write(found: "torch.export.ExportedProgram", format: Format, folder: Path) -> None:
    """Write `FILES[format]` into a folder.

    Raises UsageError where the format's packages are missing, LwbenchError where it has no operator
    that the network needs.
    """
    writer = {"onnx": _write_onnx, "torch_export": _write_program, "openvino": _write_openvino}
    try:
        with _quiet():
            writer[format](found, folder)
    except (LwbenchError, OSError):
        raise
    except Exception as error:
        raise LwbenchError(f"{format} cannot express the network: {_reason(error)}") from error


def require(format: Format) -> None:
    """Raise UsageError where a format's packages are not installed."""
    import importlib

    needed = {
        "onnx": ("onnx", "onnxscript", "onnxruntime"),
        "torch_export": (),
        "openvino": ("openvino",),
    }
    extra = "export" if format == "onnx" else format
    for name in needed[format]:
        try:
            importlib.import_module(name)
        except ImportError:
            raise UsageError(
                f"format={format} needs {name}: pip install 'lwbench[{extra}]'"
            ) from None


def _write_onnx(found: "torch.export.ExportedProgram", folder: Path) -> None:
    written = torch.onnx.export(
        found,
        opset_version=OPSET,
        verbose=False,
        input_names=[INPUT],
        output_names=[OUTPUT],
    )
    assert written is not None
    proto = written.model_proto
    # the dimension's name, which the exporter invents, is what users of the file see
    for value in (*proto.graph.input, *proto.graph.output):
        dimension = value.type.tensor_type.shape.dim[0]
        if dimension.dim_param:
            dimension.dim_param = "batch"
    (folder / "model.onnx").write_bytes(proto.SerializeToString())


def _write_program(found: "torch.export.ExportedProgram", folder: Path) -> None:
    content = io.BytesIO()
    torch.export.save(found, content)
    (folder / "model.pt2").write_bytes(content.getvalue())


def _write_openvino(found: "torch.export.ExportedProgram", folder: Path) -> None:
    import openvino

    # weights stay float32: the default would round them to float16
    openvino.save_model(openvino.convert_model(found), folder / "model.xml", compress_to_fp16=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what exporters print and warn of about themselves from the screen."""
    noisy = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in noisy]
    for logger in noisy:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)


def _reason(error: Any) -> str:
    """Return the line of an exporter's long message that says what is wrong."""
    cause = error
    while cause.__cause__ is not None:  # exporters wrap errors in their own
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    telling = [line for line in lines if "No conversion rule" in line or "not supported" in line]
    return f"{type(cause).__name__}: {(telling or lines or [''])[0][:300]}"
