"""Whether a run may go on: the same images, the same configuration, or more epochs of it."""

from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..registry import SCHEDULERS
from .directory import Run
from .files import explained_writes, write_atomically
from .identity import identifying, identity


def check_unedited(run: Run, config: dict[str, Any]) -> None:
    """A directory's config.yaml says what its name says. Raises UsageError with what differs."""
    if not (run.path / "config.yaml").exists():
        return
    stored = run.read_config()
    then, now = (identifying(c) | {"seed": c.get("seed")} for c in (stored, config))
    if differing := [key for key in (then | now) if then.get(key) != now.get(key)]:
        found = ", ".join(f"{k}={then.get(k)} for {now.get(k)}" for k in sorted(differing)[:3])
        raise UsageError(
            f"{run.path / 'config.yaml'} was changed ({found}), and no longer says what was "
            "trained\nput it back, or choose another out=<folder>"
        )


def check_same_images(run: Run, data: Any) -> None:
    """Raises UsageError where the run was made with other images than `data` has."""
    recorded = run.read_env().get("data", {})
    if recorded and recorded.get("digest") != data.digest:
        raise UsageError(
            f"{run.path} was made with other images ({recorded.get('train_size')} to train on, "
            f"from {recorded.get('root')}; now {data.train_size}); choose another out=<folder>"
        )


def extended(run: Run, config: dict[str, Any], data: Any) -> None:
    """Start `run` from what a shorter run of the same configuration and seed has trained.

    Nothing to do where it has started already. Raises UsageError where there is no shorter run, or
    where it trained at other learning rates: the result must be that of training without a break.
    """
    if any(run.checkpoints.glob("*.pt")):
        return
    shorter = _longest_shorter(run, config)
    if shorter is None:
        raise UsageError(
            f"extend=true: {run.path.parent} has no run of this configuration and seed with fewer "
            f"than epochs={config['epochs']}"
        )
    check_same_images(shorter, data)
    _check_same_rates(shorter, config, data.steps_per_epoch)
    with explained_writes(run.path):  # last.pt last: its presence means that all is there
        for name in ("env.json", "checkpoints/best.pt", "checkpoints/last.pt"):
            write_atomically(run.path / name, (shorter.path / name).read_bytes())


def _longest_shorter(run: Run, config: dict[str, Any]) -> Run | None:
    found = []
    for path in run.path.parent.glob(f"*-s{config['seed']}*/checkpoints/last.pt"):
        other = Run(path.parent.parent)
        stored = other.read_config()
        epochs = stored.get("epochs")
        is_same = identity(stored | {"epochs": config["epochs"]}) == identity(config)
        if is_same and stored.get("seed") == config["seed"] and epochs < config["epochs"]:
            found.append((epochs, other.path))
    return Run(max(found)[1]) if found else None


def _check_same_rates(shorter: Run, config: dict[str, Any], steps: int) -> None:
    epochs = shorter.read_config()["epochs"]
    lr = config["optimizer"]["lr"]
    before, now = (
        SCHEDULERS.build(config["scheduler"], lr, count) for count in (epochs, config["epochs"])
    )
    for step in range(epochs * steps):
        progress = step // steps + step % steps / steps
        if before(progress) != now(progress):
            raise UsageError(
                f"extend=true: scheduler={config['scheduler']['builder']} depends on epochs: "
                f"{shorter.path} trained its {epochs} epochs at other rates\n"
                "without extend=true the longer run is trained from its beginning"
            )


def root_of(config: dict[str, Any]) -> str | None:
    """Where the images lie, as an absolute path."""
    root = config["data"].get("root")
    return str(Path(root).resolve()) if root else None
