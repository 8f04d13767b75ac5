"""Build the report: published tables, reduced studies and every run, on one page.

The same runs make the same page: it bears the date of the newest run.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from .. import __version__
from ..errors import LwbenchError
from ..runs.files import write_atomically
from ..runs.records import Record
from ..runs.runconfig import RunConfig
from ..tables import cells
from ..tables.cells import VERDICTS, Cell, FilledTable
from ..tables.layout import Entry, Header, Layout, of_summary, of_table
from ..tables.statistics import Sample
from ..tables.studies import Study, Train, all_studies, revisions
from ..tables.table import ACCURACY, COMPLEXITY, Table
from . import drawings
from .page import Details, Page, Part, Section, html
from .runview import Picture, RunView, outline, view

DETAILED = 1000  # number of newest runs that open; older ones are a line each, for a small page
# most pictures of studies and of runs; each takes a third of a second to draw
STUDY_PICTURES, RUN_PICTURES = 12, 12

STUDIES = (
    "Runs of a table's networks and data sets by another recipe than the table's, a cheaper one "
    "most often. They show how networks compare under that recipe; they neither confirm nor refute "
    "what is published."
)
TABLES = (
    "Beside each published number stands what was counted or measured here, by full runs alone. "
    "Open a row for its runs and for the commands that measure it."
)
OTHERS = "Finished runs whose data set or network is in no published table."
OUTSIDE = "in no cell: another precision, other images, or an older run"


@dataclass(frozen=True)
class Sources:
    """What a report is made from."""

    tables: Sequence[Table]
    counts: Mapping[cells.CountRequest, cells.Counts]
    configs: Mapping[Train, RunConfig]  # of every cell's full run
    records: Sequence[Record]
    select: str = "final"


class Shown(NamedTuple):
    """A table on the page, with the cells that its runs fill."""

    section: Section
    filled: FilledTable

    @property
    def records(self) -> list[Record]:
        return [record for cell in self.filled.cells for record in cell.runs]

    def pictures(self) -> Iterator[Picture]:
        """The table's pictures, each drawn when it is asked for."""
        if self.records:
            yield from drawings.curves(self.filled.table.name, self.records)
            yield from drawings.planes(self.filled)
            yield from drawings.costs(self.filled)


def write(sources: Sources, out_dir: Path, progress: Callable[[str], None] = print) -> Path:
    """Write `out_dir`/index.html, and its pictures as PNG and SVG to `out_dir`/pictures.

    Returns the page's path. Raises LwbenchError where it cannot be written.
    """
    path = out_dir / "index.html"
    shown = page(sources, progress)
    text = html(shown)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
        _save_pictures(shown, out_dir / "pictures")
    except OSError as error:
        raise LwbenchError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def _save_pictures(shown: Page, folder: Path) -> None:
    sections = [section for part in shown.parts for section in part.sections]
    opened = [run for section in sections for row in section.details for run, _ in row.runs]
    owners: list[Section | RunView] = [*sections, *{id(run): run for run in opened}.values()]
    pictures = [picture for owner in owners for picture in owner.pictures]
    for number, picture in enumerate(pictures, 1):
        from .canvas import save  # imports matplotlib, which a page without pictures does without

        words = re.sub(r"[^a-z0-9]+", "-", picture.name.lower()).strip("-")
        save(picture.figure, folder / f"{number:02}-{words[:80]}")


def page(sources: Sources, progress: Callable[[str], None] = print) -> Page:
    """Collect all that the page shows; `progress` receives a line per step."""
    found, select = sources.records, sources.select
    studies, others = all_studies(sources.tables, sources.configs, found, select)
    views = Views(found, select)
    progress(f"finished runs: {len(found):,}")
    full = {table.name: study for table, study in studies if not study.overrides}
    published = [
        _shown(sources, table, full.get(table.name, Study(select=select)), views)
        for table in sources.tables
    ]
    reduced = [_shown(sources, *one, views) for one in studies if one[1].overrides]
    progress(f"published tables: {len(published)}, reduced studies: {len(reduced)}; drawing")
    rest = [_others(others, select, views)] if others else []
    _illustrate(views, [*reduced, *published])
    return Page(
        made=_made(sources),
        totals=_totals([cell for one in published for cell in one.filled.cells]),
        summary=Section(of_summary([cells.summary(one.filled) for one in published])),
        parts=[
            Part("studies", "Reduced studies", STUDIES, [one.section for one in reduced]),
            Part("tables", "Published tables", TABLES, [one.section for one in published]),
            Part("others", "Other runs", OTHERS, rest),
        ],
    )


def _shown(sources: Sources, table: Table, study: Study, views: "Views") -> Shown:
    """The table with the runs of a study; of a reduced study, the rows and columns with runs."""
    filled = cells.filled(table, sources.counts, study)
    part = cells.with_runs(filled) if study.overrides else filled
    layout = of_table(part)
    if study.overrides:
        layout = replace(layout, name=f"{table.name} with {' '.join(study.overrides)}")
    details = []
    for label in part.table.rows:
        row = [cell for cell in part.cells if cell.row == label]
        runs = {
            record.run.path: record
            for figure in table.figures
            if figure.row == label
            for record in study.found(figure)
        }
        details.append(_details(row, runs.values(), views))
    return Shown(Section(layout, details), filled)


