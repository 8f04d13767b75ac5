"""Compute the cells of a table: the published number, what lwbench counted or measured, a verdict.

Counting a network needs torch, so it is done elsewhere: `requirements` lists the networks to count
and `filled` takes their counts as plain numbers. Accuracies come from the finished runs of a study.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypedDict

from ..paths import config_dir_arguments
from ..runs.evaluations import Evaluated
from ..runs.latencies import Latency
from ..runs.records import Record, devices, revisions
from ..runs.schema import Search
from .claims.designs import Design
from .statistics import ALPHA, MIN_RUNS, Comparison, Sample, comparisons
from .studies import Study, images
from .table import ACCURACY, COMPLEXITY, Figure, Origin, Table


class Word(NamedTuple):
    """How a verdict, or the outcome of a comparison, is shown."""

    sign: str  # on a terminal
    tone: str  # its colour: good, near, odd, bad or quiet
    meaning: str


VERDICTS = {
    "exact": Word("=", "good", "our count, rounded, has the printed digits"),
    "truncated": Word("↓", "near", "our count, cut instead of rounded, has the printed digits"),
    "close": Word("≈", "near", "our count has other digits than the printed ones"),
    "misprint": Word("!", "odd", "the printed number is wrong, for the reason given"),
    "fit": Word(
        "~", "odd", "the network's unstated details were chosen to meet the printed number"
    ),
    "reproduced": Word(
        "✓", "good", "the published value is in the 95 % prediction interval for one more run"
    ),
    "differs": Word("✗", "bad", "the published value is outside that interval"),
    "too few runs": Word("?", "odd", f"fewer than {MIN_RUNS} seeds"),
    "reduced": Word(
        "°", "near", "a cheaper recipe than the document's, cannot reproduce its value"
    ),
    "measured": Word("", "quiet", "nothing is published"),
    "open": Word("·", "quiet", "not run yet"),
    "not runnable here": Word("-", "quiet", "lwbench cannot measure it"),
}
# whose measurement a published accuracy or speed is; signs stand behind the published number
ORIGINS = {
    "own": Word("§", "quiet", "the document's own experiment"),
    "quoted": Word('"', "quiet", "quoted by the document from elsewhere"),
    "misquoted": Word("≠", "bad", "quoted from elsewhere, where another number is printed"),
    "origin unknown": Word("'", "quiet", "the document does not say whose number it is"),
}
# words that stand beside a cell's verdict
BESIDE = ORIGINS | {
    "evaluated": Word("◇", "quiet", "weights trained elsewhere; here nothing was reproduced"),
}
WORDS = (
    VERDICTS
    | BESIDE
    | {
        "better": Word("▲", "good", f"corrected p below {ALPHA}"),
        "worse": Word("▼", "bad", f"corrected p below {ALPHA}"),
        "no difference shown": Word("○", "quiet", f"corrected p of {ALPHA} or more"),
    }
)

MEASURED = (*ACCURACY, "latency_ms")  # kinds of figures that are measured rather than counted


class CountRequest(NamedTuple):
    """A network to count: overrides such as `model=ldc3`, number of classes, input size in px."""

    model: tuple[str, ...]
    num_classes: int
    image_size: int
    is_deployed: bool = False  # in its deploy form: norms folded, branches merged


class Counts(TypedDict):
    """Counts of one network: parameters, and MACs under each named rule.

    Plain MACs in 1 x 1 and in depthwise convolutions, and elements of activations, are for claims.
    """

    params: int
    macs: Mapping[str, int]
    pointwise: int
    depthwise: int
    activations: int


@dataclass(frozen=True)
class Cell:
    """One cell of a table, in base units: counts, percent, images/s."""

    table: str
    row: str
    column: str
    kind: str
    published: str | None = None  # as printed
    measured: float | None = None  # a count, or the mean over the runs
    verdict: str = "open"  # a key of VERDICTS
    rule: str | None = None  # counting rule; None for anything but a count
    request: CountRequest | None = None  # the network and input size that are counted
    experiment: str | None = None  # the recipe of the runs, conf/experiment/<name>.yaml
    command: str = ""  # counts or measures the cell; "" where lwbench cannot
    note: str = ""
    origin: Origin | None = None  # of the published number
    # of a measured accuracy
    runs: tuple[Record, ...] = ()  # by seed
    sample: Sample | None = None
    select: str | None = None  # final | best
    overrides: tuple[str, ...] = ()  # of a reduced study
    evaluated: tuple[Evaluated, ...] = ()  # weights trained elsewhere, the newest first
    baseline: str | None = None  # label of the row that `comparison` is with
    comparison: Comparison | None = None
    latency: Latency | None = None  # of a measured latency

    @property
    def ratio(self) -> float | None:
        """Measured / published, where both are known."""
        if self.measured is None or self.published is None or not float(self.published):
            return None
        return self.measured / float(self.published)

    @property
    def precision(self) -> str | None:
        """The one precision of all runs."""
        return self.runs[0].result.precision if self.runs else None

    @property
    def identity(self) -> str:
        """The identity of all runs; "" without runs."""
        return self.runs[0].result.identity if self.runs else ""

    @property
    def images(self) -> str:
        """A digest of the images of all runs, which are the same; "" where it is not known."""
        return images(self.runs[0]) if self.runs else ""

    @property
    def search(self) -> Search | None:
        """The search that one of the runs, which have one configuration, is a trial of."""
        found = (record.environment.search for record in self.runs)
        return next((search for search in found if search), None)

    def is_comparable(self, other: "Cell") -> bool:
        """Whether the runs of both cells have one precision and are of the same images."""
        return (self.precision, self.images) == (other.precision, other.images)

    def as_json(self) -> dict[str, Any]:
        """The cell for programs: every number in a field of its own, `published` as a number."""
        origin, sample, comparison = self.origin, self.sample, self.comparison
        own = ("measured", "verdict", "rule", "command", "note")
        return {
            **{key: getattr(self, key) for key in ("table", "row", "column")},
            "published": None if self.published is None else float(self.published),
            **{key: getattr(self, key) for key in own},
            "origin": origin and origin.kind,
            "origin_citation": origin and origin.citation,
            "origin_value": origin and origin.value,
            "origin_agrees": origin and origin.value and origin.agrees,
            **{key: sample and getattr(sample, key) for key in ("n", "sd")},
            **{key: sample and getattr(sample, key) for key in ("confidence", "prediction")},
            "seeds": list(sample.seeds) if sample else [],
            "select": self.select,
            "overrides": list(self.overrides),
            "baseline": self.baseline,
            **{key: comparison and getattr(comparison, key) for key in ("difference", "test", "p")},
            "p_holm": comparison and comparison.holm,
            "p_fixed_n": comparison and comparison.fixed,
            "comparison": comparison and comparison.word,
            "interval_ms": self.latency and self.latency.interval_ms,
            "precision": self.precision,
            "hardware": [self.latency.place] if self.latency else devices(self.runs),
            "revisions": revisions(self.runs),
            "runs": [str(record.run.path) for record in self.runs],
            "search": self.search and self.search.model_dump(mode="json"),
            "evaluated": [one.as_json(self.kind) for one in self.evaluated],
        }


class FilledTable(NamedTuple):
    """A table with its cells, row by row."""

    table: Table
    cells: Sequence[Cell]

    def with_runs(self) -> "FilledTable":
        """The part that has runs: without the rows and columns that have none."""
        measured = [cell for cell in self.cells if cell.runs]
        labels, keys = {cell.row for cell in measured}, {cell.column for cell in measured}
        cells = [cell for cell in self.cells if cell.row in labels and cell.column in keys]
        return FilledTable(self.table.part(labels, keys), cells)

    def summary(self) -> dict[str, Any]:
        """The table's name and source, and the number of its cells in all, by verdict and origin.

        An origin is that of a published accuracy or speed. `evaluated` counts cells, most of them
        open, for which weights trained elsewhere were evaluated.
        """
        words = [cell.verdict for cell in self.cells]
        words += [cell.origin.word for cell in self.cells if cell.origin]
        words += ["evaluated" for cell in self.cells if cell.evaluated]
        counted = {word: words.count(word) for word in (*VERDICTS, *BESIDE)}
        facts = {"table": self.table.name, "source": self.table.source, "cells": len(self.cells)}
        return facts | counted


def requirements(table: Table) -> list[CountRequest]:
    """The networks that must be counted to fill the table, each once."""
    requests = (_request(figure) for figure in table.figures)
    return list(dict.fromkeys(request for request in requests if request is not None))


def filled(
    table: Table, counts: Mapping[CountRequest, Counts], study: Study | None = None
) -> FilledTable:
    """Fill the table with counts and with the runs of a study.

    A cell whose count is missing from `counts`, or whose runs are missing from `study`, is open.
    """
    found = [_cell(table.name, figure, counts, study or Study()) for figure in table.figures]
    return FilledTable(table, compared(found, table.baseline, study.designs if study else ()))


def measured_by(
    cell: Cell, runs: Sequence[Record], select: str, reduced: Sequence[str] | None = None
) -> Cell:
    """The cell with the accuracy of its runs, one per seed.

    `reduced`: the overrides of a reduced study, None for runs of the document's own recipe.
    """
    if not runs:
        return cell
    sample = Sample({r.result.seed: r.value(cell.kind, select) for r in runs})
    return replace(
        cell,
        measured=sample.mean,
        verdict="reduced" if reduced is not None else sample.verdict(cell.published),
        runs=tuple(runs),
        sample=sample,
        select=select,
        overrides=tuple(reduced or ()),
    )


def compared(found: Sequence[Cell], baseline: str, designs: Sequence[Design] = ()) -> list[Cell]:
    """The cells, with every accuracy compared with that of the baseline row in its column.

    The rows of a column are one family of tests. Runs of different precisions or
    images are not compared.
    """
    outcomes = {
        cell.column: _family(found, cell, cell.sample, designs)
        for cell in found
        if cell.row == baseline and cell.sample
    }
    return [
        replace(cell, baseline=baseline, comparison=outcomes[cell.column][cell.row])
        if cell.row in outcomes.get(cell.column, ())
        else cell
        for cell in found
    ]


def _family(
    found: Iterable[Cell], base: Cell, sample: Sample, designs: Sequence[Design]
) -> dict[str, Comparison]:
    """The comparisons of a column's rows with its baseline's cell, by row."""
    cells = [
        cell
        for cell in found
        if cell.column == base.column and cell.row != base.row and cell.sample
        if cell.is_comparable(base)
    ]
    grown = {
        cell.row: design
        for cell in cells
        for design in designs
        if cell.runs and design.covers(cell.identity, base.identity)
    }
    samples = {cell.row: cell.sample for cell in cells if cell.sample}
    tests = {row: design.p for row, design in grown.items()}
    alpha = min((design.alpha for design in grown.values()), default=ALPHA)
    return comparisons(samples, sample, base.kind.endswith("_error"), tests, alpha)


def _cell(table: str, figure: Figure, counts: Mapping[CountRequest, Counts], study: Study) -> Cell:
    request = _request(figure)
    experiments = (part.partition("=")[2] for part in figure.train or () if "experiment=" in part)
    cell = Cell(
        table=table,
        row=figure.row,
        column=figure.column,
        kind=figure.kind,
        published=figure.value,
        verdict="open" if request or figure.kind in MEASURED else "not runnable here",
        rule=figure.rule if request else None,
        request=request,
        experiment=next(experiments, None),
        command=_command(figure, study.overrides),
        note="; ".join(filter(None, [figure.misprint, figure.fit if request else "", figure.note])),
        origin=figure.origin,
    )
    if one := study.latencies.get((table, figure.row, figure.column)):
        return replace(cell, measured=one.p50_ms, verdict="measured", latency=one)
    if figure.kind in ACCURACY:
        reduced = study.overrides if study.is_reduced(figure) else None
        if reduced is None:
            cell = replace(cell, evaluated=study.evaluated.get(figure.train or (), ()))
        return measured_by(cell, study.runs(figure), study.select, reduced)
    count = counts.get(request) if request else None
    if count is None:
        return cell
    is_params = figure.kind in ("params", "deploy_params")
    measured = count["params"] if is_params else count["macs"][figure.rule]
    cell = replace(cell, measured=measured, verdict=figure.verdict(measured))
    if cell.verdict not in ("close", "misprint", "fit") or cell.ratio is None:
        return cell
    notes = filter(None, [f"ours / published = {cell.ratio:.4f}", cell.note])
    return replace(cell, note="; ".join(notes))


def _request(figure: Figure) -> CountRequest | None:
    if figure.kind not in COMPLEXITY:
        return None
    is_deployed = figure.kind in ("deploy_params", "deploy_macs")
    return CountRequest(figure.model, figure.num_classes, figure.image_size, is_deployed)


def _command(figure: Figure, overrides: Sequence[str]) -> str:
    """The command that shows a count or measures an accuracy, quoted for a shell."""
    if (request := _request(figure)) is not None:
        size = (f"num_classes={request.num_classes}", f"image_size={request.image_size}")
        form = ("deploy=true",) if request.is_deployed else ()
        return shlex.join(["lwbench", "profile", *request.model, *size, *form])
    if figure.kind == "latency_ms":
        size = (f"num_classes={figure.num_classes}", f"image_size={figure.image_size}")
        return shlex.join(["lwbench", "bench", *figure.model, *size])
    if not figure.train:
        return ""
    return shlex.join(["lwbench", "train", *config_dir_arguments(), *figure.train, *overrides])
