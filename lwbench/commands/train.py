"""Train a network on a data set; -m sweeps."""

from collections.abc import Sequence

from ..config import expanded, train_config
from ..errors import UsageError
from ..runs.runconfig import RunConfig
from ._images import check_distinct, check_finished
from ._keys import Key, help_of_groups
from ._training import train

FLAGS = ("-m", "--cfg")
KEYS: dict[str, Key] = {}
SWEEPS = """\
with -m:
  launcher=local | slurm | ray    where the runs are made; its keys: lwbench list launcher
  sweeper=optuna n_trials=50 data.validation=0.1 'optimizer.lr=interval(0.01,0.3)'
                                  search values on held-out images; jobs=<n> trials at once"""


def help() -> str:
    return f"{help_of_groups('train', '[-m] [--cfg] ')}\n\n{SWEEPS}"


def run(arguments: list[str], flags: set[str]) -> int:
    """Train, sweep (-m), or print the configuration of every run (--cfg)."""
    if "-m" not in flags:
        for key in ("jobs", "launcher"):
            if any(argument.startswith((f"{key}=", f"{key}.")) for argument in arguments):
                raise UsageError(f"{key}= has no effect on a single run; -m makes a sweep of many")
        config = train_config(arguments)
        if "--cfg" in flags:
            return _show([config])
        train(config)
        return 0
    from ..sweeps.local import number_of_jobs, sweep
    from ._launching import divided, maker, planned_runs

    launcher, arguments = divided(arguments)
    if any(argument.startswith("sweeper=") for argument in arguments):
        from ._searching import search

        return search(arguments, launcher, "--cfg" in flags)
    planned = planned_runs(expanded(arguments))
    if "--cfg" in flags:
        return _show([job.config for job in planned])
    at_once = [a.partition("=")[2] for a in arguments if a.startswith("jobs=")] or ["1"]
    check_distinct([job.config for job in planned])
    # what force=true trains again may be of other images
    answers = [job for job in planned if job.is_finished and not job.config.force]
    check_finished([(job.run, job.config) for job in answers])
    return sweep(planned, maker(launcher, number_of_jobs(at_once[-1])))


def _show(configs: Sequence[RunConfig]) -> int:
    import yaml

    print("---\n".join(yaml.safe_dump(c.values, sort_keys=False) for c in configs).rstrip())
    return 0
