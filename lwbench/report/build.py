"""The report: published tables, reduced studies and every run, on one page.

The same runs make the same page: it bears the date of the newest run.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .. import __version__
from ..errors import LwbenchError
from ..runs.files import write_atomically
from ..runs.records import Record
from ..runs.runconfig import RunConfig
from ..tables import captions, layout
from ..tables import cells as table_cells
from ..tables.groups import Group, sorted_runs
from ..tables.published import ACCURACY, COMPLEXITY, Table
from ..tables.studies import Train, revisions
from . import drawings, grids
from .page import Grid, Page, Part, html
from .runview import Picture, RunView, outline, view

DETAILED = 1000  # newest runs that open; older ones are a line each: the page stays small
# pictures of studies, and of runs: each takes a third of a second; the newest have theirs
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


@dataclass(frozen=True)
class Sources:
    """What a report is made from."""

    tables: Sequence[Table]
    counts: Mapping[table_cells.CountRequest, table_cells.Counts]
    composed: Mapping[Train, RunConfig]  # configuration and choices of every cell's full run
    records: Sequence[Record]
    select: str = "final"


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
    grids_shown = [grid for part in shown.parts for grid in part.tables]
    views = {id(run): run for grid in grids_shown for row in grid.rows for run in row.runs}
    pictures = [p for owner in (*grids_shown, *views.values()) for p in owner.pictures]
    for number, picture in enumerate(pictures, 1):
        from .canvas import save  # matplotlib: loaded where there is a picture

        words = re.sub(r"[^a-z0-9]+", "-", picture.name.lower()).strip("-")
        save(picture.figure, folder / f"{number:02}-{words[:80]}")


def page(sources: Sources, progress: Callable[[str], None] = print) -> Page:
    """All that the page shows; `progress` is told what is being done."""
    groups, others = sorted_runs(sources.records, sources.tables, sources.composed)
    views = Views(sources)
    progress(f"finished runs: {len(sources.records):,}")
    filled = {table.name: Filled(sources, table, Group(table, ())) for table in sources.tables}
    filled |= {g.table.name: Filled(sources, g.table, g) for g in groups if not g.overrides}
    published = [one.grid(views) for one in filled.values()]
    reduced = [Filled(sources, group.table, group) for group in groups if group.overrides]
    studies = [one.grid(views) for one in reduced]
    progress(f"published tables: {len(published)}, reduced studies: {len(studies)}; drawing")
    rest = [grids.of_others(others, sources.select, views)] if others else []
    _illustrate(views, [*zip([*reduced, *filled.values()], [*studies, *published], strict=True)])
    summaries = [table_cells.summary(one.table, one.cells) for one in filled.values()]
    return Page(
        made=_made(sources),
        standing=_standing([cell for one in filled.values() for cell in one.cells]),
        summary=grids.of_summary(summaries),
        legend=table_cells.VERDICTS,
        parts=[
            Part("studies", "Reduced studies", STUDIES, studies),
            Part("tables", "Published tables", TABLES, published),
            Part("others", "Other runs", OTHERS, rest),
        ],
    )


class Filled:
    """A table with the cells that one group of runs fills."""

    def __init__(self, sources: Sources, table: Table, group: Group) -> None:
        self.table = table
        self.group = group
        study = group.study(sources.composed, sources.select)
        self.cells = table_cells.cells(table, sources.counts, study)
        self.records = [record for cell in self.cells for record in cell.runs]

    def grid(self, view: grids.View) -> Grid:
        """The table as the page shows it: a reduced study's has the measured cells alone."""
        make, shown = grids.of_table, layout.Filled(self.table, self.cells)
        if self.group.overrides:
            pairs = zip(self.table.figures, self.cells, strict=True)
            figures, cells = zip(*(pair for pair in pairs if pair[1].runs), strict=True)
            make, shown = grids.of_study, layout.Filled(replace(self.table, figures=figures), cells)
        return make(self.table, self.cells, captions.remarks(shown), self._by_row(), view)

    def pictures(self) -> Iterator[Picture]:
        if self.records:
            yield from drawings.curves(self.table.name, self.records)
            yield from drawings.planes(self.table, self.cells)
            yield from drawings.costs(self.table, self.cells)

    @property
    def newest(self) -> str:
        return max((record.finished for record in self.records), default="")

    def _by_row(self) -> dict[str, list[Record]]:
        rows: dict[str, dict[Path, Record]] = {}
        for figure in self.table.figures:
            for record in self.group.runs.get(figure.train or (), ()):
                rows.setdefault(figure.row, {})[record.run.path] = record
        return {
            row: sorted(runs.values(), key=lambda r: (r.result.data, r.result.seed, r.run.path))
            for row, runs in rows.items()
        }


class Views:
    """Makes a run's view; the newest DETAILED runs have all, the others a line."""

    def __init__(self, sources: Sources) -> None:
        newest = sorted(sources.records, key=lambda record: record.order, reverse=True)
        self.detailed = {record.run.path for record in newest[:DETAILED]}
        self.select = sources.select
        self.made: dict[Path, tuple[Record, RunView]] = {}

    def __call__(self, record: Record) -> RunView:
        make = view if record.run.path in self.detailed else outline
        return self.made.setdefault(record.run.path, (record, make(record, self.select)))[1]

    def pictures(self) -> Iterator[tuple[RunView, Picture]]:
        """Of the newest run of every configuration, newest first."""
        newest: dict[str, tuple[Record, RunView]] = {}
        for record, shown in self.made.values():
            known = newest.get(record.result.identity)
            if known is None or record.order > known[0].order:
                newest[record.result.identity] = (record, shown)
        for record, shown in sorted(newest.values(), key=lambda one: one[0].order, reverse=True):
            yield from ((shown, picture) for picture in drawings.of_run(record))


def _illustrate(views: Views, studies: Iterable[tuple[Filled, Grid]]) -> None:
    newest = sorted(studies, key=lambda pair: pair[0].newest, reverse=True)
    of_studies = ((grid, picture) for one, grid in newest for picture in one.pictures())
    for drawn, most in ((of_studies, STUDY_PICTURES), (views.pictures(), RUN_PICTURES)):
        for owner, picture in itertools.islice(drawn, most):
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
        f"lwbench {__version__}. Finished runs: {len(found):,}, of which kept: "
        f"{sum(record.kept for record in found):,}. The newest started {started}. Made with "
        f"revision {', '.join(made[:5])}{more}. Accuracies are of the {sources.select} epoch"
        f"{flatters}."
    )


def _standing(cells: Iterable[table_cells.Cell]) -> list[str]:
    cells = list(cells)
    kinds = {
        "counts (parameters and MACs)": [c for c in cells if c.kind in COMPLEXITY],
        "accuracies": [c for c in cells if c.kind in ACCURACY],
        "others": [c for c in cells if c.kind not in (*COMPLEXITY, *ACCURACY)],
    }
    total = f"{len(cells)} published cells in {len({c.table for c in cells})} tables."
    return [total, *(f"{len(f)} {name}: {_by_verdict(f)}." for name, f in kinds.items() if f)]


def _by_verdict(cells: Sequence[table_cells.Cell]) -> str:
    counts = {word: sum(c.verdict == word for c in cells) for word in table_cells.VERDICTS}
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count)
