"""Lay out tables: headers and rows of entries, which every format and the report page renders.

An entry keeps its number, its verdict and what the verdict rests on apart: Markdown writes all of
it out, a terminal uses a sign for the verdict, the page a badge.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ..runs.latencies import Latency
from . import captions
from .cells import BESIDE, VERDICTS, WORDS, Cell, FilledTable
from .table import ACCURACY, CHECK, COMPLEXITY

PARTS = ("published", "measured", "difference", "evaluated")  # of a column of the table
UNITS = {**dict.fromkeys(ACCURACY, "%"), "map": "%", "speed": "images/s"}
SCALES = {0: "", 3: "k", 6: "M", 9: "G"}


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
        words = self.separator.join(filter(None, [self.text, self.word]))
        return f"{words} ({self.aside})" if self.aside else words


@dataclass(frozen=True)
class Header:
    """What stands above a column of entries."""

    text: str
    part: str = "number"  # or label, mark, text; or one of PARTS
    group: str = ""  # the column of the table whose part it is


@dataclass(frozen=True)
class Layout:
    """A table ready to be rendered; every row has an entry per header."""

    name: str
    source: str
    headers: Sequence[Header]
    rows: Sequence[Sequence[Entry]]
    remarks: Sequence[str] = ()
    words: Sequence[str] = ()  # the verdicts and outcomes that occur, for a legend
    total: Sequence[Entry] = ()  # the last row of a summary

    @property
    def title(self) -> str:
        """Name and source."""
        return f"{self.name}: {self.source}" if self.source else self.name

    @property
    def notes(self) -> list[str]:
        """The legend in one sentence, and the remarks."""
        legend = "; ".join(captions.legend(self.words))
        return [*([f"{legend}."] if legend else []), *self.remarks]

    @property
    def texts(self) -> list[list[str]]:
        """The headers, the rows and their sum, written out."""
        rows = [*self.rows, self.total] if self.total else self.rows
        return [[header.text for header in self.headers], *([str(e) for e in row] for row in rows)]


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
    present = {entry.word for _, entries in columns for entry in entries}
    return Layout(
        name=table.name,
        source=captions.source(filled),
        headers=[header for header, _ in columns],
        rows=list(zip(*(entries for _, entries in columns), strict=True)),
        remarks=captions.remarks(filled),
        words=[word for word in WORDS if word in present],
    )


def long(wide: Layout) -> Layout:
    """The same table with a line per cell, for narrow screens and for many columns."""
    names = {header.part: header.text for header in wide.headers}
    parts = [part for part in PARTS if part in names]
    rows: list[list[Entry]] = []
    for row in wide.rows:
        lines: dict[str, dict[str, Entry]] = {}
        for header, entry in zip(wide.headers, row, strict=True):
            if header.part in PARTS:
                lines.setdefault(header.group, {})[header.part] = entry
            elif header.part == "mark" and entry.text == CHECK:
                lines[header.text] = {parts[0]: entry}
        labels = [row[0], *[Entry()] * len(lines)]
        for label, (name, line) in zip(labels, lines.items(), strict=False):
            rows.append([label, Entry(name), *(line.get(part, Entry()) for part in parts)])
    texts = [names[part] if part == "difference" else part for part in parts]
    headers = [Header("row", "label"), Header("column", "text")]
    return replace(wide, headers=[*headers, *map(Header, texts, parts)], rows=rows)


def of_summary(tables: Sequence[FilledTable]) -> Layout:
    """Cells by verdict and by origin, a row per table, and their sum; without empty columns."""
    found = [filled.summary() for filled in tables]
    words = [word for word in (*VERDICTS, *BESIDE) if any(one[word] for one in found)]
    sums = {word: sum(one[word] for one in found) for word in ("cells", *words)}
    rows = [
        [Entry(one["table"]), *_counts(one[word] for word in ("cells", *words))]
        for one in (*found, {"table": "all"} | sums)
    ]
    headers = [Header("table", "label"), *map(Header, ("cells", *words))]
    return Layout("published tables", "", headers, rows[:-1], words=words, total=rows[-1])


def _counts(numbers: Iterable[int]) -> list[Entry]:
    return [Entry(str(number) if number else "·", value=number) for number in numbers]


def _columns(cells: Sequence[Cell], intervals: bool) -> list[tuple[Header, list[Entry]]]:
    """The columns of entries that one column of the table takes."""
    places = [cell.latency.place for cell in cells if cell.latency]
    unit = next(iter(places), UNITS.get(cells[0].kind))
    name = f"{cells[0].column} ({unit})" if unit else cells[0].column
    found = []
    if is_published := any(cell.published is not None for cell in cells):
        found.append((Header(name, "published", name), [published(cell) for cell in cells]))
    header = Header("measured" if is_published else name, "measured", name)
    found.append((header, [measured(cell, intervals) for cell in cells]))
    if baselines := [cell.baseline for cell in cells if cell.comparison]:
        header = Header(f"vs {baselines[0]}", "difference", name)
        found.append((header, [difference(cell) for cell in cells]))
    if any(cell.evaluated for cell in cells):
        header = Header("evaluated", "evaluated", name)
        found.append((header, [evaluated(cell) for cell in cells]))
    return found


def published(cell: Cell) -> Entry:
    """The number as printed, with its unit, `63.4 M`, and whose it is if not the document's."""
    if cell.published is None:
        return Entry("-")
    digits, _, exponent = cell.published.partition("e")
    unit = _unit(int(exponent or 0))
    word = cell.origin.word if cell.origin and cell.origin.word != "own" else ""
    return Entry(f"{digits} {unit}".rstrip(), word, value=float(cell.published), unit=unit)


