"""Build the report: published tables, reduced studies and every run, on one page.

The same runs make the same page: it bears the date of the newest run.
"""

import itertools
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from .. import __version__
from ..errors import LwbenchError
from ..runs.evaluations import Evaluated
from ..runs.files import write_atomically
from ..runs.latencies import Latency
from ..runs.records import Record, grouped
from ..runs.runconfig import RunConfig
from ..tables import cells
from ..tables.cells import ORIGINS, VERDICTS, Cell, CountRequest, Counts, FilledTable
from ..tables.claims.designs import Design
from ..tables.claims.judge import Judged
from ..tables.layout import Entry, Header, Layout, of_summary, of_table
from ..tables.statistics import Sample
from ..tables.studies import Study, Train, all_studies, by_identity
from ..tables.table import ACCURACY, COMPLEXITY, KINDS, Table
from . import claims, latencies
from .page import Details, Page, Section, html
from .runview import Picture, RunView, view

DETAILED = 1500  # number of newest runs that open; older ones are a line each, for a small page
# most pictures of studies and of runs; each takes a third of a second to draw
STUDY_PICTURES, RUN_PICTURES = 12, 12

OTHERS = set(KINDS) - {*COMPLEXITY, *ACCURACY}


@dataclass(frozen=True)
class Sources:
    """What a report is made from."""

    tables: Sequence[Table]
    counts: Mapping[CountRequest, Counts]
    configs: Mapping[Train, RunConfig]  # of every cell's full run
    records: Sequence[Record]
    select: str = "final"
    claims: Sequence[Judged] = ()
    designs: Sequence[Design] = ()  # of studies that were grown
    evaluated: Mapping[Train, tuple[Evaluated, ...]] = field(default_factory=dict)
    latencies: Sequence[Latency] = ()


class Shown(NamedTuple):
    """A table on the page, with all its cells and their runs."""

    section: Section
    filled: FilledTable
    records: Sequence[Record]

    @property
    def newest(self) -> str:
        """When the newest run finished."""
        return max(record.finished for record in self.records)

    def pictures(self) -> Iterator[tuple[Section, Picture]]:
        """The table's pictures, each drawn when it is asked for."""
        from . import drawings  # imports matplotlib, which a page without pictures does not need

        drawn = drawings.of_table(self.filled, self.records)
        return ((self.section, picture) for picture in drawn)


def write(sources: Sources, out_dir: Path, progress: Callable[[str], None] = print) -> Path:
    """Write `out_dir`/index.html, and its pictures as PNG and SVG to `out_dir`/pictures.

    `progress` receives a line per step. Returns the page's path. Raises LwbenchError where it
    cannot be written.
    """
    path = out_dir / "index.html"
    views = Views(sources.records, sources.select)
    progress(f"finished runs: {len(sources.records):,}")
    studies, others = all_studies(sources.tables, sources.configs, sources.records, sources.select)
    full = {table.name: study for table, study in studies if not study.overrides}
    unrun = Study(select=sources.select)
    published = [_shown(sources, t, full.get(t.name, unrun), views) for t in sources.tables]
    reduced = [_shown(sources, *study, views) for study in studies if study[1].overrides]
    progress(f"published tables: {len(published)}, reduced studies: {len(reduced)}; drawing")
    pictures = _illustrate(views, [one for one in (*reduced, *published) if one.records])
    tables = [one.filled for one in published]
    timed = latencies.sections(sources.latencies)
    if timed:
        timed[0].pictures.extend(
            latencies.pictures(sources.latencies, sources.records, sources.select)
        )
        pictures += timed[0].pictures
    page = Page(
        version=__version__,
        records=sources.records,
        select=sources.select,
        totals=_totals(tables),
        summary=Section(of_summary(tables)),
        studies=[one.section for one in reduced],
        tables=[one.section for one in published],
        claims=claims.section(sources.claims, sources.select) if sources.claims else None,
        latencies=timed,
        others=_others(others, views) if others else None,
    )
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(path, html(page))
        for number, picture in enumerate(pictures, 1):
            from .canvas import save

            words = re.sub(r"[^a-z0-9]+", "-", picture.name.lower()).strip("-")
            save(picture.figure, out_dir / "pictures" / f"{number:02}-{words[:80]}")
    except OSError as error:
        raise LwbenchError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def _shown(sources: Sources, table: Table, study: Study, views: "Views") -> Shown:
    """The table with the runs of a study; of a reduced study, the rows and columns with runs."""
    evaluated = {} if study.overrides else sources.evaluated
    study = replace(study, designs=sources.designs, evaluated=evaluated)
    filled = cells.filled(table, sources.counts, study)
    part = filled.with_runs() if study.overrides else filled
    layout = of_table(part)
    if study.overrides:
        layout = replace(layout, name=f"{table.name} with {' '.join(study.overrides)}")
    details = []
    for label in part.table.rows:
        figures = [figure for figure in table.figures if figure.row == label]
        runs = {record.run.path: record for f in figures for record in study.found(f)}
        details.append(_details([c for c in part.cells if c.row == label], runs.values(), views))
    records = [record for cell in filled.cells for record in cell.runs]
    return Shown(Section(layout, details), filled, records)


