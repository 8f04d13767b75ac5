"""The commands behind the verbs: plain dictionaries become objects, objects meet in the engine."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from ..engine import threads
from ..engine.settings import Settings
from ..engine.signals import Interrupted
from ..errors import LwbenchError, UsageError
from ..logs import EpochProgress, RunLog, console, gibibytes, log, metric, result_table
from ..registry import DATASETS, MODELS, OPTIMIZERS, SCHEDULERS, validated
from ..runs.directory import Run
from ..runs.files import explained_writes
from ..runs.identity import identity
from ..runs.provenance import cpu_model
from ..runs.resume import check_same_images, check_unedited, extended, root_of

_GROUPS = ("model", "data", "optimizer", "scheduler")


Seed = Annotated[int, Field(ge=0, lt=2**63)]
ImageSize = Annotated[int, Field(gt=0, le=8192)]  # pixels; beyond it, a slip that takes all memory


class Options:
    """The top-level keys that the engine does not see; the signature is their schema."""

    def __init__(
        self,
        *,
        seed: Seed = 0,
        batch_size: PositiveInt,
        image_size: ImageSize,
        device: str = "auto",
        workers: NonNegativeInt | None = None,
        out: str = "outputs",
        jobs: PositiveInt = 1,
        force: bool = False,
        extend: bool = False,
    ) -> None:
        self.seed, self.batch_size, self.image_size = seed, batch_size, image_size
        self.device, self.out, self.jobs = device, out, jobs
        self.force, self.extend = force, extend
        self.workers = os.cpu_count() or 1 if workers is None else workers


class Checkpoint:
    """The keys under `checkpoint`. `every`: seconds between two saves, in mid-epoch too."""

    def __init__(self, *, every: PositiveFloat = 300.0) -> None:
        self.every = every


def train(config: dict[str, Any], choices: dict[str, str]) -> int:
    """Train as configured, or answer with the stored result of the same run."""
    options, settings = _checked(config)
    _checkpoint_every(config)
    run = Run.of(config, choices)
    check_unedited(run, config)
    if not options.force and (result := run.read_result()):
        _check_same_data(run, config)
        _print_result(run, result, "finished earlier")
        return 0
    if options.force and run.path.exists():
        run = run.beside()
    _check_writable(options.out)

    # everything that can be wrong is found before the first file is written
    threads.settle()
    import torch

    from ..engine.train import resolved_precision

    device = _device(options.device)
    precision = resolved_precision(settings.precision, device)
    _check_groups(config)
    data = _data(config, options, device)
    torch.manual_seed(options.seed)
    model = _model(config, data.num_classes)
    cost = _cost(model, options.image_size, choices)
    schedule = SCHEDULERS.build(config["scheduler"], config["optimizer"]["lr"], settings.epochs)

    with run.locked():
        if not options.force and (result := run.read_result()):
            _print_result(run, result, "finished meanwhile")
            return 0
        check_same_images(run, data)
        if options.extend:
            extended(run, config, data)
        with explained_writes(run.path):
            run.write_config(config)
            run.write_env(
                device=_device_name(device),
                threads=run.read_env().get("threads") or torch.get_num_threads(),
                data=_facts(data, config),
            )
        with RunLog(run.path / "train.log"):
            _announce(run, choices, data, cost, settings, precision, device, options)
            train_it = partial(_trained, model, data, config, schedule, run, settings, device)
            result = _logged(train_it, run, options)
            result = {
                "identity": run.identity,
                "model": choices["model"],
                "data": run.data_name,
                "seed": options.seed,
                "device": _device_name(device),
                "params": cost.params,
                **result,
            }
            with explained_writes(run.path):
                run.write_result(result)
    _print_result(run, result, "finished")
    return 0


def _trained(model, data, config, schedule, run, settings, device) -> dict[str, Any]:
    import torch

    from ..engine.train import Training

    model.to(device, memory_format=torch.channels_last)
    optimizer = OPTIMIZERS.build(config["optimizer"], model)
    training = Training(
        model,
        data,
        optimizer,
        schedule,
        run=run,
        settings=settings,
        device=device,
        save_every=_checkpoint_every(config),
    )
    with EpochProgress(settings.epochs, data.train_size) as progress:
        return training(progress)


def _logged(work: Callable[[], dict[str, Any]], run: Run, options: Options) -> dict[str, Any]:
    """Every way to fail leaves its traceback in the run's log and a line or two on screen."""
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
        if _is_out_of_memory(error):
            reason = (
                f"out of memory with batch_size={options.batch_size} and "
                f"image_size={options.image_size}: lower one of them"
            )
        raise LwbenchError(f"{reason}\ntraceback: {run.path / 'train.log'}") from None


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in str(error)  # torch's allocator on CPUs


