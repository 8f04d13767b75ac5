"""What a recipe adds to plain training: teacher, accumulation and moving average."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError, plural
from ..logs import metric
from ..registry import MODELS
from ..runs.images import require_same_classes
from ..runs.runconfig import RunConfig
from ..runs.schema import Result
from ..runs.sources import stored_code
from ..runs.teacher import finished
from ._building import measured_cost
from ._weights import read_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..data.loader import Data
    from ..engine.distill import Teacher
    from ..measure.complexity import Complexity


@dataclass(frozen=True)
class BuiltTeacher:
    """A teacher's network with its weights, on the device, and what it costs.

    `name`: what it is, in words; `accuracy`: what its run reached, or "".
    """

    network: "nn.Module"
    cost: "Complexity"
    name: str
    accuracy: str = ""

    def configured(self, config: RunConfig) -> "Teacher":
        """Return it as the engine takes it."""
        from ..engine.distill import Teacher

        keys = config.distillation
        return Teacher(self.network, temperature=keys.temperature, weight=keys.weight)

    @property
    def nbytes(self) -> int:
        """What its weights take in memory."""
        return sum(tensor.nbytes for tensor in self.network.state_dict().values())

    def described(self, config: RunConfig, student: "Complexity") -> str:
        """Say which network it is and what it adds to the training, in one line."""
        # a training step of the network is about three forward passes, the teacher's is one
        more = self.cost.macs["plain"] / max(3 * student.macs["plain"], 1)
        keys = config.distillation
        return (
            f"{self.name}: {metric(self.cost.params)} parameters, "
            f"{metric(self.cost.macs['plain'])} MACs{self.accuracy}; "
            f"weight {keys.weight:g}, temperature {keys.temperature:g}; it adds about "
            f"{100 * more:.0f} % to the MACs of a training step"
        )


def built_teacher(config: RunConfig, data: "Data", device: "torch.device") -> BuiltTeacher | None:
    """The teacher of a configuration; None without `teacher=`.

    Raises UsageError where it was trained on other classes, its weights are missing or not those
    of its result, or it cannot take images of this size.
    """
    import torch

    from ..layers import depthwise

    if not config.teacher:
        return None
    load = _from_run if config.distillation.model is None else _from_weights
    teacher = load(config, data)
    teacher.network.to(device).to(memory_format=torch.channels_last)
    if device.type == "cpu":
        depthwise.accelerate(teacher.network)
    return teacher


def _from_run(config: RunConfig, data: "Data") -> BuiltTeacher:
    from ..engine import checkpoint
    from ..engine.averaging import delivered
    from ..engine.weights import load_weights
    from ..measure.data_free import built

    run, result = finished(str(config.teacher))
    stored = run.read_config()
    if stored.identity != result.identity:
        raise UsageError(f"{run.path / 'config.yaml'} was changed: it is not that of its result")
    require_same_classes(
        run.environment().data, data.source.images(config.data_root), f"teacher={config.teacher}"
    )
    path = run.checkpoints / "last.pt"
    if not path.exists():
        raise UsageError(
            f"teacher={config.teacher}: it has no weights (checkpoints/last.pt); archived runs "
            "hold records only"
        )
    state = checkpoint.load(path)
    _check_final(state, result, path)
    # the code of a network in a file is the one that the run has kept
    spec = stored.changed(stored_code(stored.model.spec, run.path)).model.spec
    network = built(lambda: MODELS.spec(spec).build(data.num_classes))
    load_weights(network, delivered(state), path)
    cost = measured_cost(network, spec, data.num_classes, config.image_size, result.model)
    return BuiltTeacher(network, cost, result.model, f", top-1 {result.final.test_top1:.2f} %")


def _from_weights(config: RunConfig, data: "Data") -> BuiltTeacher:
    from ..measure.data_free import built

    group = config.distillation.model
    assert group is not None, "without a network the teacher is a run"
    spec = MODELS.spec(group.spec)
    network = built(lambda: spec.build(data.num_classes))
    given = read_weights(str(config.teacher), config.distillation.network)
    given.load(network, spec)
    cost = measured_cost(network, group.spec, data.num_classes, config.image_size, group.builder)
    return BuiltTeacher(network, cost, f"{group.builder} with {given.name}")


def recipe_lines(
    config: RunConfig, cost: "Complexity", teacher: BuiltTeacher | None
) -> tuple[int, list[str]]:
    """Bytes of memory that the recipe adds to plain training, and what to say of it first."""
    nbytes, parts = 0, []
    if config.accumulate > 1:
        images = config.accumulate * config.batch_size
        parts.append(f"optimizer step every {config.accumulate} batches ({images:,} images)")
    if config.ema:
        nbytes += 4 * (cost.params + cost.buffers)  # in float32
        parts.append(f"moving average of the weights, decay {config.ema:g}")
    if config.eval_every > 1:
        parts.append(f"evaluated every {plural(config.eval_every, 'epoch')}")
    lines = [f"recipe    {'; '.join(parts)}"] if parts else []
    if teacher:
        nbytes += teacher.nbytes
        lines.append(f"teacher   {teacher.described(config, cost)}")
    return nbytes, lines


def _check_final(state: dict[str, Any], result: Result, path: Path) -> None:
    """Raise UsageError where a checkpoint is not that of the finished run's last epoch."""
    try:
        reached = state["position"]["rows"][-1]["test_loss"]
    except (KeyError, IndexError, TypeError):
        reached = None
    if reached != result.final.test_loss:
        raise UsageError(f"{path} is not of the last epoch of the run beside it; train it again")
