"""Tables laid out: captions, headers and rows of text, before any format is chosen."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .cells import VERDICTS, Cell, Summary
from .published import ACCURACY, CHECK, COMPLEXITY, Table

UNITS = {**dict.fromkeys(ACCURACY, "%"), "map": "%", "speed": "images/s"}
SCALES = {"": 0, "k": 3, "M": 6, "G": 9}


class Filled(NamedTuple):
    """A table and its cells."""

    table: Table
    cells: list[Cell]


@dataclass(frozen=True)
class Sheet:
    """What a format lays out: a caption, remarks, a header and rows of the header's length."""

    title: str
    remarks: list[str]
    header: list[str]
    rows: list[list[str]]


def grid(filled: Filled, intervals: bool = False) -> tuple[list[str], list[list[str]]]:
    """Header and rows in the table's own shape: its marks, then per column what is published,
    what is measured (`intervals`: with the confidence interval of the mean) and how it compares.

    What no row has is left out: published numbers of a user's table, differences without runs.
    """
    table, cells = filled
    columns = [["row", *table.rows]]
    columns += [[mark, *texts] for mark, texts in table.marks.items()]
    for key in table.columns:
        column = [cell for cell in cells if cell.column == key]
        columns += _texts(heading(column[0]), column, intervals)
    header, *rows = zip(*columns, strict=True)
    return list(header), [list(row) for row in rows]


def long_grid(filled: Filled, intervals: bool = False) -> tuple[list[str], list[list[str]]]:
    """The same, a line a cell: for narrow screens."""
    table, cells = filled
    texts = _texts("column", cells, intervals)
    header = ["row", "column", *("published" if t[0] == "column" else t[0] for t in texts)]
    lines = [[cell.row, heading(cell), *(t[n + 1] for t in texts)] for n, cell in enumerate(cells)]
    rows: list[list[str]] = []
    for start, label in enumerate(table.rows):
        marks = [mark for mark, column in table.marks.items() if column[start] == CHECK]
        rows += [["", mark, CHECK, *[""] * (len(texts) - 1)] for mark in marks]
        width = len(table.columns)
        rows += [["", *line[1:]] for line in lines[start * width : (start + 1) * width]]
        rows[-width - len(marks)][0] = label  # said once
    return header, rows


def summary_sheet(summaries: Sequence[Summary]) -> Sheet:
    """Cells by verdict, a row a table, and their sum; verdicts that no cell has are left out."""
    words = [word for word in VERDICTS if any(s.verdicts[word] for s in summaries)]
    rows = [[s.table, str(s.cells), *(str(s.verdicts[word]) for word in words)] for s in summaries]
    total = [str(sum(int(row[i]) for row in rows)) for i in range(1, len(words) + 2)]
    legend = [f"{word}: {VERDICTS[word]}" for word in words]
    return Sheet("published tables", legend, ["table", "cells", *words], [*rows, ["all", *total]])


def heading(cell: Cell) -> str:
    """A column's key and unit."""
    return f"{cell.column} ({UNITS[cell.kind]})" if cell.kind in UNITS else cell.column


def published(cell: Cell) -> str:
    """The number as printed, with its unit: `63.4 M`."""
    if cell.published is None:
        return "-"
    mantissa, _, exponent = cell.published.partition("e")
    return f"{mantissa} {_letter(int(exponent or 0))}".rstrip()


def measured(cell: Cell, intervals: bool = False) -> str:
    """What was counted, two digits finer than what is printed, or run, and the verdict."""
    if cell.measured is None:
        return cell.verdict
    number = _count(cell) if cell.kind in COMPLEXITY else _accuracy(cell, intervals)
    if cell.verdict == "measured":
        return number
    return f"{number}, {cell.verdict}{_aside(cell)}"


def difference(cell: Cell) -> str:
    """The difference to the baseline row in percent points: `+0.42 better (p 0.031)`."""
    found = cell.comparison
    if found is None:
        return ""
    p = f" ({_p(found.holm)})" if found.holm is not None else ""
    return f"{found.difference:+.2f} {found.word}{p}"


def _texts(head: str, cells: Sequence[Cell], intervals: bool) -> list[list[str]]:
    """The columns of text that cells take, each with its header; `head` heads the first."""
    columns = [["measured", *(measured(cell, intervals) for cell in cells)]]
    if any(cell.published for cell in cells):
        columns.insert(0, [head, *map(published, cells)])
    elif head != "column":
        columns[0][0] = head
    if baselines := {cell.baseline: None for cell in cells if cell.comparison}:
        columns.append([f"vs {next(iter(baselines))}", *map(difference, cells)])
    return columns


def _count(cell: Cell) -> str:
    mantissa, _, exponent = (cell.published or "0.0e6").partition("e")
    decimals = len(mantissa.partition(".")[2]) + 2
    power = int(exponent or 0)
    return f"{cell.measured / 10**power:.{decimals}f} {_letter(power)}".rstrip()


def _accuracy(cell: Cell, intervals: bool) -> str:
    sample = cell.sample
    spread = "" if sample.sd is None else f" ± {sample.sd:.2f}"
    text = f"{sample.mean:.2f}{spread} ({sample.n})"
    if intervals and sample.confidence is not None:
        low, high = sample.mean - sample.confidence, sample.mean + sample.confidence
        text += f" [{low:.2f}, {high:.2f}]"
    return text


def _aside(cell: Cell) -> str:
    """What a verdict rests on: the ratio of counts, or the half-width of the interval."""
    if cell.verdict == "close":
        return f" ({cell.ratio:.3f})"
    if cell.verdict in ("reproduced", "differs"):
        return f" (±{cell.sample.prediction:.2f})"
    return ""


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def _letter(power: int) -> str:
    return next((letter for letter, value in SCALES.items() if value == power), f"e{power}")
