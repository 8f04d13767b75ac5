"""One training run, from its configuration to `result.json`."""

import os
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import Specs, specs
from ..engine import threads
from ..engine.distributed import current
from ..errors import UsageError, plural
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
    train_images_to_evaluate,
)
from ._failures import logged
from ._images import check_finished
from ._ranks import check_parts, described_ranks, device_of_rank, prepared_ranks
from ._recipe import BuiltTeacher, built_teacher, recipe_lines
from ._weights import initial_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..data.loader import Data
    from ..measure.complexity import Complexity


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
    run, earlier = current().told(lambda: _found(config))
    if earlier:
        _print_result(run, earlier, "finished earlier")
        return run
    ready = _prepared(config)
    with ExitStack() as held:
        run, earlier = current().told(lambda: _claimed(run, config, ready, held))
        if earlier:
            _print_result(run, earlier, "finished by another process meanwhile")
            return run
        result = _recorded(run, ready)
    _print_result(run, result, "finished")
    return run


def _found(config: RunConfig) -> tuple[Run, Result | None]:
    """The directory to train in, and the result that is there already."""
    run = Run.for_training(config)
    check_unedited(run, config)
    if earlier := run.read_result():
        check_finished([(run, config)])
    else:
        _check_writable(config.out)
    return run, earlier


def _claimed(
    run: Run, config: RunConfig, ready: Prepared, held: ExitStack
) -> tuple[Run, Result | None]:
    """Lock the directory until `held` is closed; return it, and the result that it got meanwhile.

    Raises UsageError where another process writes it, or its images were others.
    """
    if config.force and not is_same(run.environment().data, ready.images):
        run = run.following()  # an interrupted repetition is continued on its own images alone
    held.enter_context(run.locked())
    earlier = run.read_result()
    if earlier or any(run.checkpoints.glob("*.pt")):  # else nothing was trained that could differ
        check_same_images(run, ready.images)
    if config.extend and not earlier:
        steps = ready.data.steps_per_epoch
        extended(run, config, ready.images, steps, ready.groups.scheduler)
    return run, earlier


def _prepared(config: RunConfig) -> Prepared:
    """Build data, network and schedule. Raises UsageError for everything that can be wrong."""
    threads.configure()  # before torch is imported, which starts its threads
    import torch

    from ..engine.allocator import keep_freed_memory
    from ..engine.precision import resolved_precision
    from ..layers.accelerated import accelerate
    from ..measure.data_free import built

    device = device_of_rank(config.device)
    precision = resolved_precision(config.precision, device)
    allow(config.model.spec)  # a network in a file that this command names
    groups = specs(config)
    data = configured_data(config, groups.data, device)
    data.source.require_trainable()
    check_parts(config, data)
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
    prepared_ranks(config, data)
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

    config, ranks = ready.config, current()
    recorded = ranks.told(lambda: run.environment().threads)
    # timed by all ranks at the same time, as they will train
    how_many = threads.choose(recorded, config, ready.model, ready.data.num_classes, ready.device)
    how_many, chosen = ranks.told(lambda: (how_many, torch.get_num_threads()))
    torch.set_num_threads(chosen)

    def begin() -> None:
        with explained_writes(run.path):
            run.write_config(config)
            store_code(config.model.spec, run.path)
            run.record_start(
                device=device_name(ready.device),
                threads=chosen,
                convolutions=path(ready.model),
                data=ready.images.model_dump(),
            )

    ranks.told(begin)
    with RunLog(run.path / "train.log") if ranks.leads else nullcontext():
        _announce(run, ready, how_many + described_ranks(config))
        result = {
            "identity": run.identity,
            "model": config.model_name,
            "data": run.data_name,
            "seed": config.seed,
            "device": device_name(ready.device),
            "params": ready.cost.params,
            **logged(lambda: _trained(run, ready), run, config, ready.data.num_classes),
        }
        if ranks.leads:
            with explained_writes(run.path):
                run.write_result(result)
    return Result.model_validate(result)


def _trained(run: Run, ready: Prepared) -> dict[str, Any]:
    import torch

    from ..engine.freezing import scale_last_layer
    from ..engine.inputs import Settings
    from ..engine.train import Training
    from ..layers.norm_sync import synchronise

    config, model = ready.config, ready.model
    model.to(ready.device).to(memory_format=torch.channels_last)
    if current().size > 1 and not config.local_batchnorm:
        model = synchronise(model)  # its exchanges begin with the first step
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
        ranks=current(),
    )
    with EpochProgress(config.epochs, ready.data.train_size) as progress:
        return training(progress)


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
    expected = cost.training_bytes(-(-config.batch_size // current().size)) + data.nbytes + matrices
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