def evaluate_run(path: str, overrides: dict[str, Any]) -> int:
    """Evaluate a run's final and best weights again, and say whether the figures are the recorded
    ones.
    """
    run = Run(Path(path))
    config = run.read_config()
    _check_stored(run, config)
    allowed = ("device", "batch_size", "workers", "precision", "data.root", "data.cache")
    for key, value in overrides.items():
        if key not in allowed:
            raise UsageError(f"{key!r} belongs to the run; free are: {', '.join(allowed)}")
        group, _, name = key.rpartition(".")
        (config[group] if group else config)[name] = value
    recorded = run.read_result() or {}
    options, settings = _checked(config)
    rows = []
    for which, file in (("final", "last.pt"), ("best", "best.pt")):
        path = run.checkpoints / file
        found = _evaluated(config, options, settings.precision, path, run.read_env().get("threads"))
        before = recorded.get(which) or {}
        same = all(before.get(f"test_{k}") == v for k, v in found.items())
        rows.append((which, found, "as recorded" if same else f"recorded: {before or 'nothing'}"))
    _print_evaluation(rows)
    return 0


def evaluate_checkpoint(config: dict[str, Any]) -> int:
    """Evaluate a file of weights of `config`'s network on its data."""
    options, settings = _checked(config | {"epochs": 1})
    path = Path(str(config["checkpoint"]))
    _print_evaluation([(path.name, _evaluated(config, options, settings.precision, path), "")])
    return 0


def _evaluated(
    config, options: Options, precision, path: Path, num_threads: int | None = None
) -> dict[str, float]:
    """Loss, top-1 and top-5; with a run's own number of threads they agree to the last digit."""
    threads.settle()
    import torch

    from ..engine import checkpoint
    from ..engine.evaluate import evaluate
    from ..engine.train import autocast, resolved_precision

    if isinstance(num_threads, int) and 0 < num_threads <= 1024:
        torch.set_num_threads(num_threads)
    state = checkpoint.load(path)
    device = _device(options.device)
    data = _data(config, options, device)
    try:
        with torch.device("meta"):  # sizes are compared before memory is taken for them
            outline = _model(config, data.num_classes)
    except (RuntimeError, OverflowError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0][:150]
        raise UsageError(f"the network of {path} cannot be built: {reason}") from None
    checkpoint.check_fits(outline, state, path)
    model = _model(config, data.num_classes)
    checkpoint.load_weights(model, state, path)
    model.to(device, memory_format=torch.channels_last)
    cast = autocast(resolved_precision(precision, device), device)
    found = evaluate(model, data.eval_batches("test"), data.num_classes, autocast=cast)
    return {"loss": found.loss, "top1": found.top1, "top5": found.top5}


def counts(config: dict[str, Any]) -> dict[str, Any]:
    """Parameters and MACs under each rule of the network of a `profile` configuration."""
    import torch

    from ..measure.complexity import count

    with torch.device("meta"):  # a count needs no weights
        model = _model(config, config["num_classes"])
    cost = count(model, image_size=config["image_size"])
    return {"params": cost.params, "macs": cost.macs}


def _check_stored(run: Run, config: dict[str, Any]) -> None:
    """A run directory may come from anyone: what it names is compared with the registries.

    Raises UsageError for what no builder takes, and for a configuration that is not the result's.
    """
    _checked(config)
    _check_groups(config)
    described = (run.read_result() or {}).get("identity", identity(config))
    if described != identity(config):
        raise UsageError(
            f"{run.path / 'config.yaml'} was changed: it is of {identity(config)}, the result of "
            f"{described}"
        )


def _check_groups(config: dict[str, Any]) -> None:
    for kind, registry in zip(_GROUPS, (MODELS, DATASETS, OPTIMIZERS, SCHEDULERS), strict=True):
        registry.spec(_arguments(config, kind))


# building