def _details(row: Sequence[Cell], runs: Iterable[Record], views: "Views") -> Details:
    entered = {record.run.path for cell in row for record in cell.runs}
    columns: dict[str, list[str]] = {}
    for cell in row:
        if cell.command:
            columns.setdefault(cell.command, []).append(cell.column)
    order = sorted(runs, key=lambda r: (r.result.data, r.result.seed, r.run.path))
    return Details(
        notes=[f"{cell.column}: {cell.note}" for cell in row if cell.note],
        runs=[views(r) for r in order if r.run.path in entered],
        outside=[views(r) for r in order if r.run.path not in entered],
        commands=[(", ".join(names), command) for command, names in columns.items()],
    )


def _others(found: Sequence[Record], views: "Views") -> Section:
    """Runs of no table; those that differ in nothing but their seed share a row."""
    keys = (f"result.{key}" for key in ("model", "data", "identity", "precision"))
    groups = grouped(found, operator.attrgetter(*keys))
    rows = []
    for texts, runs in groups.items():
        values = [{r.result.seed: r.value(k, views.select) for r in runs} for k in ("top1", "top5")]
        numbers = [runs[0].result.epochs, len(runs)]
        rows.append(
            [
                *map(Entry, texts),
                *(Entry(str(number), value=number) for number in numbers),
                *(Entry(str(Sample(one)), value=Sample(one).mean) for one in values),
            ]
        )
    names = ("model", "data", "identity", "precision", "epochs", "runs", "top-1 (%)", "top-5 (%)")
    headers = list(map(Header, names, ("label", *["text"] * 3, *["number"] * 4)))
    caption = f"Mean ± standard deviation over seeds, {views.select} epoch."
    details = [Details(runs=[views(run) for run in runs]) for runs in groups.values()]
    return Section(Layout("runs of no table", caption, headers, rows), details)


class Views:
    """Makes the view of each run once: all of it for the newest DETAILED runs, else a line.

    Of runs that differ in their seed, the first shows the whole configuration.
    """

    def __init__(self, found: Sequence[Record], select: str) -> None:
        self.newest = sorted(found, key=lambda record: record.order, reverse=True)
        self.detailed = {record.run.path for record in self.newest[:DETAILED]}
        self.select = select
        self.made: dict[Path, RunView] = {}
        self.like: dict[str, RunView] = {}  # the first opened run of each identity

    def __call__(self, record: Record) -> RunView:
        path = record.run.path
        if path not in self.made:
            is_open, identity = path in self.detailed, record.result.identity
            self.made[path] = view(record, self.select, is_open, self.like.get(identity))
            if is_open:
                self.like.setdefault(identity, self.made[path])
        return self.made[path]

    def pictures(self) -> Iterator[tuple[RunView, Picture]]:
        """The pictures of the newest run of every configuration, newest first."""
        for record in (group[0] for group in by_identity(self.newest).values()):
            from . import drawings  # imports matplotlib, which a page without runs does not need

            yield from ((self(record), picture) for picture in drawings.of_run(record))


def _illustrate(views: Views, tables: Sequence[Shown]) -> list[Picture]:
    """Draw the pictures of the newest tables and runs; returns them in the order of the page."""
    newest = sorted(tables, key=lambda one: one.newest, reverse=True)
    of_tables = itertools.chain.from_iterable(one.pictures() for one in newest)
    drawn: list[tuple[Section | RunView, Picture]] = []
    drawn += itertools.islice(of_tables, STUDY_PICTURES)
    drawn += itertools.islice(views.pictures(), RUN_PICTURES)
    for owner, picture in drawn:
        owner.pictures.append(picture)
    owners: list[Section | RunView] = [*(one.section for one in tables), *views.made.values()]
    return [picture for owner in owners for picture in owner.pictures]


def _totals(tables: Sequence[FilledTable]) -> dict[str, dict[str, int]]:
    """How many cells of each kind have which verdict, and how many numbers which origin."""
    kinds = {"counts (parameters and MACs)": COMPLEXITY, "accuracies": ACCURACY, "others": OTHERS}
    found = [cell for filled in tables for cell in filled.cells]
    totals = {}
    for name, some in kinds.items():
        words = [cell.verdict for cell in found if cell.kind in some]
        totals[name] = {word: words.count(word) for word in VERDICTS if word in words}
    origins = [cell.origin.word for cell in found if cell.origin]
    name = "published accuracies and speeds by origin"
    totals[name] = {word: origins.count(word) for word in ORIGINS if word in origins}
    return totals
