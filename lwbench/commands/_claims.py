"""Judge claims: their counts, the studies that finished runs belong to, and recorded designs."""

from collections.abc import Sequence
from dataclasses import replace

from ..paths import data_home
from ..runs.records import Record
from ..tables import cells
from ..tables.cells import FilledTable
from ..tables.claims import counting, printed
from ..tables.claims.claim import Claim, Document
from ..tables.claims.designs import Design
from ..tables.claims.judge import Judged, judged
from ..tables.studies import Study, all_studies, asked
from ..tables.table import Table
from ._counting import Counter, cached_counts
from ._tables import Composer

BUNDLED = ("digits", "")  # data sets that need no files


def judge(
    documents: Sequence[Document],
    found: Sequence[Record],
    compose: Composer,
    count: Counter,
    overrides: Sequence[str] = (),
    select: str = "final",
    designs: Sequence[Design] = (),
) -> list[Judged]:
    """Every claim of the documents with its verdict; `designs`: recorded ones of grown studies.

    `overrides` choose one reduced study; without them, every study that runs belong to counts.
    """
    wanted = [request for document in documents for request in counting.requests(document)]
    counts = cached_counts(wanted, count)
    results = []
    for document in documents:
        studies: dict[tuple[str, ...], dict[str, FilledTable]] = {}
        for table, study in _studies(document, found, compose, overrides, select):
            filled = cells.filled(table, {}, study)
            studies.setdefault(study.overrides, {})[table.name] = filled
        results += judged(document, counts, studies, designs, is_missing, tuple(overrides))
    return results


def is_missing(data: str) -> bool:
    """Whether a data set is neither part of a library nor in the user's data folder."""
    return data not in BUNDLED and not (data_home() / data).exists()


def _studies(
    document: Document,
    found: Sequence[Record],
    compose: Composer,
    overrides: Sequence[str],
    select: str,
) -> list[tuple[Table, Study]]:
    """The document's tables, as far as claims refer to them, with each study of their runs."""
    tables = compared(document, document.claims)
    present = {record.result.data for record in found}
    trains = {
        figure.train: None
        for table in tables
        for figure in table.figures
        if figure.train and (figure.data in present or figure.data == "folder")
    }
    if not trains:
        return []
    kept = [_with(table, trains) for table in tables]
    if overrides:
        configs = compose([*trains, *((*train, *overrides) for train in trains)])
        return [(t, asked([t], overrides, configs, found, select)) for t in kept]
    return all_studies(kept, compose(trains), found, select)[0]


def compared(document: Document, claims: Sequence[Claim]) -> list[Table]:
    """The rows and columns that the claims' comparisons need, table by table."""
    rows: dict[str, set[str]] = {}
    columns: dict[str, set[str]] = {}
    tables: dict[str, Table] = {}
    for claim in claims:
        for part in printed.parts(document, claim):
            name = part.table.name
            tables[name] = part.table
            rows.setdefault(name, set()).update(part.compare.labels)
            columns.setdefault(name, set()).update(part.columns)
    return [table.part(rows[name], columns[name]) for name, table in tables.items()]


def _with(table: Table, trains: dict[tuple[str, ...], None]) -> Table:
    """The table whose other figures cannot be run: their configurations are not composed."""
    figures = (f if f.train in trains else replace(f, train=None) for f in table.figures)
    return replace(table, figures=tuple(figures))
