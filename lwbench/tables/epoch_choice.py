"""Show what the choice of the epoch does to a result: the last, or the best on which images.

The best epoch on the test images is chosen with the images that it is reported on, and flatters.
`data.validation=0.1` holds training images out to choose it; such runs train on fewer images, have
another identity and fill no cell of a full study, but a study of their own.
"""

import statistics
from collections.abc import Sequence

from .cells import Cell, FilledTable
from .layout import Entry, Header, Layout
from .table import ACCURACY

CHOICES = {
    "final": "last epoch",
    "best": "best epoch on the test images",
    "held_out": "best epoch on held-out training images",
}


def of_table(filled: FilledTable) -> Layout:
    """A row per network with runs; per accuracy column three means with their gain, in points."""
    keys = [key for key, column in filled.table.columns.items() if column.kind in ACCURACY]
    cells = {(cell.row, cell.column): cell for cell in filled.cells}
    rows = [row for row in filled.table.rows if any(cells[row, key].runs for key in keys)]
    headers = [Header("row", "label")]
    headers += [Header(f"{key}: {text}", "text") for key in keys for text in CHOICES.values()]
    entries = []
    for row in rows:
        line = [Entry(row)]
        for key in keys:
            base = cells[filled.table.baseline, key]
            line += [_entry(cells[row, key], base, choice) for choice in CHOICES]
        entries.append(line)
    entries = entries or [[Entry("-") for _ in headers]]
    remark = f"Means over seeds in %, and the difference to {filled.table.baseline} in points."
    return Layout(f"{filled.table.name}: choice of the epoch", "", headers, entries, (remark,))


def _entry(cell: Cell, base: Cell, choice: str) -> Entry:
    values, others = _values(cell, choice), _values(base, choice)
    if not values:
        return Entry("-")
    mean = statistics.fmean(values)
    if cell.row == base.row or not others or not cell.is_comparable(base):
        return Entry(f"{mean:.2f}", value=mean)
    return Entry(f"{mean:.2f} ({mean - statistics.fmean(others):+.2f})", value=mean)


def _values(cell: Cell, choice: str) -> Sequence[float]:
    """The accuracies of the cell's runs at the chosen epochs; none where one is not recorded."""
    chosen = [getattr(record.result, choice) for record in cell.runs]
    if not chosen or None in chosen:
        return ()
    return [record.value(cell.kind, choice) for record in cell.runs]