def _arguments(config: dict[str, Any], kind: str) -> dict[str, Any]:
    """What the builder of this kind is given; recipe and augmentation are for others."""
    if not isinstance(config.get(kind), dict):
        raise UsageError(f"{kind} is no mapping that names a builder")
    return {k: v for k, v in config[kind].items() if k not in ("recipe", "augment")}


def _checked(config: dict[str, Any]) -> tuple[Options, Settings]:
    """The top-level keys, validated. Raises UsageError naming the key."""
    own = {k: config[k] for k in Options.__init__.__annotations__ if k in config}
    engine = {k: config[k] for k in Settings.__init__.__annotations__ if k in config}
    known = {*own, *engine, *_GROUPS, "run", "checkpoint"}
    extra = {key: value for key, value in config.items() if key not in known}
    return (
        Options(**validated(Options, own | extra, "")),
        Settings(**validated(Settings, engine, "")),
    )


def _checkpoint_every(config: dict[str, Any]) -> float:
    return validated(Checkpoint, config["checkpoint"], "checkpoint")["every"]


def _data(config: dict[str, Any], options: Options, device):
    from ..data.augment import Augment
    from ..data.loader import Data

    augment = validated(Augment, config["data"].get("augment", {}), "data.augment")
    source = DATASETS.build(_arguments(config, "data")).load(options.image_size)
    return Data(
        source,
        image_size=options.image_size,
        batch_size=options.batch_size,
        seed=options.seed,
        device=device,
        augment=Augment(**augment),
        workers=options.workers,
    )


def _model(config: dict[str, Any], num_classes: int):
    return MODELS.build(config["model"], num_classes)


def _cost(model, image_size: int, choices: dict[str, str]):
    """What the network costs at this size. Raises UsageError where it cannot take the size."""
    from ..measure.complexity import count

    try:
        return count(model, image_size=image_size)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:150]
        raise UsageError(
            f"{choices['model']} cannot take images of image_size={image_size}: {reason}"
        ) from None


def _device(name: str):
    """The torch device of that name; "auto" is the first GPU, or the CPU. Raises UsageError."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:120]
        raise UsageError(f"device={name} is not here: {reason}; there is: auto, cpu") from None
    return device


def _device_name(device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()


# checks


def _facts(data, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "digest": data.digest,
        "root": root_of(config),
        "train_size": data.train_size,
        "test_size": data.test_size,
        "classes": data.num_classes,
        "left_out": list(data.source.left_out),
    }


def _check_same_data(run: Run, config: dict[str, Any]) -> None:
    """A stored result answers only for the images it was made with.

    `data.root` is no part of the identity, since data may move: another root is read and compared.
    """
    recorded = run.read_env().get("data", {})
    if root_of(config) == recorded.get("root"):
        return
    options, _ = _checked(config)
    check_same_images(run, _data(config, options, _device("cpu")))


def _check_writable(out: str) -> None:
    folder = Path(out).resolve()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"cannot write to out={out}: {folder} is not a folder that can be written")


# what the user sees


def _announce(run, choices, data, cost, settings, precision, device, options) -> None:
    """First of all: what will run."""
    from ..measure.memory import training_bytes

    expected = training_bytes(cost, options.batch_size) + data.nbytes
    size = options.image_size
    lines = [
        f"network   {choices['model']}: {metric(cost.params)} parameters, "
        f"{metric(cost.macs['plain'])} MACs at {size} px, {data.num_classes} classes",
        f"data      {run.data_name}: {data.train_size:,} images to train on, "
        f"{data.test_size:,} to test on, {size} px, batch {options.batch_size}",
        f"training  {settings.epochs} epochs, seed {options.seed}, {precision} on "
        f"{_device_name(device)}; about {gibibytes(expected)} of memory beside the libraries "
        "(an estimate)",
        f"run       {run.path}",
    ]
    screen = console()
    for line in lines:
        log.info(line)
        screen.print(line, markup=False)
    for line in data.source.left_out:
        log.info("left out: %s", line)


def _print_result(run: Run, result: dict[str, Any], how: str) -> None:
    screen = console()
    screen.print(result_table([result]))
    screen.print(f"{how}: {run.path}", markup=False)


def _print_evaluation(rows: list[tuple[str, dict[str, float], str]]) -> None:
    screen = console()
    for which, found, remark in rows:
        screen.print(
            f"{which}: top-1 {found['top1']:.4f} %  top-5 {found['top5']:.4f} %  "
            f"loss {found['loss']:.6f}  {remark}",
            markup=False,
        )
