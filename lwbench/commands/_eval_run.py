"""Evaluate the weights of a run again, and compare the figures with the recorded ones."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import specs
from ..errors import LwbenchError, UsageError
from ..logs import console
from ..registry import Spec
from ..runs.directory import Run
from ..runs.images import differences, is_same, require_same_classes
from ..runs.keys import Precision
from ..runs.runconfig import RunConfig
from ..runs.schema import Figures, Result
from ..runs.sources import allow, stored_code
from ._building import configured_data, prepared_device
from ._figures import figure_line, write_predictions

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..data.loader import Data
    from ..engine.evaluate import Evaluation

# keys that an evaluation of a run may change; all others belong to the run
FREE = (
    "device", "batch_size", "workers", "precision", "data", "data.root", "data.cache",
    "data.test_split", "data.corruption", "data.severity", "predictions",
)  # fmt: skip
# What rounding on another processor may change; a larger difference has another cause.
TOP1_TOLERANCE = 0.02  # percentage points
LOSS_TOLERANCE = 1e-4


def evaluate_run(run: Run, changes: dict[str, Any], trust_code: bool = False) -> int:
    """Evaluate a run's final and best weights, and compare the figures with the recorded ones.

    `trust_code`: whether the code of a network's file, which the run directory keeps, may run.
    Raises LwbenchError where they differ by more than rounding does.
    """
    predictions = changes.pop("predictions", None)
    for key in changes:
        if key not in FREE:
            raise UsageError(f"{key!r} belongs to the run; free are: {', '.join(FREE)}")
    config, recorded = run_to_evaluate(run, changes, trust_code)
    environment = run.environment()
    groups = specs(config)
    device = prepared_device(config.device)
    data = configured_data(config, groups.data, device)
    images = data.source.images(config.data_root)
    require_same_classes(environment.data, images, str(run.path))
    other_images = not is_same(environment.data, images)
    if other_images and not any(key.startswith("data") for key in changes):
        raise UsageError(
            f"{run.path} was made with other images: {differences(environment.data, images)}\n"
            "data.root=<folder> evaluates it on the images of that folder"
        )
    if predictions is not None:
        _predict(run, groups.model, data, config.precision, device, Path(predictions))
        if bool((data.source.test.labels < 0).any()):
            return 0  # images without labels: there is no accuracy
    data.source.require_labels()
    incomparable = _incomparable(recorded, other_images, config, device)
    problems = []
    for which, file in (("final", "last.pt"), ("best", "best.pt")):
        path = run.checkpoints / file
        model = run_network(path, groups.model, data.num_classes, device, environment.threads)
        found = evaluated(model, path, data, config.precision, device)
        if recorded is None or incomparable:
            console().print(figure_line(which, found, incomparable))
            continue
        before = getattr(recorded, which)
        console().print(figure_line(which, found, _compared(found, before)))
        if not _is_close(found, before):
            problems.append(which)
    if problems:
        raise LwbenchError(
            f"{run.path}: the {' and '.join(problems)} figures differ from the recorded ones by "
            f"more than {TOP1_TOLERANCE} points of top-1 or {LOSS_TOLERANCE} of the loss\n"
            "the weights, the code or a library may have changed since: see env.json"
        )
    return 0


def run_to_evaluate(
    run: Run, changes: dict[str, Any], trust_code: bool
) -> tuple[RunConfig, Result | None]:
    """The configuration of a run with changes, and its result; `trust_code`: see `evaluate_run`."""
    stored, recorded = run.read_config(), run.read_result()
    _check_result(run, stored, recorded)
    # "auto" means what it meant in training, not what it would mean on this device
    precision = {"precision": recorded.precision} if recorded else {}
    config = stored.changed(
        _recorded_root(run, stored) | stored_code(stored.model.spec, run.path) | precision | changes
    )
    if trust_code:
        allow(config.model.spec)
    return config, recorded


def _incomparable(
    recorded: Result | None,
    other_images: bool,
    config: RunConfig,
    device: "torch.device",
) -> str:
    """Why the recorded figures say nothing about the evaluation; empty where they do."""
    from ..engine.precision import resolved_precision

    if recorded is None:
        return "nothing is recorded yet"
    if other_images:
        return "not compared: these are other images than the run's"
    precision = resolved_precision(config.precision, device)
    if precision != recorded.precision:
        return f"not compared: evaluated in {precision}, recorded in {recorded.precision}"
    return ""


def _compared(found: "Evaluation", before: Figures) -> str:
    recorded = (before.test_loss, before.test_top1, before.test_top5)
    if recorded == (found.loss, found.top1, found.top5):
        return "as recorded"
    text = f"recorded: top-1 {before.test_top1:.4f} %, loss {before.test_loss:.6f}"
    return text + "; a difference of rounding" * _is_close(found, before)


def _is_close(found: "Evaluation", before: Figures) -> bool:
    # written so that NaN is not close
    return (
        abs(found.top1 - before.test_top1) <= TOP1_TOLERANCE
        and abs(found.loss - before.test_loss) <= LOSS_TOLERANCE
    )


def _recorded_root(run: Run, config: RunConfig) -> dict[str, Any]:
    """The absolute data.root of the run: its configuration may hold one relative to elsewhere."""
    root = run.environment().data.root
    return {"data.root": root} if root and config.data_root else {}


def run_network(
    path: Path, spec: Spec, num_classes: int, device: "torch.device", num_threads: int | None
) -> "nn.Module":
    """The network of a run with the weights of a checkpoint that the run is judged by.

    With the run's number of threads, which is set, the digits are the run's.
    """
    import torch

    from ..engine import checkpoint
    from ..engine.averaging import delivered
    from ..engine.weights import check_fits, load_weights
    from ..layers import depthwise
    from ..measure.data_free import outline

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    state = delivered(checkpoint.load(path))
    try:
        # sizes are compared before memory is allocated for them
        without_weights = outline(lambda: spec.build(num_classes))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    check_fits(without_weights, state, path)
    model: nn.Module = spec.build(num_classes)
    if remark := load_weights(model, state, path):
        console().print(f"{path}: {remark}")
    model.to(device).to(memory_format=torch.channels_last)
    if device.type == "cpu":  # as in training, or the last digits differ
        depthwise.accelerate(model)
    return model


def evaluated(
    model: "nn.Module", path: Path, data: "Data", precision: Precision, device: "torch.device"
) -> "Evaluation":
    """Evaluate on the test images. Raises LwbenchError where the loss is not finite."""
    from ..engine.evaluate import evaluate
    from ..engine.precision import autocast, resolved_precision

    cast = autocast(resolved_precision(precision, device), device)
    found = evaluate(model, data.eval_batches("test"), data.num_classes, autocast=cast)
    if not math.isfinite(found.loss):
        raise LwbenchError(
            f"{path}: the loss on the test images is {found.loss}, so its accuracy means nothing"
        )
    return found


def _predict(
    run: Run, spec: Spec, data: "Data", precision: Precision, device: "torch.device", file: Path
) -> None:
    """Write what the final weights take each test image for."""
    from ..engine.evaluate import predict
    from ..engine.precision import autocast, resolved_precision

    path, num_threads = run.checkpoints / "last.pt", run.environment().threads
    model = run_network(path, spec, data.num_classes, device, num_threads)
    cast = autocast(resolved_precision(precision, device), device)
    predictions, probability = predict(model, data.eval_batches("test"), autocast=cast)
    test = data.source.test
    names, labels = test.paths or range(len(test)), test.labels.cpu().numpy()
    write_predictions(file, names, labels, predictions, probability, data.class_names)


def _check_result(run: Run, config: RunConfig, recorded: Result | None) -> None:
    """A run directory may come from anyone. Raises UsageError if config and result disagree."""
    if recorded is not None and recorded.identity != config.identity:
        raise UsageError(
            f"{run.path / 'config.yaml'} was changed: its identity is {config.identity}, the "
            f"result's is {recorded.identity}"
        )
