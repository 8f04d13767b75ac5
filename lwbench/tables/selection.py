"""Part of a table, by the names of its rows and columns: what `table` shows, `reproduce` runs."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..errors import UsageError, nearest
from .published import Table


def selected(
    tables: Sequence[Table],
    rows: str | None = None,
    columns: str | None = None,
    baseline: str | None = None,
) -> list[Table]:
    """The tables with the named rows and columns alone; a table that has none of them is left out.

    Both are comma lists, read without regard to case; None takes all. A row goes by its label, a
    column by its key, its data set or its kind. `baseline` is the label of the row that others are
    compared with; tables without it keep their own. Raises UsageError for a name that is in no
    table.
    """
    labels = [label for table in tables for label in table.rows]
    names = [name for table in tables for key in table.columns for name in _called(table, key)]
    wanted_rows = _known("row", rows and rows.split(","), labels)
    wanted_columns = _known("column", columns and columns.split(","), names)
    parts = (_part(table, wanted_rows, wanted_columns) for table in tables)
    parts = [part for part in parts if part.figures]
    if not parts:
        raise UsageError(f"no table has both rows={rows} and columns={columns}")
    if baseline is not None:
        _known("row", [baseline], [label for part in parts for label in part.rows])
        parts = [_compared_with(baseline, part) for part in parts]
    return parts


def _compared_with(baseline: str, table: Table) -> Table:
    own = (label for label in table.rows if label.casefold() == baseline.strip().casefold())
    return replace(table, baseline=next(own, table.baseline))


def _called(table: Table, key: str) -> tuple[str, ...]:
    """The names that a column answers to."""
    column = table.columns[key]
    return (key, column.kind, *([column.data] if column.data else []))


def _known(what: str, names: Iterable[str] | None, known: Iterable[str]) -> set[str] | None:
    """The names, casefolded, all of them known; None where no part is asked for."""
    if names is None:
        return None
    folded = {one.casefold() for one in known}
    names = [name.strip() for name in names if name.strip()]
    for name in names:
        if name.casefold() not in folded:
            raise UsageError(f"no {what} {name!r}{nearest(name, known)}")
    return {name.casefold() for name in names}


def _part(table: Table, rows: set[str] | None, columns: set[str] | None) -> Table:
    at = [i for i, label in enumerate(table.rows) if rows is None or label.casefold() in rows]
    keys = {
        key: column
        for key, column in table.columns.items()
        if columns is None or columns & {name.casefold() for name in _called(table, key)}
    }
    labels = tuple(table.rows[i] for i in at)
    return replace(
        table,
        rows=labels,
        columns=keys,
        figures=tuple(f for f in table.figures if f.row in labels and f.column in keys),
        # without its baseline a table's first row is what the others are compared with
        baseline=table.baseline if table.baseline in labels else next(iter(labels), ""),
        marks={mark: tuple(texts[i] for i in at) for mark, texts in table.marks.items()},
    )
