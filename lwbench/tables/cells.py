"""A table's cells: what is published beside what is counted and measured, with a verdict each.

Counts are made elsewhere, since they need torch: `requirements` says which, `cells` takes them as
plain numbers. Accuracies come from a study's finished runs.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any, TypedDict

from ..runs.records import Record
from .published import ACCURACY, COMPLEXITY, Figure, Table
from .statistics import MIN_RUNS, Comparison, Sample, comparisons
from .studies import Study, hardware, revisions

# what the verdicts mean, as captions say it
VERDICTS = {
    "exact": "our count rounds to the printed digits",
    "truncated": "our count, cut, gives the printed digits",
    "close": "neither; the ratio is ours / published",
    "misprint": "the printed number is shown wrong by the reason given",
    "fit": "the network's free parameters were chosen to meet the number",
    "reproduced": "the published value lies within the 95 % prediction interval of a single "
    "further run, whose half-width is given",
    "differs": "it lies outside",
    "too few runs": f"fewer than {MIN_RUNS} seeds",
    "reduced": "a cheaper study than the document's, which cannot reproduce it",
    "measured": "nothing is published",
    "open": "not run yet",
    "not runnable here": "lwbench cannot measure it",
}


@dataclass(frozen=True)
class CountRequest:
    """A network to be counted: overrides such as `model=ldc3`, classes, and pixels of its input."""

    model: tuple[str, ...]
    num_classes: int
    image_size: int


class Counts(TypedDict):
    """What was counted: parameters, and MACs under each named rule."""

    params: int
    macs: Mapping[str, int]


@dataclass(frozen=True)
class Cell:
    """One cell of a table, in base units: counts, percent, images/s."""

    table: str
    row: str
    column: str
    kind: str
    published: str | None  # as printed
    measured: float | None  # a count, or the mean over the runs
    verdict: str  # one of VERDICTS
    rule: str | None  # of a count; parameters have none that matters, but the table's
    command: str  # what would show or measure it; "" where nothing here can
    note: str
    # of an accuracy that was measured
    runs: tuple[Record, ...] = ()  # by seed
    sample: Sample | None = None
    select: str | None = None  # final | best
    overrides: tuple[str, ...] = ()  # of a reduced study
    baseline: str | None = None  # label of the row that `comparison` is with
    comparison: Comparison | None = None

    @property
    def ratio(self) -> float | None:
        """Measured / published, where both are there."""
        if self.measured is None or self.published is None or not float(self.published):
            return None
        return self.measured / float(self.published)

    @property
    def precision(self) -> str | None:
        """The one precision of all runs."""
        return self.runs[0].result.precision if self.runs else None

    def as_json(self) -> dict[str, Any]:
        """The cell for machines: every number in a field of its own, `published` as a number."""
        sample, comparison = self.sample, self.comparison
        return {
            "table": self.table,
            "row": self.row,
            "column": self.column,
            "published": None if self.published is None else float(self.published),
            "measured": self.measured,
            "verdict": self.verdict,
            "rule": self.rule,
            "command": self.command,
            "note": self.note,
            "n": sample and sample.n,
            "sd": sample and sample.sd,
            "confidence": sample and sample.confidence,
            "prediction": sample and sample.prediction,
            "seeds": list(sample.seeds) if sample else [],
            "select": self.select,
            "overrides": list(self.overrides),
            "baseline": self.baseline,
            "difference": comparison and comparison.difference,
            "test": comparison and comparison.test,
            "p": comparison and comparison.p,
            "p_holm": comparison and comparison.holm,
            "comparison": comparison and comparison.word,
            "precision": self.precision,
            "hardware": hardware(self.runs),
            "revisions": revisions(self.runs),
            "runs": [str(record.run.path) for record in self.runs],
        }


@dataclass(frozen=True)
class Summary:
    """How a table stands: `cells` is the sum of the counts of all its verdicts."""

    table: str
    source: str
    cells: int
    verdicts: Mapping[str, int]  # every key of VERDICTS


def requirements(table: Table) -> list[CountRequest]:
    """The networks that must be counted to fill the table, each once."""
    wanted = (_request(figure) for figure in table.figures if figure.kind in COMPLEXITY)
    return list(dict.fromkeys(wanted))


def cells(
    table: Table, counts: Mapping[CountRequest, Counts], study: Study | None = None
) -> list[Cell]:
    """The table's cells, row by row.

    A cell whose count is missing from `counts`, or whose runs from `study`, is open.
    """
    study = study or Study()
    found = [_cell(table.name, figure, counts, study) for figure in table.figures]
    return compared(found, table.baseline)


def compared(found: Sequence[Cell], baseline: str) -> list[Cell]:
    """The cells, with every accuracy compared with that of the baseline row in its column.

    The rows of a column are one family of tests. Runs of another precision are not compared.
    """
    bases = {cell.column: cell for cell in found if cell.row == baseline and cell.sample}
    words = {column: _family(found, base) for column, base in bases.items()}
    return [
        replace(cell, baseline=baseline, comparison=words[cell.column][cell.row])
        if cell.row in words.get(cell.column, ())
        else cell
        for cell in found
    ]


def _family(found: Iterable[Cell], base: Cell) -> dict[str, Comparison]:
    """The comparisons of a column's rows with its baseline's cell, by row."""
    samples = {
        cell.row: cell.sample
        for cell in found
        if cell.column == base.column and cell.row != base.row and cell.sample
        if cell.precision == base.precision
    }
    return comparisons(samples, base.sample, base.kind.endswith("_error"))


def verdict(figure: Figure, measured: int) -> str:
    """How a count stands to the printed number, at the precision of its significant digits."""
    if figure.value is None:
        return "measured"
    if figure.misprint:
        return "misprint"
    if figure.fit:
        return "fit"
    printed, ours = Decimal(figure.value), Decimal(measured)
    if ours.quantize(figure.quantum, ROUND_HALF_UP) == printed:
        return "exact"
    return "truncated" if ours.quantize(figure.quantum, ROUND_DOWN) == printed else "close"


def accuracy_verdict(published: str | None, sample: Sample | None, reduced: bool) -> str:
    """How runs stand to the published accuracy, in percent."""
    if sample is None:
        return "open"
    if reduced:
        return "reduced"
    if published is None:
        return "measured"
    if sample.n < MIN_RUNS:
        return "too few runs"
    half_width = sample.prediction or 0.0
    near = abs(float(published) - sample.mean) <= half_width + 1e-9  # as decimals would have it
    return "reproduced" if near else "differs"


def summary(table: Table, found: Iterable[Cell]) -> Summary:
    """The table's cells counted by verdict."""
    counted = dict.fromkeys(VERDICTS, 0)
    found = list(found)
    for cell in found:
        counted[cell.verdict] += 1
    return Summary(table.name, table.source, len(found), counted)


