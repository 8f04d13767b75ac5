"""Write tables as text: terminal, Markdown, LaTeX, CSV, JSON, HTML.

Every text that comes from a table or from a run is escaped for the format that it is written in.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from ..errors import UsageError, nearest
from .cells import FilledTable
from .layout import Layout, long, of_summary, of_table
from .terminal import terminal

FORMATS = ("terminal", "markdown", "latex", "html", "csv", "json")
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
    if format in ("json", "csv"):
        return listed([cell.as_json() for filled in tables for cell in filled.cells], format)
    layouts = [of_table(filled, intervals) for filled in tables]
    shaped = [long(one) if is_long or _is_wide(one, format) else one for one in layouts]
    return written(shaped, format, width, colours)


def render_summary(
    tables: Sequence[FilledTable], format: str = "terminal", width: int = 80, colours: bool = False
) -> str:
    """Write how many cells have which verdict, a line per table; formats as in `render`."""
    layout = of_summary(tables)
    found = [filled.summary() for filled in tables]
    if format == "csv":
        keys = [header.text for header in layout.headers]
        found = [{key: one[key] for key in keys} for one in found]
    if format in ("json", "csv"):
        return listed(found, format)
    return written([layout], format, width, colours)


def _is_wide(layout: Layout, format: str) -> bool:
    columns = zip(*layout.texts, strict=True)
    width = sum(max(map(cell_len, texts)) + 2 for texts in columns)
    return format == "latex" and width > LATEX_WIDTH


def written(layouts: Sequence[Layout], format: str, width: int = 80, colours: bool = False) -> str:
    """Write layouts in any format but JSON and CSV. Raises UsageError for an unknown format."""
    if format == "terminal":
        return "\n".join(terminal(one, width, colours) for one in layouts)
    endings = {"markdown": "md", "latex": "tex", "html": "html"}
    if format not in endings:
        raise UsageError(f"no format {format!r}{nearest(format, FORMATS)}")
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lwbench.tables"),
        autoescape=format == "html",
        undefined=StrictUndefined,
        comment_start_string="<#",  # {# means something in LaTeX
        comment_end_string="#>",
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"latex": _latex, "markdown": _markdown}
    return environment.get_template(f"table.{endings[format]}").render(tables=layouts)


def _markdown(text: str) -> str:
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


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def listed(entries: Sequence[Mapping[str, Any]], format: str) -> str:
    """A JSON list, or a line of CSV per entry; there, lists are joined by semicolons."""
    if format == "json":
        return json.dumps(entries, ensure_ascii=False, indent=1) + "\n"
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([list(entries[0])] if entries else [])
    writer.writerows(map(_joined, entry.values()) for entry in entries)
    return stream.getvalue()


def _joined(value: object) -> object:
    if isinstance(value, dict):
        return _text(value)
    return ";".join(map(_text, value)) if isinstance(value, list) else value


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
