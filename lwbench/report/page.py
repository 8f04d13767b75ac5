"""Render the report as one HTML file that needs no other file and no network.

All texts are plain here; Jinja escapes every one of them. The page's content security policy
forbids loading anything: style and script are allowed by their hashes, pictures as data URIs.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..runs.records import Record, devices, revisions
from ..tables.cells import BESIDE, VERDICTS, WORDS
from ..tables.claims.judge import WORDS as CLAIM_WORDS
from ..tables.layout import Layout
from .runview import Picture, RunView


@dataclass(frozen=True)
class Details:
    """What a row opens to."""

    notes: Sequence[str] = ()
    runs: Sequence[RunView] = ()
    outside: Sequence[RunView] = ()  # runs of the row that are in no cell
    commands: Sequence[tuple[str, str]] = ()  # names of columns, command that measures them


@dataclass(frozen=True)
class Section:
    """A table on the page; `details` are those of its rows, or none at all."""

    layout: Layout
    details: Sequence[Details] = ()
    pictures: list[Picture] = field(default_factory=list)

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The headers above published, measured and difference columns, with their widths."""
        names = [header.group for header in self.layout.headers if header.group]
        return [(name, names.count(name)) for name in dict.fromkeys(names)]


@dataclass(frozen=True)
class Page:
    """All that the page shows."""

    version: str
    records: Sequence[Record]
    select: str
    totals: Mapping[str, Mapping[str, int]]  # cells of published tables by kind and verdict
    summary: Section
    studies: Sequence[Section]
    tables: Sequence[Section]
    claims: Section | None
    latencies: Sequence[Section]
    others: Section | None

    @property
    def started(self) -> str:
        """When the newest run was started."""
        times = (start.started or "" for record in self.records for start in record.starts)
        return max(times, default="")


def html(page: Page) -> str:
    """The page as one HTML document."""
    loader = PackageLoader("lwbench.report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["id"] = section_id
    environment.globals |= {"words": WORDS | CLAIM_WORDS, "verdicts": VERDICTS | BESIDE}
    environment.globals |= {"devices": devices, "revisions": revisions}
    for name, ending in (("style", "css"), ("script", "js")):
        text = Markup(loader.get_source(environment, f"report.{ending}")[0])
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        environment.globals |= {name: text, f"{name}_hash": f"sha256-{digest}"}
    return environment.get_template("report.html").render(
        vars(page), started=page.started, made=revisions(page.records)
    )


def section_id(name: str) -> str:
    """The id of a table's section: ASCII letters and digits, any other character by its code."""
    return "".join(c if c.isascii() and c.isalnum() else f"-{ord(c):x}" for c in name)
