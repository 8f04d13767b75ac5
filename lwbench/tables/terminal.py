"""Print tables on a terminal: a line per row, shortened as far as its width requires.

The published number, the measured one and its verdict share a column: `63.4 M =` is an exact count,
`89.28 | 88.93 ± 0.31 (3) ✓` a reproduced accuracy. A legend below the table explains the signs that
occur. What does not fit is shortened: first headers, then p-values and units, then spaces; columns
that still do not fit are printed below the others, with the labels repeated.
"""

import io
import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from . import captions
from .cells import WORDS
from .layout import PARTS, Entry, Header, Layout

STYLES = {"good": "green", "near": "cyan", "odd": "yellow", "bad": "red", "quiet": "bright_black"}


class Form(NamedTuple):
    """What is written out; every later one of FORMS needs less room."""

    header: bool  # in one line
    aside: bool  # the p-value of a difference
    unit: bool  # behind every number rather than in the header
    space: bool  # between the parts of an entry


FORMS = (
    Form(True, True, True, True),
    Form(False, True, True, True),
    Form(False, False, True, True),
    Form(False, False, False, True),
    Form(False, False, False, False),
)
SPLIT = FORMS[3]  # of tables that are printed in several blocks


class Printed(NamedTuple):
    """A column as printed."""

    header: str
    texts: Sequence[Text]
    justify: Literal["left", "right"] = "left"
    is_difference: bool = False

    @property
    def width(self) -> int:
        texts = [self.header, *(text.plain for text in self.texts)]
        return max(cell_len(line) for text in texts for line in text.split("\n"))


def terminal(layout: Layout, width: int, colours: bool) -> str:
    """The table with its caption, in lines of at most `width` characters."""
    is_long = any(header.part in PARTS and not header.group for header in layout.headers)
    stream = io.StringIO()
    screen = Console(
        file=stream,
        width=width,
        force_terminal=colours,
        color_system="standard" if colours else None,
        legacy_windows=False,
    )
    screen.print(Text(layout.title, style="bold"))
    for block in _blocks(layout, width, is_long):
        grid = Grid(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
        for column in block:
            grid.add_column(Text(column.header, "bold"), overflow="fold", justify=column.justify)
        for row in zip(*(column.texts for column in block), strict=True):
            grid.add_row(*row)
        screen.print("", grid, sep="\n")
    screen.print()
    if any(header.part == "published" and header.group for header in layout.headers):
        screen.print("published | measured here")
    for remark in (*captions.legend(layout.words, signs=not is_long), *layout.remarks):
        screen.print(Text(remark))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _blocks(layout: Layout, width: int, is_long: bool) -> Iterator[list[Printed]]:
    """The columns in one block, if they fit in some form or if every row is one cell anyway."""
    for form in FORMS:
        columns = list(_columns(layout, form))
        if is_long or _total(columns) <= width:
            yield columns
            return
    label, *rest = _columns(layout, SPLIT)
    narrow = min(max(width // 3, 12), max(width - max(c.width for c in rest) - 2, 8))
    texts = [Text(_broken(text.plain, narrow, r"(?<=[-_ ])")) for text in label.texts]
    block = [label := Printed(label.header, texts)]
    while rest:
        # a difference stays beside the column that it belongs to, if that is possible at all
        is_pair = len(rest) > 1 and rest[1].is_difference
        end = 2 if is_pair and _total([label, *rest[:2]]) <= width else 1
        if len(block) > 1 and _total([*block, *rest[:end]]) > width:
            yield block
            block = [label]
        block += rest[:end]
        rest = rest[end:]
    yield block


def _total(columns: Sequence[Printed]) -> int:
    return sum(column.width + 2 for column in columns) - 2


def _columns(layout: Layout, form: Form) -> Iterator[Printed]:
    """The columns as printed; published and measured entries of a group share one."""
    rows = [*layout.rows, layout.total] if layout.total else layout.rows
    by_header = dict(zip(layout.headers, zip(*rows, strict=True), strict=True))
    for header, entries in by_header.items():
        published = by_header.get(Header(header.group, "published", header.group), ())
        if header.group and header.part == "measured":
            yield _joined(header.group, published, entries, form)
        elif header.group and header.part in ("difference", "evaluated"):
            # whose evaluated weights are stands in the caption
            brief = form if header.part == "difference" else SPLIT
            texts = [_difference(entry, brief) for entry in entries]
            yield Printed(_header(header.text, texts, form), texts, is_difference=True)
        elif not header.group:
            texts = [Text(str(entry), _style(entry)) for entry in entries]
            is_sign = header.text in WORDS and not form.aside  # a verdict, in the summary
            name = WORDS[header.text].sign if is_sign else _header(header.text, texts, form)
            is_left = header.part in ("label", "text", "mark")
            yield Printed(name, texts, "left" if is_left else "right")


def _difference(entry: Entry, form: Form) -> Text:
    sign = WORDS[entry.word].sign if entry.word else ""
    aside = f" ({entry.aside})" if entry.aside and form.aside else ""
    return Text(f"{entry.text} {sign}".strip(), _style(entry)) + Text(aside)


def _joined(
    name: str, published: Sequence[Entry], measured: Sequence[Entry], form: Form
) -> Printed:
    """Published and measured numbers in one column, aligned at the end of the published ones."""
    units = {entry.unit for entry in (*published, *measured) if entry.value is not None}
    unit = units.pop() if len(units) == 1 and not form.unit else ""
    space = " " if form.space else ""

    def number(entry: Entry) -> str:
        text = entry.text.removesuffix(f" {unit}") if unit else entry.text
        return text if form.space else re.sub(r" (?=[±(])|(?<=±) ", "", text)

    printed = [number(e) + (WORDS[e.word].sign if e.word else "") for e in published]
    printed = printed or [""] * len(measured)
    pad = max(map(len, printed), default=0)
    texts = []
    for left, entry in zip(printed, measured, strict=True):
        text = Text(left.rjust(pad))
        if entry.text and not (published and entry.word == "exact"):
            text.append(f"{space}|{space}" if published else "").append(
                number(entry), _style(entry)
            )
        if sign := WORDS[entry.word].sign if entry.word else "":
            text.append(f"{space if text else ''}{sign}", _style(entry))
        texts.append(text)
    return Printed(_header(f"{name} ({unit})" if unit else name, texts, form), texts)


def _style(entry: Entry) -> str:
    return STYLES[WORDS[entry.word].tone] if entry.word else ""


def _header(name: str, texts: Sequence[Text], form: Form) -> str:
    width = max((cell_len(text.plain) for text in texts), default=0)
    return name if form.header else _broken(name, width, r"(?<=[_ ])")


def _broken(text: str, width: int, places: str) -> str:
    """The text in lines of at most `width` where it can be broken at these places."""
    lines = [""]
    for piece in re.split(places, text):
        if lines[-1] and cell_len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)
