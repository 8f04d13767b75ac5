"""Whether a run may be resumed: the same images, the same configuration, or more epochs of it."""

import shutil
from collections.abc import Callable
from typing import Protocol

from ..errors import UsageError, plural
from .directory import Run
from .files import explained_writes, replacing
from .images import differences, is_same
from .runconfig import RunConfig
from .schema import Images


class ScheduleSpec(Protocol):
    """A learning-rate schedule that can be built for a rate and a number of epochs."""

    def build(self, lr: float, epochs: int) -> Callable[[float], float]: ...


def check_unedited(run: Run, config: RunConfig) -> None:
    """Raises UsageError, with what differs, where a directory's config.yaml was changed."""
    if not (run.path / "config.yaml").exists():
        return
    stored = run.read_config()
    then, now = (c.identifying | {"seed": c.seed} for c in (stored, config))
    if differing := [key for key in (then | now) if then.get(key) != now.get(key)]:
        found = ", ".join(f"{k}={then.get(k)} for {now.get(k)}" for k in sorted(differing)[:3])
        raise UsageError(
            f"{run.path / 'config.yaml'} was changed ({found}) and no longer says what was "
            "trained\nrestore it, or choose another out=<folder>"
        )


def check_same_images(run: Run, now: Images) -> None:
    """Raises UsageError, with what differs, where the run was made with other images."""
    recorded = run.environment().data
    if not is_same(recorded, now):
        raise UsageError(
            f"{run.path} was made with other images: {differences(recorded, now)}\n"
            f"force=true trains on those in {now.root or 'the default folder'}, in a directory of "
            "its own"
        )


def extended(
    run: Run, config: RunConfig, images: Images, steps_per_epoch: int, scheduler: ScheduleSpec
) -> None:
    """Start `run` from what a shorter run of the same configuration and seed has trained.

    Does nothing where `run` has checkpoints already. Raises UsageError where there is no shorter
    run, or where it trained at other learning rates: the result must equal that of training without
    a break.
    """
    if any(run.checkpoints.glob("*.pt")):
        return
    shorter = _longest_shorter(run, config)
    if shorter is None:
        raise UsageError(
            f"extend=true: {run.path.parent} has no run of this configuration and seed with fewer "
            f"than epochs={config.epochs}"
        )
    check_same_images(shorter, images)
    if (epochs := shorter.read_config().epochs) % config.eval_every:
        raise UsageError(
            f"extend=true: {shorter.path} was evaluated after its {plural(epochs, 'epoch')}, which "
            f"eval_every={config.eval_every} does not do in a longer run"
        )
    _check_same_rates(shorter, config, steps_per_epoch, scheduler)
    with explained_writes(run.path):  # last.pt is written last: it marks the copy as complete
        for name in ("env.json", "checkpoints/best.pt", "checkpoints/last.pt"):
            with open(shorter.path / name, "rb") as source, replacing(run.path / name) as target:
                shutil.copyfileobj(source, target)


def _longest_shorter(run: Run, config: RunConfig) -> Run | None:
    found = []
    for path in run.path.parent.glob(f"*-s{config.seed}*/checkpoints/last.pt"):
        other = Run(path.parent.parent)
        stored = other.read_config()
        is_same = stored.changed({"epochs": config.epochs}).identity == config.identity
        if is_same and stored.seed == config.seed and stored.epochs < config.epochs:
            found.append((stored.epochs, other.path))
    return Run(max(found)[1]) if found else None


def _check_same_rates(shorter: Run, config: RunConfig, steps: int, scheduler: ScheduleSpec) -> None:
    epochs = shorter.read_config().epochs
    before, now = (scheduler.build(config.lr, count) for count in (epochs, config.epochs))
    for step in range(epochs * steps):
        progress = step // steps + step % steps / steps
        if before(progress) != now(progress):
            raise UsageError(
                f"extend=true: scheduler={config.scheduler.builder} depends on epochs: "
                f"{shorter.path} trained its {epochs} epochs at other learning rates\n"
                "without extend=true the longer run is trained from its beginning"
            )
