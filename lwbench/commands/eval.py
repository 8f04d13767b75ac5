"""Evaluate a run, or a checkpoint, again."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import NonNegativeInt, PositiveInt

from ..config import command_values, specs, typed_values
from ..engine import threads
from ..errors import UsageError
from ..logs import console
from ..registry import DATASETS, MODELS, Spec, validated
from ..runs.directory import Run
from ..runs.runconfig import Group, ImageSize, Precision, RunConfig
from ._building import built_data, resolved_device
from ._keys import Key, help_of_groups

if TYPE_CHECKING:
    import torch

    from ..data.loader import Data

FLAGS: tuple[str, ...] = ()
KEYS: dict[str, Key] = {}
# keys that an evaluation of a run may change; all others belong to the run
FREE = ("device", "batch_size", "workers", "precision", "data.root", "data.cache")


def help() -> str:
    return help_of_groups("eval")


def run(arguments: list[str], flags: set[str]) -> int:
    """Evaluate `run=<directory>`, or `checkpoint=<file>` with model and data."""
    changes = (
        typed_values(arguments, "eval") if any(a.startswith("run=") for a in arguments) else {}
    )
    if changes.get("run") is not None:
        return evaluate_run(Run(Path(str(changes.pop("run")))), changes)
    ((values, _),) = command_values("eval", [arguments])
    if values["checkpoint"] is None:
        raise UsageError("eval needs run=<run directory>, or checkpoint=<file> with model and data")
    return evaluate_checkpoint(values)


class Options:
    """The keys of an evaluation besides model and data; the signature is their schema."""

    def __init__(
        self,
        *,
        checkpoint: str,
        run: str | None = None,
        batch_size: PositiveInt,
        image_size: ImageSize,
        device: str = "auto",
        precision: Precision = "auto",
        workers: NonNegativeInt | None = None,
    ) -> None:
        self.path = Path(checkpoint)
        self.batch_size, self.image_size = batch_size, image_size
        self.device, self.precision, self.workers = device, precision, workers or 0


def evaluate_run(run: Run, changes: dict[str, Any]) -> int:
    """Evaluate a run's final and best weights, and compare the figures with the recorded ones."""
    for key in changes:
        if key not in FREE:
            raise UsageError(f"{key!r} belongs to the run; free are: {', '.join(FREE)}")
    stored = run.read_config()
    _check_result(run, stored)
    config = stored.changed(_recorded_root(run, stored) | changes)
    groups = specs(config)
    recorded = run.read_result() or {}
    rows = []
    for which, file in (("final", "last.pt"), ("best", "best.pt")):
        device = _prepare(config.device)
        data = built_data(
            groups.data,
            config.augment,
            image_size=config.image_size,
            batch_size=config.batch_size,
            seed=config.seed,
            device=device,
            workers=config.num_workers,
        )
        found = _evaluated(
            run.checkpoints / file,
            groups.model,
            data,
            config.precision,
            device,
            run.environment().threads,
        )
        before = recorded.get(which) or {}
        same = all(before.get(f"test_{k}") == v for k, v in found.items())
        rows.append((which, found, "as recorded" if same else f"recorded: {before or 'nothing'}"))
    _print(rows)
    return 0


def _recorded_root(run: Run, config: RunConfig) -> dict[str, Any]:
    """The absolute data.root of the run: its configuration may hold one relative to elsewhere."""
    root = run.environment().data.root
    return {"data.root": root} if root and config.data_root else {}


def evaluate_checkpoint(values: dict[str, Any]) -> int:
    """Evaluate a file of weights of a configured network on a data set."""
    own = {key: value for key, value in values.items() if key not in ("model", "data")}
    options = Options(**validated(Options, own, ""))
    model, data_group = (Group.model_validate(values[kind]) for kind in ("model", "data"))
    device = _prepare(options.device)
    data = built_data(
        DATASETS.spec(data_group.spec),
        {},
        image_size=options.image_size,
        batch_size=options.batch_size,
        seed=0,
        device=device,
        workers=options.workers,
    )
    spec = MODELS.spec(model.spec)
    found = _evaluated(options.path, spec, data, options.precision, device)
    _print([(options.path.name, found, "")])
    return 0


def _prepare(device: str) -> "torch.device":
    threads.configure()
    return resolved_device(device)


def _evaluated(
    path: Path,
    spec: Spec,
    data: "Data",
    precision: Precision,
    device: "torch.device",
    num_threads: int | None = None,
) -> dict[str, float]:
    """Loss, top-1 and top-5; with the run's number of threads they agree to the last digit."""
    import torch

    from ..engine import checkpoint
    from ..engine.evaluate import evaluate
    from ..engine.train import autocast, resolved_precision
    from ..layers import depthwise
    from ..measure.data_free import outline

    if num_threads is not None:
        torch.set_num_threads(num_threads)
    state = checkpoint.load(path)
    try:
        # sizes are compared before memory is allocated for them
        without_weights = outline(lambda: spec.build(data.num_classes))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    checkpoint.check_fits(without_weights, state, path)
    model = spec.build(data.num_classes)
    checkpoint.load_weights(model, state, path)
    model.to(device).to(memory_format=torch.channels_last)
    if device.type == "cpu":  # as in training, or the last digits differ
        depthwise.accelerate(model)
    cast = autocast(resolved_precision(precision, device), device)
    found = evaluate(model, data.eval_batches("test"), data.num_classes, autocast=cast)
    return {"loss": found.loss, "top1": found.top1, "top5": found.top5}


def _check_result(run: Run, config: RunConfig) -> None:
    """A run directory may come from anyone. Raises UsageError if config and result disagree."""
    described = (run.read_result() or {}).get("identity", config.identity)
    if described != config.identity:
        raise UsageError(
            f"{run.path / 'config.yaml'} was changed: its identity is {config.identity}, the "
            f"result's is {described}"
        )


def _print(rows: list[tuple[str, dict[str, float], str]]) -> None:
    screen = console()
    for which, found, remark in rows:
        screen.print(
            f"{which}: top-1 {found['top1']:.4f} %  top-5 {found['top5']:.4f} %  "
            f"loss {found['loss']:.6f}  {remark}"
        )
