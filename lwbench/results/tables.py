"""A table's cells: what is published beside what is counted, with a verdict each.

Counts are made elsewhere, since they need torch: `requirements` says which, `cells` takes them as
plain numbers.
"""

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any, TypedDict

from .published import ACCURACY, COMPLEXITY, Figure, Table

# what the verdicts mean, as captions say it
VERDICTS = {
    "exact": "our count rounds to the printed digits",
    "truncated": "our count, cut, gives the printed digits",
    "close": "neither; the ratio is ours / published",
    "misprint": "the printed number is shown wrong by the reason given",
    "fit": "the network's free parameters were chosen to meet the number",
    "measured": "nothing is published",
    "open": "not run yet",
    "not runnable here": "lwbench cannot measure it",
}


@dataclass(frozen=True)
class CountRequest:
    """A network to be counted: overrides such as `model=ldc3`, classes, and pixels of its input."""

    model: tuple[str, ...]
    num_classes: int
    image_size: int


class Counts(TypedDict):
    """What was counted: parameters, and MACs under each named rule."""

    params: int
    macs: Mapping[str, int]


@dataclass(frozen=True)
class Cell:
    """One cell of a table, in base units: counts, percent, images/s."""

    table: str
    row: str
    column: str
    kind: str
    published: str | None  # as printed
    measured: float | None
    verdict: str  # one of VERDICTS
    rule: str | None  # of a count; parameters have none that matters, but the table's
    command: str  # what would show or measure it; "" where nothing here can
    note: str

    @property
    def ratio(self) -> float | None:
        """Measured / published, where both are there."""
        if self.measured is None or self.published is None or not float(self.published):
            return None
        return self.measured / float(self.published)

    def as_json(self) -> dict[str, Any]:
        """The cell for machines: `published` as a number."""
        return {
            "table": self.table,
            "row": self.row,
            "column": self.column,
            "published": None if self.published is None else float(self.published),
            "measured": self.measured,
            "verdict": self.verdict,
            "rule": self.rule,
            "command": self.command,
            "note": self.note,
        }


@dataclass(frozen=True)
class Summary:
    """How a table stands: `cells` is the sum of the counts of all its verdicts."""

    table: str
    source: str
    cells: int
    verdicts: Mapping[str, int]  # every key of VERDICTS


def requirements(table: Table) -> list[CountRequest]:
    """The networks that must be counted to fill the table, each once."""
    wanted = (_request(figure) for figure in table.figures if figure.kind in COMPLEXITY)
    return list(dict.fromkeys(wanted))


def cells(table: Table, counts: Mapping[CountRequest, Counts]) -> list[Cell]:
    """The table's cells, row by row. A cell whose count is missing from `counts` is open."""
    return [_cell(table.name, figure, counts) for figure in table.figures]


def verdict(figure: Figure, measured: int) -> str:
    """How a count stands to the printed number, at the precision of its significant digits."""
    if figure.value is None:
        return "measured"
    if figure.misprint:
        return "misprint"
    if figure.fit:
        return "fit"
    printed, ours = Decimal(figure.value), Decimal(measured)
    if ours.quantize(figure.quantum, ROUND_HALF_UP) == printed:
        return "exact"
    return "truncated" if ours.quantize(figure.quantum, ROUND_DOWN) == printed else "close"


def summary(table: Table, found: Iterable[Cell]) -> Summary:
    """The table's cells counted by verdict."""
    counted = dict.fromkeys(VERDICTS, 0)
    found = list(found)
    for cell in found:
        counted[cell.verdict] += 1
    return Summary(table.name, table.source, len(found), counted)


def command(figure: Figure) -> str:
    """The line that shows a count or measures an accuracy, to be pasted into a shell."""
    if figure.kind in COMPLEXITY:
        size = (f"num_classes={figure.num_classes}", f"image_size={figure.image_size}")
        return shlex.join(["lwbench", "profile", *figure.model, *size])
    return "" if figure.train is None else shlex.join(["lwbench", "train", *figure.train])


def _request(figure: Figure) -> CountRequest:
    return CountRequest(figure.model, figure.num_classes, figure.image_size)


def _cell(table: str, figure: Figure, counts: Mapping[CountRequest, Counts]) -> Cell:
    measured = _count(figure, counts)
    if measured is not None:
        word = verdict(figure, measured)
    else:
        word = "open" if figure.kind in (*COMPLEXITY, *ACCURACY) else "not runnable here"
    return Cell(
        table=table,
        row=figure.row,
        column=figure.column,
        kind=figure.kind,
        published=figure.value,
        measured=measured,
        verdict=word,
        rule=figure.rule if figure.kind in COMPLEXITY else None,
        command=command(figure),
        note=_note(figure, word, measured),
    )


def _count(figure: Figure, counts: Mapping[CountRequest, Counts]) -> int | None:
    count = counts.get(_request(figure)) if figure.kind in COMPLEXITY else None
    if count is None:
        return None
    return count["params"] if figure.kind == "params" else count["macs"][figure.rule]


def _note(figure: Figure, word: str, measured: int | None) -> str:
    parts = [figure.misprint, figure.fit if figure.kind in COMPLEXITY else "", figure.note]
    if word in ("close", "misprint", "fit") and measured is not None:
        parts.insert(0, f"ours / published = {measured / float(figure.value or 'nan'):.4f}")
    return "; ".join(part for part in parts if part)
