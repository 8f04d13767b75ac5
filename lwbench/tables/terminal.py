"""Print tables on a terminal: a line per row, shortened as far as its width requires.

The published number, the measured one and its verdict share a column: `63.4 M =` is an exact count,
`89.28 | 88.93 ± 0.31 (3) ✓` a reproduced accuracy. A legend below the table explains the signs that
occur. What does not fit is shortened: first headers, then asides and units, then spaces; columns
that still do not fit are printed below the others, with the labels repeated.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from . import captions
from .layout import PARTS, TONES, Entry, Header, Layout

SIGNS = {
    "exact": "=", "truncated": "↓", "close": "≈", "misprint": "!", "fit": "~",
    "reproduced": "✓", "differs": "✗", "too few runs": "?", "reduced": "°",
    "open": "·", "not runnable here": "-",
    "better": "▲", "worse": "▼", "no difference shown": "○",
}  # fmt: skip
STYLES = {"good": "green", "near": "cyan", "odd": "yellow", "bad": "red", "quiet": "bright_black"}


@dataclass(frozen=True)
class _Brevity:
    """What is written out; every later one of BREVITIES needs less room."""

    header: bool = False  # in one line
    aside: bool = False  # the p-value of a difference
    unit: bool = False  # behind every number rather than in the header
    space: bool = True  # between the parts of an entry


BREVITIES = (
    _Brevity(header=True, aside=True, unit=True),
    _Brevity(aside=True, unit=True),
    _Brevity(unit=True),
    _Brevity(),
    _Brevity(space=False),
)
SPLIT = _Brevity()  # for tables that are printed in several blocks


@dataclass(frozen=True)
class _Printed:
    """A column as printed."""

    header: str
    texts: Sequence[Text]
    is_number: bool = False

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
        screen.print()
        screen.print(_grid(block))
    screen.print()
    signs = {} if is_long else SIGNS
    both = any(header.part == "published" for header in layout.headers)
    for remark in captions.legend(layout.words, signs, both) + list(layout.remarks):
        screen.print(Text(remark))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _blocks(layout: Layout, width: int, is_long: bool) -> Iterator[list[_Printed]]:
    """The columns in one block, if they fit in some brevity or if every row is one cell anyway."""
    for brevity in BREVITIES:
        columns = list(_columns(layout, brevity))
        if is_long or _total(columns) <= width:
            yield columns
            return
    label, *rest = _columns(layout, SPLIT)
    widest = max(column.width for column in rest)
    narrow = min(max(width // 3, 12), max(width - widest - 2, 8))
    texts = [Text(_broken(text.plain, narrow, r"(?<=[-_ ])")) for text in label.texts]
    block = [label := _Printed(label.header, texts, is_number=False)]
    for column in rest:
        if len(block) > 1 and _total([*block, column]) > width:
            yield block
            block = [label]
        block.append(column)
    yield block


def _total(columns: Sequence[_Printed]) -> int:
    return sum(column.width + 2 for column in columns) - 2


def _grid(columns: Sequence[_Printed]) -> Grid:
    box = SIMPLE_HEAD
    grid = Grid(box=box, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        grid.add_column(Text(column.header), overflow="fold", justify=justify)
    for row in zip(*(column.texts for column in columns), strict=True):
        grid.add_row(*row)
    return grid


def _columns(layout: Layout, brevity: _Brevity) -> Iterator[_Printed]:
    """The columns as printed; published and measured entries of a group share one."""
    entries = dict(zip(layout.headers, zip(*layout.rows, strict=True), strict=True))
    sums = dict(zip(layout.headers, layout.total, strict=True)) if layout.total else {}
    groups: dict[str, dict[str, Sequence[Entry]]] = {}
    for header, some in entries.items():
        groups.setdefault(header.group, {})[header.part] = some
    for header, some in entries.items():
        if not header.group or header.part == "difference":
            yield _single(header, [*some, *([sums[header]] if sums else [])], brevity)
        elif header.part == "measured":
            yield _joined(header.group, groups[header.group].get("published"), some, brevity)


def _single(header: Header, entries: Sequence[Entry], brevity: _Brevity) -> _Printed:
    texts = []
    for entry in entries:
        if header.group:  # a difference
            text = f"{entry.text} {SIGNS.get(entry.word, '')}".strip()
            aside = f" ({entry.aside})" if entry.aside and brevity.aside else ""
            texts.append(Text(text, style=_style(entry)) + Text(aside))
        else:
            texts.append(Text(str(entry), style=_style(entry)))
    is_number = header.part not in ("label", "text", "mark", "difference")
    width = max((cell_len(text.plain) for text in texts), default=0)
    name = header.text if brevity.header else _broken(header.text, width)
    if header.text in SIGNS and not brevity.aside:  # a verdict, in the summary
        name = SIGNS[header.text]
    return _Printed(name, texts, is_number)


def _joined(
    name: str, published: Sequence[Entry] | None, measured: Sequence[Entry], brevity: _Brevity
) -> _Printed:
    """Published and measured numbers in one column, aligned at the end of the published ones."""
    units = {entry.unit for entry in (*(published or ()), *measured) if entry.value is not None}
    unit = units.pop() if len(units) == 1 and not brevity.unit else ""
    name = f"{name} ({unit})" if unit else name

    def number(entry: Entry) -> str:
        text = entry.text.removesuffix(f" {unit}") if unit else entry.text
        return text if brevity.space else re.sub(r" (?=[±(])|(?<=±) ", "", text)

    printed = [number(entry) for entry in published or ()]
    pad = max(map(len, printed), default=0)
    space = " " if brevity.space else ""
    texts = []
    for row, entry in enumerate(measured):
        style, sign = _style(entry), SIGNS.get(entry.word, "")
        text = Text(printed[row].rjust(pad) if printed else "")
        if entry.text and not (printed and entry.word == "exact"):
            text.append(f"{space}|{space}" if printed else "").append(number(entry), style)
        texts.append(text.append(f"{space if text and sign else ''}{sign}", style))
    width = max((cell_len(text.plain) for text in texts), default=0)
    return _Printed(name if brevity.header else _broken(name, width), texts)


def _style(entry: Entry) -> str:
    return STYLES.get(TONES.get(entry.word, ""), "")


def _broken(text: str, width: int, places: str = r"(?<=[_ ])") -> str:
    """The text in lines of at most `width` where it can be broken at these places."""
    lines = [""]
    for piece in re.split(places, text):
        if lines[-1] and cell_len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)
