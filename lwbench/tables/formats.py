"""Write tables as text: terminal, Markdown, LaTeX, CSV, JSON, HTML.

Every text that comes from a table or from a run is escaped for the format that it is written in.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

from ..errors import UsageError, nearest
from .captions import legend
from .cells import Cell, FilledTable, Summary
from .layout import Layout, long, of_summary, of_table
from .terminal import terminal

LATEX_WIDTH = 150  # characters of a row; a wider table would be illegible when scaled to the page


def render(
    tables: Sequence[FilledTable],
    format: str = "terminal",
    width: int = 80,
    *,
    intervals: bool = False,
    is_long: bool = False,
    colours: bool = False,
) -> str:
    """Write filled tables as one text; `width` is that of the terminal, in characters.

    `intervals` adds the confidence interval of every mean, `is_long` writes a line per cell,
    `colours` concerns the terminal alone. JSON and CSV are one list over all tables, a cell an
    entry. Raises UsageError for an unknown format.
    """
    cells = [cell for filled in tables for cell in filled.cells]
    if format == "json":
        return _json([cell.as_json() for cell in cells])
    if format == "csv":
        return _csv_of_cells(cells)
    layouts = [of_table(filled, intervals) for filled in tables]
    if format == "latex":
        layouts = [long(one) if is_long or _width(one) > LATEX_WIDTH else one for one in layouts]
    elif is_long:
        layouts = list(map(long, layouts))
    return _render(layouts, format, width, colours)


def render_summary(
    summaries: Sequence[Summary],
    format: str = "terminal",
    width: int = 80,
    *,
    colours: bool = False,
) -> str:
    """Write how many cells have which verdict, a line per table; formats as in `render`."""
    layout = of_summary(summaries)
    if format == "json":
        return _json([_summary_json(one) for one in summaries])
    if format == "csv":
        header = [header.text for header in layout.headers]
        return _csv([header, *([row[0].text, *(e.value for e in row[1:])] for row in layout.rows)])
    return _render([layout], format, width, colours)


def _render(layouts: Sequence[Layout], format: str, width: int, colours: bool) -> str:
    if format == "terminal":
        return "\n".join(terminal(one, width, colours) for one in layouts)
    writers: dict[str, Callable[[Sequence[Layout]], str]] = {
        "markdown": _markdown,
        "latex": _latex,
        "html": _html,
    }
    if format not in writers:
        known = [*writers, "json", "csv", "terminal"]
        raise UsageError(f"no format {format!r}{nearest(format, known)}")
    return writers[format](layouts)


def _texts(layout: Layout) -> list[list[str]]:
    """The header and the rows, the sum below them, as plain texts."""
    rows = [[header.text for header in layout.headers]]
    rows += [[str(entry) for entry in row] for row in layout.rows]
    return rows + ([[str(entry) for entry in layout.total]] if layout.total else [])


def _remarks(layout: Layout) -> list[str]:
    return [*legend(layout.words), *layout.remarks]


def _width(layout: Layout) -> int:
    widths = [max(map(len, column)) for column in zip(*_texts(layout), strict=True)]
    return sum(widths) + 2 * len(widths) + 2


# --- formats ------------------------------------------------------------------------------------


def _markdown(layouts: Sequence[Layout]) -> str:
    def line(texts: Iterable[str]) -> str:
        return "| " + " | ".join(map(_markdown_text, texts)) + " |"

    blocks = []
    for layout in layouts:
        header, *rows = map(line, _texts(layout))
        rule = "| --- |" + " ---: |" * (len(layout.headers) - 1)
        title = f"**{_markdown_text(layout.title)}**"
        notes = [f"- {_markdown_text(remark)}" for remark in _remarks(layout)]
        blocks.append("\n".join([title, "", header, rule, *rows, "", *notes, ""]))
    return "\n".join(blocks)


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
    "·": r"$\cdot$",
    # after the end of a row, TeX would read these as arguments of \\
    "[": "{[}",
    "*": "{*}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_PREAMBLE = r"""% in the preamble: \usepackage{booktabs,graphicx}
\providecommand{\resizebox}[3]{#3}
"""


def _latex(layouts: Sequence[Layout]) -> str:
    return "\n".join([_PREAMBLE, *map(_latex_one, layouts)])


def _latex_one(layout: Layout) -> str:
    header, *rows = (" & ".join(map(_latex_text, texts)) + r" \\" for texts in _texts(layout))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex_text(layout.title)}}}",
            r"\sbox0{\footnotesize",
            rf"\begin{{tabular}}{{l{'r' * (len(layout.headers) - 1)}}}",
            r"\toprule",
            header,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            # scale down what is wider than the page, and nothing else
            r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
            r"\par\smallskip\scriptsize\raggedright",
            " ".join(map(_latex_text, _remarks(layout))) + r"\par",
            r"\end{table}",
            "",
        ]
    )


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


_HTML_HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>lwbench tables</title>
<style>body{font-family:sans-serif}table{border-collapse:collapse}\
td,th{padding:.2em .6em;border-bottom:1px solid #ccc;text-align:right}\
td:first-child,th:first-child,caption{text-align:left}</style>
"""


def _html(layouts: Sequence[Layout]) -> str:
    return "\n".join([_HTML_HEAD, *map(_html_one, layouts), "</html>", ""])


def _html_one(layout: Layout) -> str:
    def line(tag: str, texts: Iterable[str]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts) + "</tr>"

    header, *rows = _texts(layout)
    body = "\n".join(line("td", row) for row in rows)
    notes = "\n".join(f"<li>{escape(remark)}</li>" for remark in _remarks(layout))
    head = f"<table>\n<caption>{escape(layout.title)}</caption>\n<thead>{line('th', header)}"
    return f"{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n<ul>\n{notes}\n</ul>"


# --- lists of cells -----------------------------------------------------------------------------


def _csv_of_cells(cells: Iterable[Cell]) -> str:
    """A line per cell, under the keys of the JSON form; lists are joined by semicolons."""
    lines = [cell.as_json() for cell in cells]
    rows = ([_joined(value) for value in line.values()] for line in lines)
    return _csv([list(lines[0]), *rows]) if lines else ""


def _joined(value: object) -> object:
    return ";".join(map(str, value)) if isinstance(value, list) else value


def _summary_json(one: Summary) -> Mapping[str, object]:
    return {"table": one.table, "source": one.source, "cells": one.cells, **one.verdicts}


def _json(content: object) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _csv(rows: Iterable[Sequence[object]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
