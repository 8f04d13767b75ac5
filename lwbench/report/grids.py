"""What stands in the report's tables: published ones, reduced studies, other runs, the summary."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from ..runs.records import Record
from ..tables.cells import VERDICTS, Summary
from ..tables.cells import Cell as Filled
from ..tables.layout import UNITS, published
from ..tables.published import COMPLEXITY, Table
from ..tables.statistics import Comparison, Sample
from .page import Cell, Column, Grid, Row
from .runview import RunView

View = Callable[[Record], RunView]
SCALES = {0: "", 3: " k", 6: " M", 9: " G"}
NOTHING = Cell("-")


def of_table(
    table: Table,
    cells: Sequence[Filled],
    remarks: Sequence[str],
    runs: Mapping[str, Sequence[Record]],
    view: View,
) -> Grid:
    """A published table in its own shape; `runs` are the full ones, by row."""
    columns, groups = [Column("row", is_number=False, style="label")], []
    for key, column in table.columns.items():
        groups.append((_titled(key, column.kind), 2))
        columns += [
            Column("published", style="starts", says=f"{key}, published"),
            Column("measured", says=f"{key}, measured"),
        ]
    rows = [
        Row(
            label=line[0].row,
            cells=[part for cell in line for part in (_published(cell), _measured(cell))],
            notes=[f"{cell.column}: {cell.note}" for cell in line if cell.note],
            runs=_opened(line, runs.get(line[0].row, ()), view),
            commands=_commands(line),
        )
        for line in _lines(cells)
    ]
    return Grid(_id(table.name), table.name, table.source, columns, rows, groups, remarks)


def of_study(
    table: Table,
    cells: Sequence[Filled],
    remarks: Sequence[str],
    runs: Mapping[str, Sequence[Record]],
    view: View,
) -> Grid:
    """A reduced study: the rows and columns of its table that have runs."""
    keys = [key for key in table.columns if any(c.runs and c.column == key for c in cells)]
    columns, groups = [Column("row", is_number=False, style="label")], []
    for key in keys:
        groups.append((_titled(key, table.columns[key].kind), 4))
        columns += [
            Column("published", style="starts", says=f"{key}, published"),
            Column("measured", says=f"{key}, measured"),
            Column("runs", says=f"{key}, number of runs"),
            Column(f"against {table.baseline}", style="text", says=f"{key}, difference in points"),
        ]
    rows = []
    for line in _lines([cell for cell in cells if cell.column in keys]):
        if any(cell.runs for cell in line):
            parts = [part for cell in line for part in _compared(cell, table.baseline)]
            opened = _opened(line, runs.get(line[0].row, ()), view)
            rows.append(Row(line[0].row, parts, runs=opened, commands=_commands(line)))
    overrides = next(cell.overrides for cell in cells if cell.runs)
    title = f"{table.name} with {' '.join(overrides)}"
    caption = _study_caption(table, cells, overrides)
    return Grid(_id(title), title, caption, columns, rows, groups, remarks)


def of_others(found: Sequence[Record], select: str, view: View) -> Grid:
    """Runs of no table, those that differ in nothing but their seed in a row."""
    groups: dict[tuple[str, str, str, str], list[Record]] = {}
    for record in found:
        result = record.result
        key = (result.model, result.data, result.identity, result.precision)
        groups.setdefault(key, []).append(record)
    names = ("data", "identity", "precision")
    columns = [Column("model", is_number=False, style="label")]
    columns += [Column(name, is_number=False, style="text") for name in names]
    columns += [Column(name) for name in ("epochs", "runs", "top-1 (%)", "top-5 (%)")]
    rows = [
        Row(
            model,
            [
                *map(Cell, texts),
                *_counts([runs[0].result.epochs, len(runs)]),
                *(_spread(_sample(runs, kind, select)) for kind in ("top1", "top5")),
            ],
            runs=[view(run) for run in runs],
        )
        for (model, *texts), runs in groups.items()
    ]
    caption = f"Mean ± standard deviation over seeds, {select} epoch."
    return Grid("runs-of-no-table", "runs of no table", caption, columns, rows)


def of_summary(summaries: Sequence[Summary]) -> Grid:
    """Cells by verdict, a row a table, and their sum. Verdicts that no cell has are left out."""
    words = [word for word in VERDICTS if any(one.verdicts[word] for one in summaries)]
    columns = [Column("table", is_number=False, style="label"), Column("cells")]
    columns += [Column(word) for word in words]
    rows = [
        Row(one.table, _counts([one.cells, *map(one.verdicts.get, words)]), link=_id(one.table))
        for one in summaries
    ]
    sums = [sum(one.verdicts[word] for one in summaries) for word in words]
    total = Row("all", _counts([sum(sums), *sums]))
    return Grid("cells-by-verdict", "cells by verdict", "", columns, rows, total=total)


# --- cells --------------------------------------------------------------------------------------


def _lines(cells: Sequence[Filled]) -> list[list[Filled]]:
    """The cells row by row."""
    lines: dict[str, list[Filled]] = {}
    for cell in cells:
        lines.setdefault(cell.row, []).append(cell)
    return list(lines.values())


def _published(cell: Filled) -> Cell:
    return Cell(published(cell), None if cell.published is None else float(cell.published))


def _measured(cell: Filled) -> Cell:
    if cell.sample is not None:
        runs = f"n = {cell.sample.n}" if cell.verdict != "reduced" else ""
        return replace(_spread(cell.sample), verdict=cell.verdict, more=runs)
    if cell.measured is None:
        return Cell("", verdict=cell.verdict)
    ratio = f"ratio {cell.ratio:.3f}" if cell.verdict == "close" and cell.ratio else ""
    return Cell(_count(cell), cell.measured, cell.verdict, ratio)


def _count(cell: Filled) -> str:
    """In the unit of the printed number, two digits finer."""
    mantissa, _, exponent = (cell.published or "0.0e6").partition("e")
    decimals, power = len(mantissa.partition(".")[2]) + 2, int(exponent or 0)
    unit = SCALES.get(power, f"e{power}") if cell.kind in COMPLEXITY else ""
    return f"{cell.measured / 10**power:.{decimals}f}{unit}"


def _compared(cell: Filled, baseline: str) -> list[Cell]:
    n = NOTHING if cell.sample is None else Cell(str(cell.sample.n), cell.sample.n)
    return [_published(cell), _measured(cell), n, _difference(cell, baseline)]


def _difference(cell: Filled, baseline: str) -> Cell:
    if cell.row == baseline:
        return Cell("baseline", 0.0)
    one: Comparison | None = cell.comparison
    if one is None:
        return NOTHING
    p = "" if one.holm is None else f"p = {one.holm:.2g}"
    return Cell(f"{one.difference:+.2f}", one.difference, one.word, p)


def _sample(runs: Iterable[Record], kind: str, select: str) -> Sample:
    return Sample({run.result.seed: run.value(kind, select) for run in runs})


def _spread(sample: Sample) -> Cell:
    """`78.10 ± 0.31`, sorted by its mean."""
    text = f"{sample.mean:.2f}"
    return Cell(text if sample.sd is None else f"{text} ± {sample.sd:.2f}", sample.mean)


def _counts(numbers: Iterable[int]) -> list[Cell]:
    return [Cell(str(number) if number else "·", number) for number in numbers]


# --- around them --------------------------------------------------------------------------------


def _titled(key: str, kind: str) -> str:
    return f"{key} ({UNITS[kind]})" if kind in UNITS else key


def _opened(line: Sequence[Filled], runs: Iterable[Record], view: View) -> list[RunView]:
    """The row's runs; those of another precision or of a part of the images enter no cell."""
    entered = {record.run.path for cell in line for record in cell.runs}
    opened = []
    for record in runs:
        one = view(record)
        if record.run.path not in entered:
            one.problems.append("in no cell: another precision, other images, or an older run")
        opened.append(one)
    return opened


