"""Select rows and columns of tables by name: what `table` shows, what `reproduce` runs."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..errors import UsageError, nearest
from .table import Table


def selected(
    tables: Sequence[Table],
    rows: str | None = None,
    columns: str | None = None,
    baseline: str | None = None,
) -> list[Table]:
    """The tables with the named rows and columns alone; a table that has none of them is left out.

    `rows` and `columns` are comma-separated, upper and lower case are equal; None selects all. A
    row is named by its label, a column by its key, its data set or its kind. `baseline` is the
    label of the row that the others are compared with; tables without it keep their own. Raises
    UsageError for a name that is in no table.
    """
    labels = [label for table in tables for label in table.rows]
    names = [name for table in tables for key in table.columns for name in _names(table, key)]
    wanted_rows = _known("row", rows, labels)
    wanted_columns = _known("column", columns, names)
    parts = [_part(table, wanted_rows, wanted_columns) for table in tables]
    parts = [part for part in parts if part.rows and part.columns]
    if not parts:
        raise UsageError(f"no table has both rows={rows} and columns={columns}")
    if baseline is not None:
        if baseline.strip().casefold() not in {r.casefold() for part in parts for r in part.rows}:
            shown = [label for part in parts for label in part.rows]
            raise UsageError(f"no row {baseline!r}{nearest(baseline, shown)}")
        parts = [_compared_with(baseline, part) for part in parts]
    return parts


def _compared_with(baseline: str, table: Table) -> Table:
    own = (label for label in table.rows if label.casefold() == baseline.strip().casefold())
    return replace(table, baseline=next(own, table.baseline))


def _names(table: Table, key: str) -> tuple[str, ...]:
    """The names by which a column can be selected."""
    column = table.columns[key]
    return (key, column.kind, *([column.data] if column.data else []))


def _known(what: str, text: str | None, known: Iterable[str]) -> set[str] | None:
    """The comma-separated names in lower case, all of them known; None where none are given."""
    if text is None:
        return None
    folded = {one.casefold() for one in known}
    is_one = text.strip().casefold() in folded  # a label may contain commas
    names = [name.strip() for name in ([text] if is_one else text.split(",")) if name.strip()]
    for name in names:
        if name.casefold() not in folded:
            raise UsageError(f"no {what} {name!r}{nearest(name, known)}")
    return {name.casefold() for name in names}


def _part(table: Table, rows: set[str] | None, columns: set[str] | None) -> Table:
    labels = [label for label in table.rows if rows is None or label.casefold() in rows]
    keys = [
        key
        for key in table.columns
        if columns is None or columns & {name.casefold() for name in _names(table, key)}
    ]
    return table.part(labels, keys)
