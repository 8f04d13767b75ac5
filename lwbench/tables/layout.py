"""Lay out tables: headers and rows of entries, which every format and the report page renders.

An entry keeps its number, its verdict and what the verdict rests on apart: Markdown writes all of
it out, a terminal uses a sign for the verdict, the page a badge.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from . import captions
from .cells import VERDICTS, Cell, FilledTable, Summary
from .statistics import OUTCOMES
from .table import ACCURACY, CHECK, COMPLEXITY

PARTS = ("published", "measured", "difference")  # of a column of the table
UNITS = {**dict.fromkeys(ACCURACY, "%"), "map": "%", "speed": "images/s"}
SCALES = {0: "", 3: "k", 6: "M", 9: "G"}
# how a verdict or the outcome of a comparison is coloured; signs or words say the same
TONES = {
    **dict.fromkeys(("exact", "reproduced", "better"), "good"),
    **dict.fromkeys(("truncated", "close", "reduced"), "near"),
    **dict.fromkeys(("misprint", "fit", "too few runs"), "odd"),
    **dict.fromkeys(("differs", "worse"), "bad"),
    **dict.fromkeys(("open", "not runnable here", "no difference shown"), "quiet"),
}


@dataclass(frozen=True)
class Entry:
    """What stands at one place of a table."""

    text: str = ""
    word: str = ""  # a verdict, or the outcome of a comparison
    aside: str = ""  # what the word rests on: a ratio, the half-width of an interval, a p-value
    value: float | None = None  # sorts the rows by this column
    unit: str = ""  # at the end of the text: M, G
    separator: str = ", "  # between text and word

    def __str__(self) -> str:
        said = self.separator.join(filter(None, [self.text, self.word]))
        return f"{said} ({self.aside})" if self.aside else said


@dataclass(frozen=True)
class Header:
    """What stands above a column of entries."""

    text: str
    part: str = "number"  # label, mark, text, number; published, measured or difference of a column
    group: str = ""  # the table's column that a published, measured or difference part belongs to


@dataclass(frozen=True)
class Layout:
    """A table ready to be rendered; every row has an entry per header."""

    name: str
    source: str
    headers: Sequence[Header]
    rows: Sequence[Sequence[Entry]]
    remarks: Sequence[str] = ()
    words: Sequence[str] = ()  # the verdicts and outcomes that occur, for a legend
    total: Sequence[Entry] = field(default_factory=list)  # the last row of a summary

    @property
    def title(self) -> str:
        """Name and source."""
        return f"{self.name}: {self.source}" if self.source else self.name


def of_table(filled: FilledTable, intervals: bool = False) -> Layout:
    """A row per network: its marks, then per column the published number, ours, the difference.

    What no row has is left out: published numbers of a user's table, differences without runs.
    `intervals` adds the confidence interval of every mean.
    """
    table, cells = filled
    columns = [(Header("row", "label"), [Entry(label) for label in table.rows])]
    for mark, texts in table.marks.items():
        columns.append((Header(mark, "mark"), [Entry(text) for text in texts]))
    for key in table.columns:
        columns += _columns([cell for cell in cells if cell.column == key], intervals)
    entries = [entry for header, some in columns for entry in some]
    present = {entry.word for entry in entries}
    return Layout(
        name=table.name,
        source=captions.source(filled),
        headers=[header for header, _ in columns],
        rows=list(zip(*(some for _, some in columns), strict=True)),
        remarks=captions.remarks(filled),
        words=[word for word in dict.fromkeys((*VERDICTS, *OUTCOMES)) if word in present],
    )


def long(wide: Layout) -> Layout:
    """The same table with a line per cell, for narrow screens and for many columns."""
    parts = [p for p in PARTS if any(header.part == p for header in wide.headers)]
    differences = [header.text for header in wide.headers if header.part == "difference"]
    texts = [differences[0] if part == "difference" else part for part in parts]
    headers = [Header("row", "label"), Header("column", "text")]
    rows: list[list[Entry]] = []
    for row in wide.rows:
        lines: dict[str, dict[str, Entry]] = {}
        for header, entry in zip(wide.headers, row, strict=True):
            if header.part in PARTS:
                lines.setdefault(header.group, {})[header.part] = entry
            elif header.part == "mark" and entry.text == CHECK:
                lines[header.text] = {parts[0]: entry}
        for number, (name, line) in enumerate(lines.items()):
            label = row[0] if number == 0 else Entry()
            rows.append([label, Entry(name), *(line.get(part, Entry()) for part in parts)])
    headers += [Header(text, part) for text, part in zip(texts, parts, strict=True)]
    return Layout(wide.name, wide.source, headers, rows, wide.remarks, wide.words)


def of_summary(summaries: Sequence[Summary]) -> Layout:
    """Cells by verdict, a row per table, and their sum; verdicts that no cell has are left out."""
    words = [word for word in VERDICTS if any(one.verdicts[word] for one in summaries)]
    numbers = [[one.cells, *(one.verdicts[word] for word in words)] for one in summaries]
    sums = [sum(column) for column in zip(*numbers, strict=True)]
    return Layout(
        name="published tables",
        source="",
        headers=[Header("table", "label"), Header("cells"), *map(Header, words)],
        rows=[[Entry(s.table), *_counts(n)] for s, n in zip(summaries, numbers, strict=True)],
        words=words,
        total=[Entry("all"), *_counts(sums)],
    )


def _counts(numbers: Iterable[int]) -> list[Entry]:
    return [Entry(str(number) if number else "·", value=number) for number in numbers]


def _columns(cells: Sequence[Cell], intervals: bool) -> list[tuple[Header, list[Entry]]]:
    """The columns of entries of one column of the table."""
    unit = UNITS.get(cells[0].kind)
    name = f"{cells[0].column} ({unit})" if unit else cells[0].column
    found = []
    is_published = any(cell.published is not None for cell in cells)
    if is_published:
        found.append((Header(name, "published", name), [published(cell) for cell in cells]))
    text = "measured" if is_published else name
    found.append((Header(text, "measured", name), [measured(cell, intervals) for cell in cells]))
    if baselines := [cell.baseline for cell in cells if cell.comparison]:
        header = Header(f"vs {baselines[0]}", "difference", name)
        found.append((header, [difference(cell) for cell in cells]))
    return found


def published(cell: Cell) -> Entry:
    """The number as printed, with its unit: `63.4 M`."""
    if cell.published is None:
        return Entry("-")
    mantissa, _, exponent = cell.published.partition("e")
    unit = _unit(int(exponent or 0))
    return Entry(f"{mantissa} {unit}".rstrip(), value=float(cell.published), unit=unit)


def measured(cell: Cell, intervals: bool = False) -> Entry:
    """What was counted, two digits finer than what is printed, or measured; and the verdict."""
    word = "" if cell.verdict == "measured" else cell.verdict
    if cell.measured is None:
        return Entry(word=word)
    if cell.kind in COMPLEXITY:
        mantissa, _, exponent = (cell.published or "0.0e6").partition("e")
        decimals, power = len(mantissa.partition(".")[2]) + 2, int(exponent or 0)
        unit = _unit(power)
        text = f"{cell.measured / 10**power:.{decimals}f} {unit}".rstrip()
        aside = f"{cell.ratio:.3f}" if cell.verdict == "close" and cell.ratio is not None else ""
        return Entry(text, word, aside, cell.measured, unit)
    sample = cell.sample
    if sample is None:
        return Entry(f"{cell.measured:.2f}", word, value=cell.measured)
    text = f"{sample} ({sample.n})"
    if intervals and sample.confidence is not None:
        low, high = sample.mean - sample.confidence, sample.mean + sample.confidence
        text += f" [{low:.2f}, {high:.2f}]"
    tested = cell.verdict in ("reproduced", "differs") and sample.prediction is not None
    return Entry(text, word, f"±{sample.prediction:.2f}" if tested else "", sample.mean)


def difference(cell: Cell) -> Entry:
    """The difference to the baseline row in percent points: `+0.42 better (p 0.031)`."""
    found = cell.comparison
    if found is None:
        return Entry()
    p = found.holm
    aside = "" if p is None else "p < 0.001" if p < 0.001 else f"p {p:.3f}"
    return Entry(f"{found.difference:+.2f}", found.word, aside, found.difference, separator=" ")


def _unit(power: int) -> str:
    return SCALES.get(power, f"e{power}")
