"""The int8 form of an export: calibrated, compared, timed, and layer by layer on request."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..logs import console
from ._export_options import Options
from ._export_subject import Subject

if TYPE_CHECKING:
    import numpy as np

    from ..deploy.verify import Comparison


def quantise(
    subject: Subject, options: Options, folder: Path, before: "Comparison"
) -> tuple["Comparison", dict[str, Any]]:
    """Replace the float file in `folder` by its int8 form.

    `before`: the comparison of the float file with PyTorch. Returns that of the int8 file, and the
    figures of both as plain data.
    """
    from ..deploy import quantize
    from ..deploy.runtime import latencies, onnx_file, padded
    from ..deploy.verify import compare

    exported, prepared = folder / "model.onnx", folder / "prepared.onnx"
    source = folder / "float32.onnx"
    exported.rename(source)
    quantize.prepared(source, prepared)
    quantize.quantize(prepared, exported, _calibration(subject, options))
    cases = subject.cases(is_bytes=options.preprocess)
    found = compare(subject.model, padded(onnx_file(exported), options.batch), cases)
    image = next(subject.cases(is_bytes=options.preprocess))[0][: options.batch or 1]
    runs = [onnx_file(path, threads=1) for path in (source, exported)]
    times = latencies(runs, image)
    facts: dict[str, Any] = {
        "calibration_images": min(options.calibration_images, subject.train_size),
        "seed": options.seed,
    }
    for name, path, comparison, time in (
        ("float32", source, before, times[0]),
        ("int8", exported, found, times[1]),
    ):
        facts[name] = {
            "top1": comparison.accuracy("runtime"),
            "top5": comparison.accuracy("runtime", 5),
            "bytes": path.stat().st_size,
            "latency_ms": time,
            "latency_batch": len(image),
        }
    show(facts, found)
    if options.sensitivity:
        facts["sensitivity_images"], facts["sensitivity"] = _sensitivity(
            subject, options, prepared, folder / "one.onnx"
        )
    for path in (source, prepared):
        path.unlink()
    return found, facts


def show(facts: dict[str, Any], found: "Comparison") -> None:
    """Print accuracy, size and latency before and after, and what changed."""
    screen = console()
    for name in ("float32", "int8"):
        one = facts[name]
        screen.print(
            f"{name:<12} top-1 {one['top1']:.4f} %  top-5 {one['top5']:.4f} %  "
            f"{one['bytes'] / 1e6:.3f} MB  {one['latency_ms']:.3f} ms a batch of "
            f"{one['latency_batch']} on one thread"
        )
    ratio = facts["int8"]["latency_ms"] / facts["float32"]["latency_ms"]
    screen.print(
        f"int8         {found.changed:,} answers changed (McNemar p = {found.p:.3g}), "
        f"{ratio:.2f} times the time of float32"
    )


def _calibration(subject: Subject, options: Options) -> "Iterator[np.ndarray]":
    """The training images in batches that the graph takes."""
    import numpy as np

    from ..deploy.runtime import filled

    most = options.calibration_images
    for images, _, _ in subject.cases("train", is_bytes=options.preprocess, most=most):
        yield np.ascontiguousarray(filled(images, options.batch))


def _sensitivity(
    subject: Subject, options: Options, prepared: Path, path: Path
) -> tuple[int, list[dict[str, Any]]]:
    """Top-1 with each layer alone quantised, the worst first, on a sample of test images."""
    from ..deploy import quantize
    from ..deploy.runtime import onnx_file, padded
    from ..deploy.verify import compare

    found: list[dict[str, Any]] = []
    images = 0
    for node in quantize.layers(prepared):
        quantize.quantize(prepared, path, _calibration(subject, options), only=[node])
        cases = subject.cases(is_bytes=options.preprocess, most=options.sensitivity_images)
        one = compare(subject.model, padded(onnx_file(path), options.batch), cases)
        images = one.images
        points = 100 * (one.only_runtime - one.only_torch) / one.images
        found.append({"layer": node, "top1": one.accuracy("runtime"), "points": points})
    path.unlink(missing_ok=True)
    found.sort(key=lambda layer: float(layer["top1"]))
    console().print(f"sensitivity  top-1 on {images:,} test images, one layer quantised; lowest:")
    for layer in found[:5]:
        console().print(
            f"  {layer['top1']:6.2f} %  {layer['points']:+.2f} points  {layer['layer']}"
        )
    return images, found
