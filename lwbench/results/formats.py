"""Tables as text: terminal, Markdown, LaTeX, CSV, JSON, HTML. Published and measured side by side.

Every text that comes from a table is escaped for the format it goes into.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from ..errors import UsageError, nearest
from .published import ACCURACY, COMPLEXITY, Table
from .tables import VERDICTS, Cell, Summary

UNITS = {**dict.fromkeys(ACCURACY, "%"), "map": "%", "speed": "images/s"}
SCALES = {"": 0, "k": 3, "M": 6, "G": 9}
SUMMARY = (
    "exact",
    "truncated",
    "close",
    "misprint",
    "fit",
    "measured",
    "open",
    "not runnable here",
)


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


def render(tables: Sequence[Filled], format: str = "terminal", width: int = 80) -> str:
    """Filled tables as one text; `width` is that of the terminal, in characters.

    JSON and CSV are one list over all tables, a cell a line. Raises UsageError for an unknown
    format.
    """
    lists = {"json": as_json, "csv": as_csv}
    if format in lists:
        return lists[format]([cell for filled in tables for cell in filled.cells])
    if format == "terminal":
        return "\n".join(_terminal(_fitting(filled, width), width) for filled in tables)
    return _written(format, [sheet(filled) for filled in tables], [*lists, "terminal"])


def render_summary(summaries: Sequence[Summary], format: str = "terminal", width: int = 80) -> str:
    """How the tables stand, a line each and one for all; formats as in `render`."""
    listing = summary_sheet(summaries)
    if format == "json":
        return _json([_summary_json(one) for one in summaries])
    if format == "csv":
        return _csv([listing.header, *listing.rows[:-1]])
    if format == "terminal":
        return _terminal(listing, width)
    return _written(format, [listing], ["json", "csv", "terminal"])


def as_json(cells: Iterable[Cell]) -> str:
    """One JSON list, an object a cell."""
    return _json([cell.as_json() for cell in cells])


def as_csv(cells: Iterable[Cell]) -> str:
    """A line a cell, under the keys of the JSON form."""
    lines = [cell.as_json() for cell in cells]
    return _csv([list(lines[0]), *(list(line.values()) for line in lines)]) if lines else ""


# --- what is laid out ---------------------------------------------------------------------------


def sheet(filled: Filled) -> Sheet:
    """The table in its own shape: per column what is published and what is measured."""
    table, cells = filled
    header = ["row"]
    for key, column in table.columns.items():
        unit = f" ({UNITS[column.kind]})" if column.kind in UNITS else ""
        header += [f"{key}{unit}", "measured"]
    width = len(table.columns)
    rows = []
    for start, label in enumerate(table.rows):
        line = cells[start * width : (start + 1) * width]
        rows.append([label, *(text for cell in line for text in (published(cell), measured(cell)))])
    return Sheet(f"{table.name}: {table.source}", remarks(filled), header, rows)


def long_sheet(filled: Filled) -> Sheet:
    """The same, a line a cell: for narrow screens."""
    rows: list[list[str]] = []
    for start, cell in enumerate(filled.cells):
        first = start % len(filled.table.columns) == 0  # a label is said once
        unit = f" ({UNITS[cell.kind]})" if cell.kind in UNITS else ""
        rows.append(
            [cell.row if first else "", f"{cell.column}{unit}", published(cell), measured(cell)]
        )
    whole = sheet(filled)
    return Sheet(whole.title, whole.remarks, ["row", "column", "published", "measured"], rows)


def summary_sheet(summaries: Sequence[Summary]) -> Sheet:
    """Cells by verdict, a row a table, and their sum."""
    rows = [
        [s.table, str(s.cells), *(str(s.verdicts[word]) for word in SUMMARY)] for s in summaries
    ]
    total = [str(sum(int(row[i]) for row in rows)) for i in range(1, len(SUMMARY) + 2)]
    legend = [f"{word}: {VERDICTS[word]}" for word in SUMMARY if word != "measured"]
    return Sheet("published tables", legend, ["table", "cells", *SUMMARY], [*rows, ["all", *total]])


def _summary_json(one: Summary) -> dict[str, object]:
    return {"table": one.table, "source": one.source, "cells": one.cells, **one.verdicts}


def published(cell: Cell) -> str:
    """The number as printed, with its unit: `63.4 M`."""
    if cell.published is None:
        return "-"
    mantissa, _, exponent = cell.published.partition("e")
    return f"{mantissa} {_letter(int(exponent or 0))}".rstrip()


def measured(cell: Cell) -> str:
    """What was counted, two digits finer than what is printed, and the verdict."""
    if cell.measured is None:
        return cell.verdict
    if cell.kind not in COMPLEXITY:
        return f"{cell.measured:.2f}"
    mantissa, _, exponent = (cell.published or "0.0e6").partition("e")
    decimals = len(mantissa.partition(".")[2]) + 2
    power = int(exponent or 0)
    number = f"{cell.measured / 10**power:.{decimals}f} {_letter(power)}".rstrip()
    word = "" if cell.verdict == "measured" else f", {cell.verdict}"
    ratio = f" ({cell.ratio:.3f})" if cell.verdict == "close" else ""
    return f"{number}{word}{ratio}"


def remarks(filled: Filled) -> list[str]:
    """The caption's sentences: how it was counted, what the words mean, notes, cells' notes."""
    table, cells = filled
    lines = ["Beside each published number stands what was measured here."]
    lines += [_counting(table)] if any(cell.kind in COMPLEXITY for cell in cells) else []
    words = {cell.verdict for cell in cells}
    legend = [f"{word}: {VERDICTS[word]}" for word in VERDICTS if word in words]
    lines.append("; ".join(legend) + ".")
    if any(cell.kind in ACCURACY for cell in cells):
        lines.append(_selection(table))
    lines += table.notes
    return lines + [f"{cell.row}, {cell.column}: {cell.note}." for cell in cells if cell.note]


def _counting(table: Table) -> str:
    counted = [figure for figure in table.figures if figure.kind in COMPLEXITY]
    ways = [(f.rule, f.num_classes, f.image_size) for f in counted]
    usual = max(dict.fromkeys(ways), key=ways.count)
    others: dict[tuple[str, int, int], list[str]] = {}
    for figure, way in zip(counted, ways, strict=True):
        if way != usual:
            others.setdefault(way, []).append(f"{figure.row} {figure.column}")
    odd = [f"{_way(*way)} for {', '.join(where)}" for way, where in others.items()]
    return "Counted under " + "; ".join([_way(*usual), *odd]) + "."


def _way(rule: str, num_classes: int, image_size: int) -> str:
    return f"{rule}, {num_classes} classes, {image_size} px"


def _selection(table: Table) -> str:
    if table.select == "unstated":
        return "The document does not say whether accuracies are of the best or the last epoch."
    which = {"best": "best (on the test images, which flatters)", "final": "last"}[table.select]
    return f"Accuracies are of the {which} epoch."


def _letter(power: int) -> str:
    return next((letter for letter, value in SCALES.items() if value == power), f"e{power}")


# --- formats ------------------------------------------------------------------------------------


def _fitting(filled: Filled, width: int) -> Sheet:
    whole = sheet(filled)
    widths = [max(map(len, column)) for column in zip(whole.header, *whole.rows, strict=True)]
    return whole if sum(widths) + 2 * len(widths) + 2 <= width else long_sheet(filled)


def _terminal(sheet: Sheet, width: int) -> str:
    grid = Grid(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, name in enumerate(sheet.header):
        grid.add_column(Text(name), overflow="fold", justify="left" if index == 0 else "right")
    for row in sheet.rows:
        grid.add_row(*map(Text, row))
    stream = io.StringIO()
    screen = Console(file=stream, width=width, color_system=None, legacy_windows=False)
    screen.print(Text(sheet.title))
    screen.print(grid)
    for remark in sheet.remarks:
        screen.print(Text(remark))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _written(format: str, sheets: Sequence[Sheet], others: list[str]) -> str:
    writers: dict[str, Callable[[Sequence[Sheet]], str]] = {
        "markdown": _markdown,
        "latex": _latex,
        "html": _html,
    }
    if format not in writers:
        raise UsageError(f"no format {format!r}{nearest(format, [*writers, *others])}")
    return writers[format](sheets)


def _markdown(sheets: Sequence[Sheet]) -> str:
    return "\n".join(_markdown_one(one) for one in sheets)


def _markdown_one(sheet: Sheet) -> str:
    def line(texts: Iterable[str]) -> str:
        return "| " + " | ".join(map(_markdown_text, texts)) + " |"

    rule = "| --- |" + " ---: |" * (len(sheet.header) - 1)
    notes = [f"- {_markdown_text(remark)}" for remark in sheet.remarks]
    rows = map(line, sheet.rows)
    title = f"**{_markdown_text(sheet.title)}**"
    return "\n".join([title, "", line(sheet.header), rule, *rows, "", *notes, ""])


def _markdown_text(text: str) -> str:
    for sign in "\\|*_`<>[]":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def _latex(sheets: Sequence[Sheet]) -> str:
    return "\n".join(_latex_one(one) for one in sheets)


def _latex_one(sheet: Sheet) -> str:
    def line(texts: Iterable[str]) -> str:
        return " & ".join(map(_latex_text, texts)) + r" \\"

    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex_text(sheet.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(sheet.header) - 1)}}}",
            r"\toprule",
            line(sheet.header),
            r"\midrule",
            *map(line, sheet.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\smallskip\footnotesize",
            *(_latex_text(remark) + r"\par" for remark in sheet.remarks),
            r"\end{table}",
            "",
        ]
    )


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def _html(sheets: Sequence[Sheet]) -> str:
    head = (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>lwbench tables</title>'
    )
    style = (
        "<style>body{font-family:sans-serif}table{border-collapse:collapse}"
        "td,th{padding:.2em .6em;border-bottom:1px solid #ccc;text-align:right}"
        "td:first-child,th:first-child,caption{text-align:left}</style>"
    )
    return "\n".join([head, style, *map(html_table, sheets), "</html>", ""])


def html_table(sheet: Sheet) -> str:
    """One `<table>` and its remarks, escaped; no document around it."""

    def line(tag: str, texts: Iterable[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts) + "</tr>"

    head = f"<table>\n<caption>{escape(sheet.title)}</caption>\n<thead>{line('th', sheet.header)}"
    rows = "\n".join(line("td", row) for row in sheet.rows)
    notes = "\n".join(f"<li>{escape(remark)}</li>" for remark in sheet.remarks)
    return f"{head}</thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n<ul>\n{notes}\n</ul>"


def _json(content: object) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _csv(rows: Iterable[Sequence[object]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
