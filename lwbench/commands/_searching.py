"""`train -m sweeper=optuna`: search values of keys on held-out training images."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..config import Range, search_space
from ..errors import UsageError
from ..runs.runconfig import override_key
from ..sweeps.launchers import Launcher, Slurm
from ..sweeps.local import number_of_jobs
from ..sweeps.search import OBJECTIVES, Search
from ._keys import Key, parsed
from ._launching import maker, planned_runs

OWN = {
    "sweeper": Key("", ("optuna",)),
    "n_trials": Key(""),
    "objective": Key(""),
    "jobs": Key(""),
}


def search(arguments: Sequence[str], launcher: Launcher, is_shown: bool) -> int:
    """Search as the arguments say; 1 where a run failed.

    Raises UsageError for keys that are missing, and for an objective on test images.
    """
    keys = parsed([a for a in arguments if override_key(a) in OWN], OWN)
    if is_shown:
        raise UsageError("--cfg cannot be combined with sweeper=optuna, which chooses as it goes")
    if isinstance(launcher, Slurm) and (launcher.dry_run or not launcher.wait):
        raise UsageError("sweeper=optuna waits for its runs: launcher.wait=true dry_run=false")
    fixed, ranges = search_space([a for a in arguments if override_key(a) not in OWN])
    if not ranges:
        raise UsageError("nothing to search: give a key as interval(a,b) or choice(a,b)")
    wanted = _number(keys.get("n_trials", ""))
    at_once = number_of_jobs(keys.get("jobs", "1"))
    objective = keys.get("objective", "val_top1")
    if objective not in OBJECTIVES:
        raise UsageError(
            f"objective={objective}: expected {' or '.join(OBJECTIVES)}; a search on test images "
            "would make their accuracy too high"
        )
    (first,) = planned_runs([(*fixed, *_overrides(_lowest(ranges)))])
    if not first.config.validation:
        raise UsageError("sweeper=optuna needs held-out training images: data.validation=0.1")
    text = json.dumps([sorted(fixed), sorted(ranges.items()), objective])
    name = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return Search(
        folder=Path(first.config.out) / "searches" / name,
        ranges=ranges,
        objective=objective,
        planned=lambda values: planned_runs([(*fixed, *_overrides(v)) for v in values]),
        make=maker(launcher, at_once),
    ).run(wanted, at_once)


def _overrides(values: Mapping[str, object]) -> list[str]:
    return [f"{key}={value}" for key, value in values.items()]


def _lowest(ranges: Mapping[str, Range]) -> dict[str, object]:
    return {key: one.choices[0] if one.choices else one.bounds[0] for key, one in ranges.items()}


def _number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise UsageError(f"n_trials={text}: how many runs the search may make, 1 to 10000")
    return int(text)