def _commands(line: Sequence[Filled]) -> list[tuple[str, str]]:
    """Commands of a row, each once, under the names of the columns that it fills."""
    columns: dict[str, list[str]] = {}
    for cell in line:
        if cell.command:
            columns.setdefault(cell.command, []).append(cell.column)
    return [(", ".join(keys), text) for text, keys in columns.items()]


def _study_caption(table: Table, cells: Sequence[Filled], overrides: Sequence[str]) -> str:
    select = next(cell.select for cell in cells if cell.runs)
    flatters = " (chosen on the test images, which flatters)" if select == "best" else ""
    seeds = sorted({seed for cell in cells if cell.sample for seed in cell.sample.seeds})
    more = f" and {len(seeds) - 10} others" if len(seeds) > 10 else ""
    return (
        f"{table.source}: a reduced study. Its runs differ from the table's full ones in "
        f"{', '.join(overrides)}; what is published is of the full recipe. Mean ± standard "
        f"deviation over seeds {', '.join(map(str, seeds[:10]))}{more}, {select} epoch{flatters}; "
        f"differences to {table.baseline} in percent points, p corrected for the number of rows."
    )


def _id(text: str) -> str:
    """For the address of a section: letters and digits, each other sign by its code."""
    return "".join(c if c.isascii() and c.isalnum() else f"-{ord(c):x}" for c in text)
