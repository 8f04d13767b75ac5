"""Decide comparisons of a claim by runs: difference, interval and p over paired seeds.

The two-sided test of a boundary decides every relation: `>` is about the boundary 0, `>=` about
minus the margin, `~` about both margins (two one-sided tests: within both is supported, beyond one
is contradicted).
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

from ...runs.records import Record
from ..cells import Cell, FilledTable
from ..statistics import ALPHA, MIN_RUNS, holm, paired
from .claim import Compare
from .designs import Design
from .printed import Part

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"


@dataclass(frozen=True)
class Outcome:
    """What the runs say of a comparison. `p` is always valid where a `design` was recorded."""

    part: Part
    seeds: tuple[int, ...] = ()
    difference: float | None = None  # mean over the pairs, left minus right, in points
    sd: float | None = None  # of the differences
    interval: tuple[float, float] | None = None  # 95 %, of the mean, for a fixed number of seeds
    p: float | None = None
    corrected: float | None = None
    p_fixed: float | None = None  # beside an always-valid p: for a fixed number of seeds
    towards: str = UNDECIDED  # the verdict if p is small enough
    design: Design | None = None
    runs: tuple[Record, ...] = ()

    @property
    def n(self) -> int:
        """The number of pairs."""
        return len(self.seeds)

    @property
    def distance(self) -> float:
        """How far the difference is from the boundary of the relation, in points."""
        seen = self.difference or 0.0
        return min(abs(seen - boundary) for boundary in boundaries(self.part.compare))

    @property
    def verdict(self) -> str:
        """`supported`, `contradicted` or `undecided`."""
        alpha = self.design.alpha if self.design else ALPHA
        return self.towards if (self.corrected or 1.0) < alpha and self.p is not None else UNDECIDED


def outcome(part: Part, filled: FilledTable, designs: Sequence[Design] = ()) -> Outcome:
    """Test a comparison on the paired runs of a study."""
    cells = _cells(part, filled)
    runs = tuple({r.run.path: r for cell in cells.values() for r in cell.runs}.values())
    differences = _differences(part, cells)
    design = _design(part, cells, designs)
    if design is not None:  # seed by seed from 0 on: what a stopping rule looked at
        differences = _consecutive(differences)
    found = Outcome(part, tuple(differences), runs=runs, design=design)
    values = list(differences.values())
    if not values:
        return found
    found = replace(found, difference=statistics.fmean(values))
    if len(values) < MIN_RUNS:
        return found
    sd = statistics.stdev(values)
    fixed, towards = _tested(values, part.compare, lambda d: paired(d).p or 0.0)
    p = _tested(values, part.compare, design.p)[0] if design else fixed
    mean, half = found.difference or 0.0, _half_width(sd, len(values))
    return replace(
        found,
        sd=sd,
        interval=(mean - half, mean + half),
        p=p,
        p_fixed=fixed if design else None,
        towards=towards,
    )


def corrected(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes with p corrected for their number (Holm): one family of tests."""
    tested = [one.p for one in outcomes if one.p is not None]
    fixed = iter(holm(tested))
    return [replace(o, corrected=next(fixed)) if o.p is not None else o for o in outcomes]


def combined(verdicts: Sequence[str]) -> str:
    """The verdict of a claim that asserts all of its comparisons."""
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    return SUPPORTED if verdicts and set(verdicts) == {SUPPORTED} else UNDECIDED


def boundaries(compare: Compare) -> tuple[float, ...]:
    """The differences, in points, that a relation asserts to be on one side of."""
    margin = compare.margin
    return {
        ">": (0.0,),
        "<": (0.0,),
        ">=": (-margin,),
        "<=": (margin,),
        "~": (-margin, margin),
    }[compare.relation]


def _tested(
    values: Sequence[float], compare: Compare, p_of: Callable[[Sequence[float]], float]
) -> tuple[float, str]:
    """The p-value, and the verdict that it is the p-value of."""
    found = []
    for place, boundary in enumerate(boundaries(compare)):
        shifted = [value - boundary for value in values]
        upper_is_right = compare.relation[0] == ">" or (compare.relation == "~" and place == 0)
        is_right = (statistics.fmean(shifted) > 0) == upper_is_right
        found.append((p_of(shifted), is_right))
    if all(is_right for _, is_right in found):
        return max(p for p, _ in found), SUPPORTED
    return min(p for p, is_right in found if not is_right), CONTRADICTED


def _cells(part: Part, filled: FilledTable) -> dict[tuple[str, str], Cell]:
    rows = (part.left, part.right, part.compare.range_over)
    return {
        (cell.row, cell.column): cell
        for cell in filled.cells
        if cell.row in rows and cell.column in part.columns
    }


def _differences(part: Part, cells: Mapping[tuple[str, str], Cell]) -> dict[int, float]:
    """Left minus right by seed, in points; of ranges, where the claim compares these."""
    left, right, over = part.left, part.right, part.compare.range_over
    values: dict[tuple[str, str], Mapping[int, float]] = {}
    for key, cell in cells.items():
        base = cells[right, key[1]]
        if cell.sample is None or not cell.is_comparable(base):
            return {}
        values[key] = cell.sample.values
    if len(values) < (3 if over else 2) * len(part.columns):
        return {}
    shared = sorted(set.intersection(*(set(one) for one in values.values())))
    if over is None:
        column = part.columns[0]
        return {s: values[left, column][s] - values[right, column][s] for s in shared}

    def spread(row: str, seed: int) -> float:
        gains = [values[row, c][seed] - values[over, c][seed] for c in part.columns]
        return max(gains) - min(gains)

    return {seed: spread(left, seed) - spread(right, seed) for seed in shared}


def _consecutive(differences: Mapping[int, float]) -> dict[int, float]:
    found: dict[int, float] = {}
    while len(found) in differences:
        found[len(found)] = differences[len(found)]
    return found


def _design(
    part: Part, cells: Mapping[tuple[str, str], Cell], designs: Sequence[Design]
) -> Design | None:
    if part.is_range:
        return None
    one, other = (cells[row, part.columns[0]] for row in (part.left, part.right))
    if not one.runs or not other.runs:
        return None
    names = one.runs[0].result.identity, other.runs[0].result.identity
    return next((design for design in designs if design.covers(*names)), None)


def _half_width(sd: float, n: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 1 - ALPHA / 2)) * sd / sqrt(n)
