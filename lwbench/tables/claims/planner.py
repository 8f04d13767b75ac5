"""How many seeds a comparison needs, from the spread seen so far.

The power of the two-sided paired t-test for a fixed number of pairs, by the noncentral t
distribution. A test that stays valid under looking needs up to a tenth more seeds at the most, and
fewer on average (docs/guide.md).
"""

import statistics
from bisect import bisect_left
from collections.abc import Sequence
from math import sqrt

from ...runs.records import Record
from ..cells import Cell, FilledTable
from ..statistics import ALPHA, MIN_RUNS, NO_DIFFERENCE, TOO_FEW

POWER = 0.8
MOST = 200  # pairs that a plan looks ahead


def pairs_needed(
    difference: float, sd: float, power: float = POWER, alpha: float = ALPHA
) -> int | None:
    """The least number of pairs that shows a difference with this power; None above MOST.

    `sd`: standard deviation of the paired differences, in the unit of `difference`; `alpha`: that
    of one test, divided by the number of tests where p is corrected.
    """
    if sd <= 0 or not difference:
        return MIN_RUNS if difference else None
    numbers = range(MIN_RUNS, MOST + 1)  # the power rises with n
    at = bisect_left(numbers, power, key=lambda n: power_of(n, difference / sd, alpha))
    return numbers[at] if at < len(numbers) else None


def power_of(n: int, effect: float, alpha: float = ALPHA) -> float:
    """The power of n pairs where the mean difference is `effect` standard deviations."""
    from scipy.special import nctdtr, stdtrit

    limit = float(stdtrit(n - 1, 1 - alpha / 2))
    noncentrality = abs(effect) * sqrt(n)
    below, above = (nctdtr(n - 1, noncentrality, t) for t in (-limit, limit))
    return float(below + 1 - above)


def hours(seconds: float) -> str:
    """`4 h`, `25 min`."""
    return f"{seconds / 3600:.0f} h" if seconds >= 5400 else f"{max(1, seconds / 60):.0f} min"


def more_seeds(have: int, needed: int | None, seconds_per_pair: float | None) -> str:
    """`about 9 more seeds, 4 h here`."""
    if needed is None:
        return f"more than {MOST} seeds"
    if needed <= have:
        return f"the {have} pairs are enough"
    more = needed - have
    time = "" if seconds_per_pair is None else f", {hours(more * seconds_per_pair)} here"
    return f"about {more} more seed{'s' if more > 1 else ''}{time}"


def remarks(
    filled: FilledTable, difference: float | None = None, power: float = POWER
) -> list[str]:
    """A sentence for every comparison of a table that is not decided.

    `difference`: what is to be shown, in points, and then for every comparison; None: what is seen.
    """
    bases = {cell.column: cell for cell in filled.cells if cell.row == filled.table.baseline}
    lines = []
    for cell in filled.cells:
        found = cell.comparison
        if found is None or cell.sample is None:
            continue
        if difference is None and found.word not in (NO_DIFFERENCE, TOO_FEW):
            continue
        base = bases[cell.column]
        differences = paired_differences(cell, base)
        if len(differences) < 2:
            continue
        tests = sum(c.comparison is not None for c in filled.cells if c.column == cell.column)
        seen = statistics.fmean(differences) if difference is None else difference
        needed = pairs_needed(seen, statistics.stdev(differences), power, ALPHA / tests)
        seconds = seconds_of_runs([*cell.runs, *base.runs])
        text = more_seeds(len(differences), needed, seconds)
        state = found.word if difference is not None else "undecided"
        lines.append(f"{cell.row}, {cell.column}: {state}; {text} for a power of {power:g}.")
    return lines


def paired_differences(cell: Cell, base: Cell) -> list[float]:
    """The differences over the seeds that both have."""
    if cell.sample is None or base.sample is None:
        return []
    one, other = cell.sample.values, base.sample.values
    return [one[seed] - other[seed] for seed in sorted(set(one) & set(other))]


def seconds_of_runs(runs: Sequence[Record]) -> float | None:
    """What one more seed takes of every configuration among the runs."""
    took: dict[str, list[float]] = {}
    for record in runs:
        took.setdefault(record.result.identity, []).append(record.result.seconds)
    return sum(map(statistics.fmean, took.values())) if took else None
