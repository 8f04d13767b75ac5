"""Searches with Optuna: trials are runs, judged on training images that were held out.

The trials are in Optuna's journal in the search's folder. A search that was interrupted resumes the
runs of its unfinished trials and goes on; the same search with more trials continues it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from filelock import FileLock, Timeout

from ..errors import LwbenchError, UsageError
from ..logs import console
from ..runs.files import explained_writes
from ..runs.schema import Search as Trial
from .local import Failure, show_failures
from .plan import PlannedRun

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

# what a trial is judged by: the column of metrics.csv at the last epoch, and the better direction
OBJECTIVES: Mapping[str, tuple[str, Literal["maximize", "minimize"]]] = {
    "val_top1": ("validation_top1", "maximize"),
    "val_loss": ("validation_loss", "minimize"),
}
MOST_SHOWN = 10


class Range(Protocol):
    """Texts to choose from, or the bounds of a number."""

    @property
    def choices(self) -> tuple[str, ...]: ...
    @property
    def bounds(self) -> tuple[float, float]: ...
    @property
    def is_log(self) -> bool: ...


@dataclass(frozen=True)
class Search:
    """A search over `ranges`. `planned`: runs with given values; `make`: makes runs."""

    folder: Path
    ranges: Mapping[str, Range]
    objective: str
    planned: Callable[[Sequence[Mapping[str, Any]]], list[PlannedRun]]
    make: Callable[[Sequence[PlannedRun]], list[Failure]]

    def run(self, n_trials: int, at_once: int) -> int:
        """Make trials until there are `n_trials`, `at_once` chosen together; 1 if a run failed."""
        with explained_writes(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", timeout=0)
            try:
                with lock:
                    return self._run(n_trials, at_once)
            except Timeout:
                raise UsageError(f"{self.folder} is being searched by another process") from None

    def _run(self, n_trials: int, at_once: int) -> int:
        study = self._study()
        failures: list[Failure] = []
        while batch := self._batch(study, n_trials, at_once):
            jobs = self.planned([trial.params for trial in batch])
            failures += self.make(jobs)
            for trial, job in zip(batch, jobs, strict=True):
                self._tell(study, trial, job)
        self._show(study)
        return show_failures(failures)

    def _study(self) -> "Study":
        try:
            import optuna
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend
        except ImportError:
            raise LwbenchError("sweeper=optuna needs Optuna: pip install lwbench[optuna]") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(self.folder / "journal.log"))),
            study_name=self.folder.name,
            direction=OBJECTIVES[self.objective][1],
            load_if_exists=True,
        )

    def _batch(self, study: "Study", n_trials: int, at_once: int) -> list["FrozenTrial"]:
        """The trials that an interrupted search has left, else new ones."""
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        left = []
        for trial in study.get_trials(states=[TrialState.RUNNING]):
            if trial.params.keys() == self.ranges.keys():
                left.append(trial)
            else:  # interrupted while its values were being chosen
                study.tell(trial.number, state=TrialState.FAIL)
        if left:
            return left
        count = len(study.trials)
        # a seed of its own for every batch: a search that was interrupted chooses what one that
        # was not would have chosen
        study.sampler = TPESampler(seed=count, constant_liar=True)
        for _ in range(min(at_once, n_trials - count)):
            asked = study.ask()
            for key, one in self.ranges.items():
                self._suggest(asked, key, one)
        return study.get_trials(states=[TrialState.RUNNING])

    @staticmethod
    def _suggest(trial: Any, key: str, one: Range) -> None:
        if one.choices:
            trial.suggest_categorical(key, one.choices)
            return
        low, high = one.bounds
        is_whole = isinstance(low, int) and isinstance(high, int)
        suggest = trial.suggest_int if is_whole else trial.suggest_float
        suggest(key, low, high, log=one.is_log)

    def _tell(self, study: "Study", trial: "FrozenTrial", job: PlannedRun) -> None:
        from optuna.trial import TrialState

        rows = job.run.metrics()
        text = rows[-1].get(OBJECTIVES[self.objective][0], "") if rows else ""
        if job.run.read_result() is None or not text:
            study.tell(trial.number, state=TrialState.FAIL)
        else:
            with explained_writes(job.run.path):
                job.run.record_search(Trial(objective=self.objective, keys=tuple(self.ranges)))
            study.tell(trial.number, float(text))

    def _show(self, study: "Study") -> None:
        from optuna.trial import TrialState

        done = study.get_trials(states=[TrialState.COMPLETE])
        is_loss = OBJECTIVES[self.objective][1] == "minimize"
        done.sort(key=lambda trial: trial.value or 0.0, reverse=not is_loss)
        screen = console()
        screen.print(f"{len(study.trials)} trials in {self.folder}, {len(done)} finished")
        for trial in done[:MOST_SHOWN]:
            values = " ".join(f"{key}={value}" for key, value in trial.params.items())
            screen.print(f"{trial.value:8.4f}  {values}", highlight=False)
        screen.print(
            f"{self.objective} is of held-out training images: values were chosen on them, so that "
            "the accuracy to report is that of new runs on the test images"
        )
