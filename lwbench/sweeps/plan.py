"""Planned runs: what a sweep or a table's cells need, and how far each run is."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError, plural
from ..paths import config_dir_arguments
from ..runs.directory import Run
from ..runs.records import Record
from ..runs.runconfig import Overrides, RunConfig

STATES = ("finished", "archived", "running", "resumable", "missing")


@dataclass(frozen=True)
class PlannedRun:
    """A run that is to be made: overrides of `lwbench train`, and their configuration.

    `state`: one of STATES at the time of planning. `seconds`: an estimate of what is left, None
    where nothing similar has run; `basis`: what the estimate is from. `directory`: where a run with
    force=true is made.
    """

    overrides: Overrides
    config: RunConfig
    state: str = "missing"
    epochs_done: int = 0
    seconds: float | None = None
    basis: str = ""
    directory: Path | None = None

    @property
    def run(self) -> Run:
        """The run in `directory`, by default the newest one of this configuration and seed."""
        return Run(self.directory) if self.directory else Run.of(self.config)

    @property
    def command(self) -> str:
        """The command that makes the run."""
        return shlex.join(["lwbench", "train", *config_dir_arguments(), *self.overrides])

    @property
    def is_finished(self) -> bool:
        """Whether its result exists now."""
        return self.state == "archived" or self.run.read_result() is not None

    @property
    def line(self) -> str:
        """The command as a line for a shell; commented out where there is nothing to do."""
        if self.state in ("finished", "archived"):
            return f"# {self.state}: {self.command}"
        if self.state == "missing":
            return self.command
        how = "resumes" if self.state == "resumable" else "running in another process,"
        epochs = f"{self.epochs_done} of {self.config.epochs} epochs"
        return f"{self.command}  # {how} after {epochs}"


def settings_of(jobs: Sequence[PlannedRun]) -> list[str]:
    """The overrides of each run that not all share, without those that every summary has."""
    shared = set.intersection(*(set(job.overrides) for job in jobs))
    columns = ("model", "data", "seed", "epochs")
    return [
        " ".join(
            word
            for word in job.overrides
            if word not in shared and word.partition("=")[0] not in columns
        )
        for job in jobs
    ]


def seeds(text: str) -> list[int]:
    """The seeds meant: "3" is 0, 1, 2; a list ("0,5", "[7]") is taken as it is.

    Raises UsageError.
    """
    numbers = text.strip("[]").split(",")
    if not all(re.fullmatch(r"\s*\d{1,9}\s*", number) for number in numbers):
        raise UsageError(f"seeds={text}: expected a number of seeds, or a list such as 0,5,7")
    values = [int(number) for number in numbers]
    if len(values) > 1 or text.startswith("["):
        return list(dict.fromkeys(values))
    if values[0] == 0:
        raise UsageError("seeds=0 asks for no run; seeds=1 is one run, seeds=[0] is seed 0 alone")
    return list(range(values[0]))


def plan(
    configs: Mapping[Overrides, RunConfig], wanted_seeds: Iterable[int], records: Sequence[Record]
) -> list[PlannedRun]:
    """Every configuration with every seed, seed by seed, so that a first table is soon complete.

    `records`: finished runs, local and archived, from whose durations estimates are made. Raises
    UsageError where a result cannot be read.
    """
    known = {(r.result.identity, r.result.seed, r.is_archived) for r in records}
    took = _seconds_per_epoch(records)
    planned = []
    for seed in wanted_seeds:
        for overrides, config in configs.items():
            seeded = config.changed({"seed": seed})
            local = Run.of(seeded)
            key = seeded.identity, seed
            is_local = local.has_result
            if is_local and (*key, False) not in known:
                raise UsageError(
                    f"{local.path / 'result.json'} is damaged\nremove that file: the same command "
                    "then makes it again from the run's checkpoint"
                )
            state = "finished" if is_local else "archived" if (*key, True) in known else ""
            planned.append(_planned((*overrides, f"seed={seed}"), seeded, local, state, took))
    return planned


def summary(planned: Sequence[PlannedRun], at_once: int) -> list[str]:
    """How many runs are in which state, and an estimate of the time, in sentences."""
    counts = {state: sum(p.state == state for p in planned) for state in STATES}
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    lines = [f"{plural(len(planned), 'run')}: {states}"]
    left = [p for p in planned if p.state not in ("finished", "archived")]
    known = [p.seconds for p in left if p.seconds is not None]
    if not left:
        return lines
    if known:
        total = sum(known) / min(at_once, len(left))
        best = " at best" if at_once > 1 else ""  # where the runs do not slow one another down
        lines.append(
            f"about {_hours(total)} with jobs={at_once}{best}, an estimate from "
            f"{'; '.join(sorted({p.basis for p in left if p.seconds is not None}))}"
        )
    if unknown := len(left) - len(known):
        lines.append(f"no estimate for {plural(unknown, 'run')}: nothing similar has run here yet")
    return lines


def _planned(
    overrides: Overrides,
    config: RunConfig,
    run: Run,
    state: str,
    took: Mapping[tuple[Any, ...], float],
) -> PlannedRun:
    state = state or _unfinished(run)
    epochs_done = len(run.metrics()) if state in ("running", "resumable") else 0
    seconds, basis = _estimate(config, took)
    epochs_left = 0 if state in ("finished", "archived") else config.epochs - epochs_done
    left = None if seconds is None else seconds * epochs_left
    return PlannedRun(overrides, config, state, epochs_done, left, basis)


def _unfinished(run: Run) -> str:
    if run.is_locked():
        return "running"
    return "resumable" if (run.checkpoints / "last.pt").exists() else "missing"


def _estimate(config: RunConfig, took: Mapping[tuple[Any, ...], float]) -> tuple[float | None, str]:
    """Seconds per epoch, from runs of this network or of any network on the same images."""
    exact = (config.data_name, config.image_size, config.model_name)
    if exact in took:
        return took[exact], "finished runs of the same networks"
    if exact[:2] in took:
        return took[exact[:2]], "finished runs of other networks on the same images"
    return None, ""


def _seconds_per_epoch(records: Sequence[Record]) -> dict[tuple[Any, ...], float]:
    """The newest run's seconds per epoch by (data, image size, model) and by (data, image size)."""
    took: dict[tuple[Any, ...], float] = {}
    sizes: dict[str, int] = {}  # by identity: reading the file of each of many runs takes long
    for record in sorted(records, key=lambda r: (not r.is_archived, *r.order)):
        result = record.result
        if result.identity not in sizes:
            try:
                sizes[result.identity] = record.config.image_size
            except UsageError:
                continue
        place = (result.data, sizes[result.identity])
        took[place] = took[*place, result.model] = result.seconds / result.epochs
    return took


def _hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(minutes, 1)} min"
