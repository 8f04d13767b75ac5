"""One training run, from its configuration to `result.json`."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import Specs, specs
from ..engine import threads
from ..engine.signals import Interrupted
from ..errors import LwbenchError, UsageError, plural, user_place
from ..logs import EpochProgress, RunLog, console, gibibytes, log, metric, result_table
from ..runs.directory import Run
from ..runs.files import explained_writes
from ..runs.images import is_same
from ..runs.resume import check_same_images, check_unedited, extended
from ..runs.runconfig import RunConfig
from ..runs.schema import Images, Result
from ..runs.sources import allow, described_code, store_code
from ._building import (
    check_batch_of_one,
    configured_data,
    device_name,
    measured_cost,
    resolved_device,
    train_images_to_evaluate,
)
from ._images import check_finished
from ._recipe import BuiltTeacher, built_teacher, recipe_lines
from ._weights import initial_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..data.loader import Data
    from ..measure.complexity import Complexity


LARGE_BYTES = 256 << 20  # of memory that neither batch nor image size lowers: worth a word


@dataclass(frozen=True)
class Prepared:
    """Everything that a training needs, built and checked before the first file is written."""

    config: RunConfig
    device: "torch.device"
    precision: str
    groups: Specs
    data: "Data"
    images: Images
    model: "nn.Module"
    cost: "Complexity"
    schedule: Callable[[float], float]
    teacher: BuiltTeacher | None
    initial: list[str]  # what was loaded and frozen, for the announcement


def train(config: RunConfig) -> Run:
    """Train as configured, or find the same run finished; print its result and return it."""
    run = Run.for_training(config)
    check_unedited(run, config)
    if earlier := run.read_result():
        check_finished([(run, config)])
        _print_result(run, earlier, "finished earlier")
        return run
    _check_writable(config.out)
    ready = _prepared(config)
    if config.force and not is_same(run.environment().data, ready.images):
        run = run.following()  # an interrupted repetition is continued on its own images alone
    with run.locked():
        if earlier := run.read_result():
            check_same_images(run, ready.images)
            _print_result(run, earlier, "finished by another process meanwhile")
            return run
        if any(run.checkpoints.glob("*.pt")):  # else nothing was trained that could differ
            check_same_images(run, ready.images)
        if config.extend:
            steps = ready.data.steps_per_epoch
            extended(run, config, ready.images, steps, ready.groups.scheduler)
        result = _recorded(run, ready)
    _print_result(run, result, "finished")
    return run


def _prepared(config: RunConfig) -> Prepared:
    """Build data, network and schedule. Raises UsageError for everything that can be wrong."""
    threads.configure()  # before torch is imported, which starts its threads
    import torch

    from ..engine.allocator import keep_freed_memory
    from ..engine.precision import resolved_precision
    from ..layers.accelerated import accelerate
    from ..measure.data_free import built

    device = resolved_device(config.device)
    precision = resolved_precision(config.precision, device)
    allow(config.model.spec)  # a network in a file that this command names
    groups = specs(config)
    data = configured_data(config, groups.data, device)
    data.source.require_trainable()
    teacher = built_teacher(config, data, device)
    torch.manual_seed(config.seed)  # right before the weights are drawn
    model = built(lambda: groups.model.build(data.num_classes))
    cost = measured_cost(
        model, config.model.spec, data.num_classes, config.image_size, config.model_name
    )
    initial = initial_weights(model, groups.model, config, data.num_classes)
    if config.batch_size == 1:
        check_batch_of_one(model, config.image_size)
    if device.type == "cpu":  # after counting, before steps are timed to choose the threads
        accelerate(model)
        keep_freed_memory()
    return Prepared(
        config,
        device,
        precision,
        groups,
        data,
        data.source.images(config.data_root),
        model,
        cost,
        groups.scheduler.build(config.lr, config.epochs),
        teacher,
        initial,
    )


def _recorded(run: Run, ready: Prepared) -> Result:
    """Train in the locked directory `run`, and write its records from start to result."""
    import torch

    from ..layers.accelerated import path

    config = ready.config
    with explained_writes(run.path):
        run.write_config(config)
        store_code(config.model.spec, run.path)
        num_classes = ready.data.num_classes
        how_many = threads.choose(run, config, ready.model, num_classes, ready.device)
        run.record_start(
            device=device_name(ready.device),
            threads=torch.get_num_threads(),
            convolutions=path(ready.model),
            data=ready.images.model_dump(),
        )
    with RunLog(run.path / "train.log"):
        _announce(run, ready, how_many)
        result = {
            "identity": run.identity,
            "model": config.model_name,
            "data": run.data_name,
            "seed": config.seed,
            "device": device_name(ready.device),
            "params": ready.cost.params,
            **_logged(lambda: _trained(run, ready), run, config, ready.data.num_classes),
        }
        with explained_writes(run.path):
            run.write_result(result)
    return Result.model_validate(result)


def _trained(run: Run, ready: Prepared) -> dict[str, Any]:
    import torch

    from ..engine.freezing import scale_last_layer
    from ..engine.inputs import Settings
    from ..engine.train import Training

    config, model = ready.config, ready.model
    model.to(ready.device).to(memory_format=torch.channels_last)
    optimizer = ready.groups.optimizer.build(model)
    if config.head_lr_factor is not None:
        scale_last_layer(optimizer, model, ready.data.num_classes, config.head_lr_factor)
    training = Training(
        model,
        ready.data,
        optimizer,
        ready.schedule,
        run=run,
        settings=Settings(
            epochs=config.epochs,
            precision=config.precision,
            label_smoothing=config.label_smoothing,
            clip_grad_norm=config.clip_grad_norm,
            compile=config.compile,
            train_evaluated=train_images_to_evaluate(config.evaluate_train, ready.data),
            accumulate=config.accumulate,
            ema=config.ema,
            eval_every=config.eval_every,
        ),
        device=ready.device,
        save_every=config.checkpoint.every,
        teacher=ready.teacher.configured(config) if ready.teacher else None,
    )
    with EpochProgress(config.epochs, ready.data.train_size) as progress:
        return training(progress)


def _logged(
    work: Callable[[], dict[str, Any]], run: Run, config: RunConfig, num_classes: int
) -> dict[str, Any]:
    """Call `work`; a failure leaves its traceback in the run's log and a line or two on screen."""
    try:
        return work()
    except Interrupted as interruption:
        log.info("interrupted by signal %d", interruption.signum)
        raise
    except LwbenchError as error:
        log.error("%s", error, exc_info=True, extra={"on_screen": False})
        raise
    except Exception as error:
        log.error("failed", exc_info=True, extra={"on_screen": False})
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        if place := user_place(error):
            reason = f"{place}: {reason}"
        if _is_out_of_memory(error):
            reason = _out_of_memory(config, num_classes)
        raise LwbenchError(f"{reason}\ntraceback: {run.path / 'train.log'}") from None


