"""The page's parts, and how they become one HTML file that needs nothing beside it.

Texts are plain here: Jinja escapes every one of them. Nothing is loaded from anywhere, and the
page's own policy forbids it: style and script are let in by their hashes, pictures as data.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .runview import Picture, RunView

# how a verdict is coloured; its word says it too
TONES = {
    **dict.fromkeys(("exact", "reproduced", "better"), "good"),
    **dict.fromkeys(("truncated", "close", "measured", "reduced"), "near"),
    **dict.fromkeys(("misprint", "fit", "too few runs"), "odd"),
    **dict.fromkeys(("differs", "missing", "worse"), "bad"),
}


@dataclass(frozen=True)
class Column:
    """A column of a grid; `style` is a class of report.css."""

    name: str
    is_number: bool = True
    style: str = ""
    says: str = ""  # what it holds, where the name alone does not say it


@dataclass(frozen=True)
class Cell:
    """What stands in a cell; `value` is what it is sorted by, where that is not its text."""

    text: str
    value: float | None = None
    verdict: str = ""
    more: str = ""  # said under it


@dataclass
class Row:
    """A row, and what it opens."""

    label: str
    cells: list[Cell]
    notes: list[str] = field(default_factory=list)
    runs: list[RunView] = field(default_factory=list)
    commands: list[tuple[str, str]] = field(default_factory=list)  # columns, line for a shell
    link: str = ""  # id of a section

    @property
    def opens(self) -> bool:
        return bool(self.notes or self.runs or self.commands)


@dataclass
class Grid:
    """A sortable table: one column more than a row has cells, for the label."""

    id: str
    title: str
    caption: str
    columns: list[Column]
    rows: list[Row]
    groups: list[tuple[str, int]] = field(default_factory=list)  # above the columns: name, span
    remarks: Sequence[str] = ()
    pictures: list[Picture] = field(default_factory=list)
    total: Row | None = None  # below all rows, however they are sorted


@dataclass(frozen=True)
class Part:
    """A chapter of the page."""

    id: str
    title: str
    text: str
    tables: list[Grid]


@dataclass(frozen=True)
class Page:
    """All that the page shows."""

    made: str
    standing: list[str]
    summary: Grid
    legend: Mapping[str, str]
    parts: list[Part]


def html(page: Page) -> str:
    """The page as one HTML document."""
    environment = Environment(
        loader=PackageLoader("lwbench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    loader = environment.loader
    style, script = (
        Markup(loader.get_source(environment, name)[0]) for name in ("report.css", "report.js")
    )
    return environment.get_template("report.html").render(
        vars(page),
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        tones=TONES,
    )


def _hash(text: str) -> str:
    """A source expression of the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
