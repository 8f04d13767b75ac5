"""What tables' cells need: which runs are finished, which can go on, which are missing.

Plans only; the runs themselves are a sweep's affair.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from ..runs.directory import Run
from ..runs.identity import identity
from ..runs.records import Record
from ..tables.published import Table

STATES = ("finished", "kept", "under way", "resumable", "missing")
ComposedRun = tuple[Mapping[str, Any], Mapping[str, str]]  # configuration, choices in the groups


@dataclass(frozen=True)
class Planned:
    """A run that cells need."""

    overrides: tuple[str, ...]
    config: Mapping[str, Any]
    choices: Mapping[str, str]
    state: str  # one of STATES
    epochs_done: int
    seconds: float | None  # what is left of it, estimated; None where nothing like it has run
    basis: str  # what the estimate is from

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.state in ("finished", "kept")

    @property
    def command(self) -> str:
        """What one would type."""
        return shlex.join(["lwbench", "train", *self.overrides])

    @property
    def line(self) -> str:
        """The command for a shell: a comment where there is nothing to do."""
        if self.state == "finished":
            return f"# finished: {self.command}"
        if self.state == "kept":
            return f"# finished, kept: {self.command}"
        if self.state == "missing":
            return self.command
        how = "goes on after" if self.state == "resumable" else "another process is at it, after"
        epochs = f"{self.epochs_done} of {self.config['epochs']} epochs"
        return f"{self.command}  # {how} {epochs}"


def requests(tables: Sequence[Table], extra: Sequence[str]) -> list[tuple[str, ...]]:
    """The runs behind the tables' accuracy cells, without seeds, each once.

    `extra`: overrides of every run.
    """
    trained = (figure.train for table in tables for figure in table.figures)
    return list(dict.fromkeys((*train, *extra) for train in trained if train is not None))


def seeds(text: str) -> list[int]:
    """The seeds meant: "3" is 0, 1, 2; a list ("0,5", "[7]") is taken as it is.

    Raises UsageError.
    """
    numbers = text.strip("[]").split(",")
    if not all(re.fullmatch(r"\s*\d{1,9}\s*", number) for number in numbers):
        raise UsageError(f"seeds={text}: how many, or a list such as 0,5,7")
    values = [int(number) for number in numbers]
    if len(values) > 1 or text.startswith("["):
        return list(dict.fromkeys(values))
    if values[0] == 0:
        raise UsageError("seeds=0: no run; one run is seeds=1, seed 0 alone seeds=[0]")
    return list(range(values[0]))


def plan(
    composed: Mapping[tuple[str, ...], ComposedRun],
    wanted_seeds: Iterable[int],
    records: Sequence[Record],
) -> list[Planned]:
    """Every run with every seed, a seed after the other: a first table is soon complete.

    `records`: finished runs, local and kept; what they took is what estimates are made from.
    """
    known = {(r.result.identity, r.result.seed, r.kept) for r in records}
    took = _seconds_an_epoch(records)
    planned = []
    for seed in wanted_seeds:
        for overrides, (config, choices) in composed.items():
            seeded = {**config, "seed": seed}
            key = identity(seeded), seed
            local = Run.of(seeded, choices)
            is_local = local.read_result() is not None
            if is_local and (*key, False) not in known:
                raise UsageError(
                    f"{local.path / 'result.json'} is damaged; remove it, and the same command "
                    "makes it again from the run's checkpoint"
                )
            state = "finished" if is_local else "kept" if (*key, True) in known else ""
            planned.append(
                _planned((*overrides, f"seed={seed}"), seeded, choices, local, state, took)
            )
    return planned


def summary(planned: Sequence[Planned], at_once: int) -> list[str]:
    """What the plan comes to, in sentences."""
    counts = {word: sum(p.state == word for p in planned) for word in STATES}
    said = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    lines = [f"{len(planned)} runs: {said}"]
    left = [p for p in planned if not p.is_finished]
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
        lines.append(f"no estimate for {unknown} runs: nothing like them has run here yet")
    return lines


def _planned(
    overrides: tuple[str, ...],
    config: Mapping[str, Any],
    choices: Mapping[str, str],
    run: Run,
    state: str,
    took: Mapping[tuple[Any, ...], float],
) -> Planned:
    state = state or _unfinished(run)
    epochs_done = len(run.metrics()) if state in ("under way", "resumable") else 0
    seconds, basis = _estimate(config, choices, took)
    epochs_left = 0 if state in ("finished", "kept") else config["epochs"] - epochs_done
    return Planned(
        overrides=overrides,
        config=config,
        choices=choices,
        state=state,
        epochs_done=epochs_done,
        seconds=None if seconds is None else seconds * epochs_left,
        basis=basis,
    )


def _unfinished(run: Run) -> str:
    if run.is_locked():
        return "under way"
    return "resumable" if (run.checkpoints / "last.pt").exists() else "missing"


def _estimate(
    config: Mapping[str, Any],
    choices: Mapping[str, str],
    took: Mapping[tuple[Any, ...], float],
) -> tuple[float | None, str]:
    """Seconds an epoch and what they are from: this network's runs, or any of the same images."""
    data = config["data"].get("name") or choices["data"]
    exact = (data, config["image_size"], choices["model"])
    if exact in took:
        return took[exact], "finished runs of the same networks"
    if exact[:2] in took:
        return took[exact[:2]], "finished runs of other networks on the same images"
    return None, ""


def _seconds_an_epoch(records: Sequence[Record]) -> dict[tuple[Any, ...], float]:
    """The newest run's seconds an epoch by (data, image size, model) and by (data, image size)."""
    took: dict[tuple[Any, ...], float] = {}
    for record in sorted(records, key=lambda r: (not r.kept, r.finished)):
        result = record.result
        try:
            place = (result.data, record.config.get("image_size"))
        except UsageError:
            continue
        took[place] = took[*place, result.model] = result.seconds / result.epochs
    return took


def _hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(minutes, 1)} min"
