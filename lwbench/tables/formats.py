"""Tables as text: terminal, Markdown, LaTeX, CSV, JSON, HTML. Published and measured side by side.

Every text that comes from a table is escaped for the format it goes into.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from html import escape

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from ..errors import UsageError, nearest
from . import captions
from .cells import Cell, Summary
from .layout import Filled, Sheet, grid, long_grid, summary_sheet

PAGE = 150  # characters of a row that can still be read when made as small as a page is wide


def render(
    tables: Sequence[Filled], format: str = "terminal", width: int = 80, intervals: bool = False
) -> str:
    """Filled tables as one text; `width` is that of the terminal, in characters.

    `intervals`: the confidence interval beside every mean. JSON and CSV are one list over all
    tables, a cell a line. Raises UsageError for an unknown format.
    """
    lists = {"json": as_json, "csv": as_csv}
    if format in lists:
        return lists[format]([cell for filled in tables for cell in filled.cells])
    if format == "terminal":
        return "\n".join(_terminal(_fitting(one, width, intervals), width) for one in tables)
    if format == "latex":
        return _latex([_fitting(one, PAGE, intervals) for one in tables])
    return _written(format, [sheet(one, intervals) for one in tables], [*lists, "terminal"])


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
    """A line a cell, under the keys of the JSON form; lists are joined by semicolons."""
    lines = [cell.as_json() for cell in cells]
    rows = ([_joined(value) for value in line.values()] for line in lines)
    return _csv([list(lines[0]), *rows]) if lines else ""


def sheet(filled: Filled, intervals: bool = False) -> Sheet:
    """The table in its own shape, with its caption."""
    return Sheet(captions.title(filled), captions.remarks(filled), *grid(filled, intervals))


def _joined(value: object) -> object:
    return ";".join(map(str, value)) if isinstance(value, list) else value


def _summary_json(one: Summary) -> dict[str, object]:
    return {"table": one.table, "source": one.source, "cells": one.cells, **one.verdicts}


# --- formats ------------------------------------------------------------------------------------


def _fitting(filled: Filled, width: int, intervals: bool) -> Sheet:
    whole = sheet(filled, intervals)
    widths = [max(map(len, column)) for column in zip(whole.header, *whole.rows, strict=True)]
    if sum(widths) + 2 * len(widths) + 2 <= width:
        return whole
    return Sheet(whole.title, whole.remarks, *long_grid(filled, intervals))


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
    "±": r"$\pm$",
    # behind the end of a row, these would be read as its arguments
    "[": "{[}",
    "*": "{*}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


_PREAMBLE = r"""% in the preamble: \usepackage{booktabs,graphicx}
\providecommand{\resizebox}[3]{#3}
"""


def _latex(sheets: Sequence[Sheet]) -> str:
    return "\n".join([_PREAMBLE, *map(_latex_one, sheets)])


def _latex_one(sheet: Sheet) -> str:
    def line(texts: Iterable[str]) -> str:
        return " & ".join(map(_latex_text, texts)) + r" \\"

    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex_text(sheet.title)}}}",
            r"\sbox0{\footnotesize",
            rf"\begin{{tabular}}{{l{'r' * (len(sheet.header) - 1)}}}",
            r"\toprule",
            line(sheet.header),
            r"\midrule",
            *map(line, sheet.rows),
            r"\bottomrule",
            r"\end{tabular}}",
            # a table that is wider than the page is made smaller, any other stays as it is
            r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
            r"\par\smallskip\scriptsize\raggedright",
            " ".join(map(_latex_text, sheet.remarks)) + r"\par",
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