def command(figure: Figure, overrides: Sequence[str] = ()) -> str:
    """The line that shows a count or measures an accuracy, to be pasted into a shell."""
    if figure.kind in COMPLEXITY:
        size = (f"num_classes={figure.num_classes}", f"image_size={figure.image_size}")
        return shlex.join(["lwbench", "profile", *figure.model, *size])
    if figure.train is None:
        return ""
    return shlex.join(["lwbench", "train", *figure.train, *overrides])


def _request(figure: Figure) -> CountRequest:
    return CountRequest(figure.model, figure.num_classes, figure.image_size)


def _cell(table: str, figure: Figure, counts: Mapping[CountRequest, Counts], study: Study) -> Cell:
    cell = Cell(
        table=table,
        row=figure.row,
        column=figure.column,
        kind=figure.kind,
        published=figure.value,
        measured=None,
        verdict="open" if figure.kind in (*COMPLEXITY, *ACCURACY) else "not runnable here",
        rule=figure.rule if figure.kind in COMPLEXITY else None,
        command=command(figure, study.overrides),
        note=_note(figure),
    )
    if figure.kind in ACCURACY:
        return _with_runs(cell, figure, study)
    measured = _count(figure, counts)
    if measured is None:
        return cell
    word = verdict(figure, measured)
    return replace(cell, measured=measured, verdict=word, note=_note(figure, word, measured))


def _with_runs(cell: Cell, figure: Figure, study: Study) -> Cell:
    runs, reduced = study.runs(figure), study.reduced(figure)
    if not runs:
        return cell
    sample = Sample({r.result.seed: r.value(figure.kind, study.select) for r in runs})
    return replace(
        cell,
        measured=sample.mean,
        verdict=accuracy_verdict(figure.value, sample, reduced),
        runs=runs,
        sample=sample,
        select=study.select,
        overrides=study.overrides if reduced else (),
    )


def _count(figure: Figure, counts: Mapping[CountRequest, Counts]) -> int | None:
    count = counts.get(_request(figure)) if figure.kind in COMPLEXITY else None
    if count is None:
        return None
    return count["params"] if figure.kind == "params" else count["macs"][figure.rule]


def _note(figure: Figure, word: str = "", measured: int | None = None) -> str:
    parts = [figure.misprint, figure.fit if figure.kind in COMPLEXITY else "", figure.note]
    if word in ("close", "misprint", "fit") and measured is not None:
        parts.insert(0, f"ours / published = {measured / float(figure.value or 'nan'):.4f}")
    return "; ".join(part for part in parts if part)
