"""Add seeds to comparisons until they are decided: `lwbench reproduce ... until=decided`."""

import os
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..config import train_configs
from ..engine.signals import Interrupted
from ..errors import LwbenchError, UsageError, plural
from ..runs.records import records
from ..runs.runconfig import Overrides, RunConfig, override_key
from ..sweeps import plan
from ..sweeps.local import Failure, run_all
from ..sweeps.plan import PlannedRun
from ..tables import cells
from ..tables.cells import FilledTable
from ..tables.claims import claim, designs, listing, planner, printed, testing
from ..tables.claims.claim import Compare
from ..tables.claims.designs import Design
from ..tables.claims.printed import Part
from ..tables.claims.sequential import FIRST, LARGEST
from ..tables.claims.testing import UNDECIDED, Outcome
from ..tables.studies import asked
from ..tables.table import ACCURACY, Table
from ._claims import is_missing

MARGIN = 20.0  # seconds before the end of the budget at which running trainings save their state


@dataclass(frozen=True)
class Growth:
    """What is to be decided, and how much it may cost."""

    families: Sequence[Sequence[Part]]  # tests in one family are corrected together
    overrides: Overrides
    alpha: float
    most: int | None
    out: Path
    configs: Mapping[Overrides, RunConfig]
    at_once: int = 1
    archived: bool = True
    deadline: float | None = None  # of time.monotonic()
    design: Design = field(default_factory=lambda: Design(0.05, None))

    def train(self, part: Part, row: str) -> Overrides:
        """The overrides of a row's runs."""
        figures = part.table.figures
        figure = next(f for f in figures if f.row == row and f.column == part.columns[0])
        return (*(figure.train or ()), *self.overrides)

    def identities(self, part: Part) -> tuple[str, str]:
        """Those of both rows' runs."""
        left, right = (self.configs[self.train(part, r)] for r in (part.left, part.right))
        return left.identity, right.identity

    def outcomes(self) -> list[Outcome]:
        """What the runs so far say of every comparison."""
        found = records(self.out, archived=self.archived)
        filled: dict[str, FilledTable] = {}
        for part in (part for family in self.families for part in family):
            if part.table.name not in filled:
                study = asked([part.table], self.overrides, self.configs, found)
                filled[part.table.name] = cells.filled(part.table, {}, study)
        return [
            one
            for family in self.families
            for one in testing.corrected(
                [testing.outcome(part, filled[part.table.name], [self.design]) for part in family]
            )
        ]

    def undecided(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Those that more seeds may decide, first the one that is expected to need fewest."""
        most = self.most or LARGEST
        left = [one for one in outcomes if one.verdict == UNDECIDED and one.n < most]
        return sorted(left, key=_expected)

    def batch(self, left: Sequence[Outcome]) -> list[PlannedRun]:
        """The next runs: one more seed of the first comparisons, enough to run `at_once`."""
        chosen: dict[tuple[Overrides, int], PlannedRun] = {}
        found = records(self.out, archived=self.archived)
        for one in left:
            trains = [self.train(one.part, row) for row in (one.part.left, one.part.right)]
            for run in plan.plan({t: self.configs[t] for t in trains}, [one.n], found):
                if run.state not in ("finished", "archived"):
                    chosen[run.overrides, one.n] = run
            if len(chosen) >= self.at_once:
                break
        return list(chosen.values())


def prepared(
    keys: Mapping[str, str], overrides: Overrides, tables: Sequence[Table], at_once: int
) -> Growth:
    """Check the keys and compose the configurations. Raises UsageError."""
    alpha, most = _alpha(keys.get("alpha", "0.05")), _most(keys.get("max_seeds", "20"))
    budget = seconds(keys["budget"]) if "budget" in keys else None
    has_root = any(override_key(override) == "data.root" for override in overrides)
    if "claims" in keys:
        families = _claimed(keys["claims"], has_root)
    else:
        families = [family for table in tables for family in _tabulated(table)]
    parts = [part for family in families for part in family]
    if not parts:
        raise UsageError("nothing to decide: no two rows of one accuracy column on data at hand")
    growth = Growth(families, overrides, alpha, most, Path("outputs"), {}, at_once)
    wanted = {growth.train(p, row): None for p in parts for row in (p.left, p.right)}
    full = [train[: len(train) - len(overrides)] for train in wanted]
    tabled = {f.train: None for p in parts for f in p.table.figures if f.train}
    extended = [(*train, *overrides) for train in tabled]
    configs = train_configs([*wanted, *full, *tabled, *extended])
    return replace(
        growth,
        configs=configs,
        out=Path(configs[next(iter(wanted))].out),
        archived=keys.get("archived", "true") == "true",
        deadline=None if budget is None else time.monotonic() + budget,
    )


def grow(growth: Growth, is_dry: bool) -> int:
    """Add seeds until every comparison is decided, or none may be added; 1 where a run failed."""
    parts = [part for family in growth.families for part in family]
    comparisons = [(part.name, growth.identities(part)) for part in parts]
    design = Design(growth.alpha, growth.most, frozenset(designs.pair(*i) for _, i in comparisons))
    print(f"# {plural(len(parts), 'comparison')}: {design.method}, alpha {growth.alpha:g}")
    if not is_dry:
        design, path = designs.record(growth.out, growth.alpha, growth.most, comparisons)
        print(f"# design recorded in {path}")
    growth = replace(growth, design=design)
    if is_dry:
        outcomes = growth.outcomes()
        _print(growth, outcomes, growth.batch(growth.undecided(outcomes)), "dry run")
        return 0
    reason, failures, following = _grown(growth)
    _print(growth, growth.outcomes(), following, reason)
    for failure in failures:
        print(f"failed: {failure.job.command}: {failure.reason}")
    return 1 if failures else 0


def _grown(growth: Growth) -> tuple[str, Sequence[Failure], Sequence[PlannedRun]]:
    """Why it ended, what failed, and the runs that would be next."""
    before: object = None
    while True:
        outcomes = growth.outcomes()
        left = growth.undecided(outcomes)
        if not left:
            is_decided = all(one.verdict != UNDECIDED for one in outcomes)
            return "every comparison is decided" if is_decided else "max_seeds is reached", (), ()
        batch = growth.batch(left)
        if not batch or (state := [(one.part.name, one.n) for one in outcomes]) == before:
            raise LwbenchError(
                f"the runs of {left[0].part.name} fill no pair: they are of other images than the "
                "published set, or of different precisions; lwbench table shows which"
            )
        before = state
        if growth.deadline is not None and not _fits(batch, growth):
            return "the budget does not allow the next runs", (), batch
        try:
            with _until(growth.deadline) as is_over:
                failures = run_all(batch, growth.at_once)
        except Interrupted:
            if not is_over:
                raise
            return "the budget is spent; running trainings saved their state", (), batch
        if failures:
            return "a run failed", failures, batch


def _fits(batch: Sequence[PlannedRun], growth: Growth) -> bool:
    """Whether the next runs are expected to end in time; unknown runs are begun."""
    left = (growth.deadline or 0.0) - time.monotonic() - MARGIN
    expected = sum(run.seconds or 0.0 for run in batch) / min(growth.at_once, len(batch))
    return left > expected


@contextmanager
def _until(deadline: float | None) -> Iterator[list[int]]:
    """Interrupt the runs within the block shortly before the deadline; yields [1] if it came."""
    over: list[int] = []
    if deadline is None:
        yield over
        return

    def end(signum: int, frame: object) -> None:
        over.append(1)
        os.kill(os.getpid(), signal.SIGTERM)  # the sweep hands it on to every run

    former = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, max(0.1, deadline - time.monotonic() - MARGIN))
    try:
        yield over
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def _print(
    growth: Growth, outcomes: Sequence[Outcome], following: Sequence[PlannedRun], reason: str
) -> None:
    for one in outcomes:
        text = listing.measured(one) if one.n else f"{one.part.name}: no pair yet"
        wish = ""
        if one.verdict == UNDECIDED and one.sd is not None and one.n < (growth.most or LARGEST):
            wish = f"; {planner.more_seeds(one.n, _needed(one), planner.seconds_of_runs(one.runs))}"
        print(f"{text}{wish}")
    print(f"# {reason}")
    if following:
        print("# next:")
        print("\n".join(run.line for run in following))


def _needed(one: Outcome) -> int | None:
    return None if one.sd is None else planner.pairs_needed(one.distance, one.sd)


def _expected(one: Outcome) -> tuple[int, int, str]:
    """Sorts comparisons: pilots first, then by the seeds that are expected to be missing."""
    if one.n < FIRST:
        return 0, one.n, one.part.name
    needed = _needed(one)
    return 1, planner.MOST if needed is None else max(needed - one.n, 1), one.part.name


def _claimed(name: str, has_root: bool) -> list[list[Part]]:
    """The comparisons of accuracy that claims make, a family per document."""
    families = []
    for document in claim.load(name):
        found: dict[str, Part] = {}
        for one in document.claims:
            for part in printed.parts(document, one):
                if part.is_range or not _is_runnable(part):
                    continue
                if _is_out_of_reach(part.data[0]) and not has_root:
                    print(
                        f"# left out: {document.name}/{one.id}, {part.name}: needs {part.data[0]}"
                    )
                    continue
                found.setdefault(part.name, part)
        families.append(list(found.values()))
    return families


def _tabulated(table: Table) -> list[list[Part]]:
    """Every row of a table against its baseline, a family per accuracy column."""
    families = []
    for key, column in table.columns.items():
        if column.kind not in ACCURACY:
            continue
        if _is_out_of_reach(column.data or ""):
            print(f"# left out: {table.name}, {key}: needs {column.data}")
            continue
        rows = [row for row in table.rows if row != table.baseline]
        family = []
        for row in rows:
            compare = Compare(left=[row], right=[table.baseline], relation=">", columns=[key])
            family.append(Part(table, compare, row, table.baseline, (key,)))
        families.append([part for part in family if _is_runnable(part)])
    return families


def _is_out_of_reach(data: str) -> bool:
    """Whether a data set is not at hand and is not downloaded within minutes either."""
    return data not in ("cifar10", "cifar100", "folder") and is_missing(data)


def _is_runnable(part: Part) -> bool:
    figures = {f.row: f for f in part.table.figures if f.column == part.columns[0]}
    return all(figures[row].train is not None for row in (part.left, part.right))


def seconds(text: str) -> float:
    """`3h`, `90m`, `1h30m`, `45s` in seconds. Raises UsageError."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?", text.strip())
    if not text.strip() or not found:
        raise UsageError(f"budget={text}: expected a time such as 3h, 90m or 1h30m")
    hours, minutes, rest = (int(group or 0) for group in found.groups())
    return float(3600 * hours + 60 * minutes + rest)


def _alpha(text: str) -> float:
    try:
        alpha = float(text)
    except ValueError:
        alpha = 0.0
    if not 0 < alpha <= 0.5:
        raise UsageError(f"alpha={text}: expected a probability such as 0.05")
    return alpha


def _most(text: str) -> int | None:
    if text == "none":
        return None
    if not text.isdecimal() or not FIRST <= int(text) <= LARGEST:
        raise UsageError(
            f"max_seeds={text}: expected {FIRST} to {LARGEST}, or none for a test that needs no "
            "largest number"
        )
    return int(text)