def _out_of_memory(config: RunConfig, num_classes: int) -> str:
    from ..engine.evaluate import confusion_bytes

    reason = (
        f"out of memory with batch_size={config.batch_size} and image_size={config.image_size}: "
        "lower one of them"
    )
    if (matrices := confusion_bytes(num_classes)) > LARGE_BYTES:
        reason += (
            f"; the confusion matrices of {num_classes:,} classes take {gibibytes(matrices)} "
            "whatever they are"
        )
    return reason


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in str(error)  # torch's allocator on CPUs


def _check_writable(out: str) -> None:
    folder = Path(out).resolve()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write to out={out}: {folder} is not a writable folder")


def _announce(run: Run, ready: Prepared, how_many: str) -> None:
    """Say what will run, before the first step."""
    config, data, cost = ready.config, ready.data, ready.cost
    how = f"{ready.precision} on {device_name(ready.device)}{how_many}"
    from ..engine.evaluate import confusion_bytes

    matrices = confusion_bytes(data.num_classes)
    expected = cost.training_bytes(config.batch_size) + data.nbytes + matrices
    extra, more = recipe_lines(config, cost, ready.teacher)
    expected += extra
    # few sets have so many classes that it is worth a word
    share = f", {gibibytes(matrices)} of it for confusion matrices" * (10 * matrices > expected)
    size = config.image_size
    lines = [
        f"network   {config.model_name}: {metric(cost.params)} parameters, "
        f"{metric(cost.macs['plain'])} MACs at {size} px, {data.num_classes} classes",
        f"data      {run.data_name}: {data.train_size:,} images to train on, "
        f"{data.test_size:,} to test on, {size} px, batch {config.batch_size}",
        *(f"          {note}" for note in (*data.source.notes, data.packing) if note),
        *more,
        *([f"code      {code}"] if (code := described_code(config.model.spec)) else []),
        *ready.initial,
        f"training  {plural(config.epochs, 'epoch')}, seed {config.seed}, {how}; about "
        f"{gibibytes(expected)} of memory besides the libraries (an estimate){share}",
        f"run       {run.path}",
    ]
    screen = console()
    for line in lines:
        log.info(line)
        screen.print(line)
    for line in data.source.left_out:
        log.info("left out: %s", line)


def _print_result(run: Run, result: Result, how: str) -> None:
    screen = console()
    screen.print(result_table([result.model_dump()]))
    screen.print(f"{how}: {run.path}")