def _details(row: Sequence[Cell], runs: Iterable[Record], views: "Views") -> Details:
    entered = {record.run.path for cell in row for record in cell.runs}
    columns: dict[str, list[str]] = {}
    for cell in row:
        if cell.command:
            columns.setdefault(cell.command, []).append(cell.column)
    order = sorted(runs, key=lambda r: (r.result.data, r.result.seed, r.run.path))
    return Details(
        notes=[f"{cell.column}: {cell.note}" for cell in row if cell.note],
        runs=[(views(r), "" if r.run.path in entered else OUTSIDE) for r in order],
        commands=[(", ".join(names), command) for command, names in columns.items()],
    )


def _others(found: Sequence[Record], select: str, views: "Views") -> Section:
    """Runs of no table; those that differ in nothing but their seed share a row."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in found:
        result = record.result
        key = (result.model, result.data, result.identity, result.precision)
        groups.setdefault(key, []).append(record)
    rows, details = [], []
    for (model, *texts), runs in groups.items():
        numbers = [runs[0].result.epochs, len(runs)]
        samples = [
            Sample({run.result.seed: run.value(kind, select) for run in runs})
            for kind in ("top1", "top5")
        ]
        rows.append(
            [
                Entry(model),
                *map(Entry, texts),
                *(Entry(str(number), value=number) for number in numbers),
                *(Entry(str(sample), value=sample.mean) for sample in samples),
            ]
        )
        details.append(Details(runs=[(views(run), "") for run in runs]))
    headers = [Header("model", "label")]
    headers += [Header(name, "text") for name in ("data", "identity", "precision")]
    headers += [Header(name) for name in ("epochs", "runs", "top-1 (%)", "top-5 (%)")]
    caption = f"Mean ± standard deviation over seeds, {select} epoch."
    return Section(Layout("runs of no table", caption, headers, rows), details)


class Views:
    """Makes the view of each run once: all of it for the newest DETAILED runs, else a line."""

    def __init__(self, found: Sequence[Record], select: str) -> None:
        newest = sorted(found, key=lambda record: record.order, reverse=True)
        self.detailed = {record.run.path for record in newest[:DETAILED]}
        self.select = select
        self.made: dict[Path, tuple[Record, RunView]] = {}

    def __call__(self, record: Record) -> RunView:
        path = record.run.path
        if path not in self.made:
            make = view if path in self.detailed else outline
            self.made[path] = record, make(record, self.select)
        return self.made[path][1]

    def pictures(self) -> Iterator[tuple[RunView, Picture]]:
        """The pictures of the newest run of every configuration, newest first."""
        newest: dict[str, tuple[Record, RunView]] = {}
        for record, shown in self.made.values():
            known = newest.get(record.result.identity)
            if known is None or record.order > known[0].order:
                newest[record.result.identity] = (record, shown)
        order = sorted(newest.values(), key=lambda one: one[0].order, reverse=True)
        for record, shown in order:
            yield from ((shown, picture) for picture in drawings.of_run(record))


def _illustrate(views: Views, tables: Sequence[Shown]) -> None:
    """Draw the pictures of the newest studies and of the newest runs, as many as allowed."""
    with_runs = [one for one in tables if one.records]
    newest = sorted(with_runs, key=lambda one: max(r.finished for r in one.records), reverse=True)
    of_tables = ((one.section, picture) for one in newest for picture in one.pictures())
    owner: Section | RunView
    for owner, picture in itertools.islice(of_tables, STUDY_PICTURES):
        owner.pictures.append(picture)
    for owner, picture in itertools.islice(views.pictures(), RUN_PICTURES):
        owner.pictures.append(picture)


def _made(sources: Sources) -> str:
    found = sources.records
    if not found:
        return f"lwbench {__version__}: no finished runs yet."
    times = (start.started or "" for record in found for start in record.starts)
    started = max(times, default="") or "unknown"
    made = revisions(found)
    more = f" and {len(made) - 5} others" if len(made) > 5 else ""
    flatters = " (chosen on the test images, which flatters)" if sources.select == "best" else ""
    return (
        f"lwbench {__version__}. Finished runs: {len(found):,}, of which archived: "
        f"{sum(record.kept for record in found):,}. The newest started {started}. Made with "
        f"revision {', '.join(made[:5])}{more}. Accuracies are of the {sources.select} epoch"
        f"{flatters}."
    )


def _totals(found: Sequence[Cell]) -> list[str]:
    """How many cells of each kind have which verdict, in sentences."""
    kinds = {
        "counts (parameters and MACs)": [c for c in found if c.kind in COMPLEXITY],
        "accuracies": [c for c in found if c.kind in ACCURACY],
        "others": [c for c in found if c.kind not in (*COMPLEXITY, *ACCURACY)],
    }
    total = f"{len(found)} published cells in {len({c.table for c in found})} tables."
    return [total, *(f"{len(f)} {name}: {_by_verdict(f)}." for name, f in kinds.items() if f)]


def _by_verdict(found: Sequence[Cell]) -> str:
    counts = {word: sum(cell.verdict == word for cell in found) for word in VERDICTS}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)
