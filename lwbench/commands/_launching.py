"""The group `launcher` of `train -m` and `reproduce`: how planned runs are made."""

from collections.abc import Callable, Sequence

import yaml

from ..config import train_configs, typed_values
from ..errors import UsageError, nearest
from ..paths import conf_files
from ..runs.runconfig import Overrides, override_key
from ..sweeps import local
from ..sweeps.launchers import LOCAL, Launcher, Local, Ray, Slurm, launcher
from ..sweeps.plan import PlannedRun

Make = Callable[[Sequence[PlannedRun]], list[local.Failure]]


def divided(arguments: Sequence[str]) -> tuple[Launcher, list[str]]:
    """The launcher that the arguments choose, and the other arguments. Raises UsageError."""
    mine = [a for a in arguments if override_key(a).partition(".")[0] == "launcher"]
    rest = [a for a in arguments if a not in mine]
    if not mine:
        return LOCAL, rest
    names = [a.partition("=")[2] for a in mine if override_key(a) == "launcher"]
    name = names[-1] if names else "local"
    files = conf_files("launcher")
    if name not in files:
        raise UsageError(f"no launcher {name!r}{nearest(name, files)}")
    values = yaml.safe_load(files[name].read_text("utf-8"))
    for key, value in typed_values([a for a in mine if "." in override_key(a)], "train").items():
        short = key.partition(".")[2]
        if short == "name" or short not in values:
            others = [f"launcher.{one}" for one in values if one != "name"]
            raise UsageError(f"{key} is no key of launcher={name}{nearest(key, others)}")
        values[short] = value
    return launcher(values, str(files[name])), rest


def maker(chosen: Launcher, at_once: int) -> Make:
    """What makes planned runs with the chosen launcher; `at_once` concerns the local one."""
    if isinstance(chosen, Local):
        if chosen.per_device:
            at_once = chosen.per_device * max(1, len(local.gpus()))
        return lambda jobs: local.run_all(jobs, at_once)
    return lambda jobs: _elsewhere(chosen, jobs)


def _elsewhere(chosen: Slurm | Ray, jobs: Sequence[PlannedRun]) -> list[local.Failure]:
    if any(job.config.force for job in jobs):
        raise UsageError(f"force=true needs launcher=local instead of {chosen.name}")
    if isinstance(chosen, Slurm):
        from ..sweeps import slurm

        return slurm.run_all(jobs, chosen)
    from ..sweeps import ray_tasks

    return ray_tasks.run_all(jobs, chosen)


def planned_runs(requests: Sequence[Overrides]) -> list[PlannedRun]:
    """Overrides as runs. Raises UsageError for the first one that is wrong."""
    configs = train_configs(requests)
    return [PlannedRun(request, configs[request]) for request in requests]