def measured(cell: Cell, intervals: bool = False) -> Entry:
    """What was counted, two digits finer than what is printed, or measured; and the verdict."""
    word = "" if cell.verdict == "measured" else cell.verdict
    if cell.latency is not None:
        return latency(cell.latency)
    if cell.measured is None:
        return Entry(word=word)
    if cell.kind in COMPLEXITY:
        digits, _, exponent = (cell.published or "0.0e6").partition("e")
        decimals, power = len(digits.partition(".")[2]) + 2, int(exponent or 0)
        text = f"{cell.measured / 10**power:.{decimals}f} {_unit(power)}".rstrip()
        aside = f"{cell.ratio:.3f}" if cell.verdict == "close" and cell.ratio is not None else ""
        return Entry(text, word, aside, cell.measured, _unit(power))
    assert cell.sample is not None
    sample, text = cell.sample, f"{cell.sample} ({cell.sample.n})"
    if intervals and sample.confidence is not None:
        low, high = sample.mean - sample.confidence, sample.mean + sample.confidence
        text += f" [{low:.2f}, {high:.2f}]"
    is_tested = cell.verdict in ("reproduced", "differs")
    return Entry(text, word, f"±{sample.prediction:.2f}" if is_tested else "", sample.mean)


def latency(one: Latency) -> Entry:
    """The median with its interval: `5.312 [5.290, 5.331]`, and whether the machine drifted."""
    low, high = one.interval_ms or (None, None)
    text = f"{one.p50_ms:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low and high else "")
    return Entry(text, aside="drifted" if one.has_drifted else "", value=one.p50_ms)


def difference(cell: Cell) -> Entry:
    """The difference to the baseline row in percent points: `+0.42 better (p 0.031)`."""
    found = cell.comparison
    if found is None:
        return Entry()
    aside = _p(found.holm)
    if found.fixed is not None and aside:
        aside = f"always valid {aside}; fixed n {_p(found.fixed)}"
    return Entry(f"{found.difference:+.2f}", found.word, aside, found.difference, separator=" ")


def evaluated(cell: Cell) -> Entry:
    """The newest figure of weights that were trained elsewhere; captions list all of them."""
    for one in cell.evaluated:
        value = one.value(cell.kind)
        return Entry(f"{value:.2f}", "evaluated", one.whose, value)
    return Entry()


def _p(p: float | None) -> str:
    return "" if p is None else "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def _unit(power: int) -> str:
    return SCALES.get(power, f"e{power}")
