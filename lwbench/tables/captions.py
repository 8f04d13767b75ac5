"""Captions: how a table's numbers were counted and measured, and what its words mean."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

from ..errors import UsageError
from ..runs.records import Record
from .cells import VERDICTS, Cell, FilledTable
from .recipe import ours
from .statistics import ALPHA
from .studies import hardware, is_complete, revisions
from .table import ACCURACY, Table

EPOCHS = {"final": "last epoch", "best": "best epoch, chosen on the test images, which flatters"}
MOST_SEEDS = 10  # that a caption lists


def source(filled: FilledTable) -> str:
    """The table's source, and the overrides of a reduced study."""
    overrides = next((cell.overrides for cell in filled.cells if cell.overrides), ())
    study = f"; a reduced study: {' '.join(overrides)}" if overrides else ""
    return f"{filled.table.source}{study}"


def remarks(filled: FilledTable) -> list[str]:
    """The caption's sentences: how it was counted, measured and compared; notes."""
    table, cells = filled
    lines = []
    if any(cell.rule for cell in cells):
        lines.append(_counting(cells))
    if any(cell.kind in ACCURACY and cell.published for cell in cells):
        lines.append(_selection(table))
    if runs := _runs(cells):
        lines += [*_measuring(cells, runs), *_comparing(cells, table.baseline), *_parts(runs)]
        lines += [*_recipe(cells), _provenance(runs)]
    lines += table.notes
    return lines + [f"{cell.row}, {cell.column}: {cell.note}." for cell in cells if cell.note]


def legend(
    words: Iterable[str], signs: Mapping[str, str] | None = None, both: bool = False
) -> list[str]:
    """The meaning of verdicts and outcomes, as one remark; with the signs that stand for them.

    `both`: whether columns hold published numbers beside measured ones.
    """
    signs = signs or {}
    texts = ["published | measured here"] if both and signs else []
    for word in words:
        name = f"{signs[word]} {word}" if word in signs else word
        if word in VERDICTS:
            texts.append(f"{name}: {VERDICTS[word]}")
        elif word in signs:
            texts.append(name)
    return ["; ".join(texts) + "."] if texts else []


def _counting(cells: Sequence[Cell]) -> str:
    """The usual way of counting, and for which rows or cells another one holds."""
    ways = {(c.row, c.column): _way(c) for c in cells if c.request is not None}
    usual = max(dict.fromkeys(ways.values()), key=list(ways.values()).count)
    others: dict[str, dict[str, None]] = {}
    for (row, column), way in ways.items():
        if way != usual:
            whole_row = all(w == way for (r, _), w in ways.items() if r == row)
            differing = [part for part, same in zip(way, usual, strict=True) if part != same]
            cell = row if whole_row else f"{row} {column}"
            others.setdefault(", ".join(differing), {})[cell] = None
    exceptions = [f"{way} for {', '.join(where)}" for way, where in others.items()]
    return f"Counted under rule {'; '.join([', '.join(usual), *exceptions])}."


def _way(cell: Cell) -> tuple[str, str, str]:
    """Rule, number of classes and input size of a count."""
    assert cell.request is not None
    size = cell.request.image_size
    return f"{cell.rule}", f"{cell.request.num_classes} classes", f"{size} px"


def _selection(table: Table) -> str:
    if table.select == "unstated":
        return "The document does not say whether accuracies are of the best or the last epoch."
    which = {"best": "best (on the test images, which flatters)", "final": "last"}[table.select]
    return f"The document's accuracies are of the {which} epoch."


def _runs(cells: Sequence[Cell]) -> list[Record]:
    """The runs of all cells, each once."""
    return list({record.run.path: record for cell in cells for record in cell.runs}.values())


def _measuring(cells: Sequence[Cell], runs: Sequence[Record]) -> list[str]:
    select = next(cell.select for cell in cells if cell.select)
    seeds = sorted({record.result.seed for record in runs})
    listed = ", ".join(map(str, seeds[:MOST_SEEDS]))
    more = f" and {len(seeds) - MOST_SEEDS} more" if len(seeds) > MOST_SEEDS else ""
    lines = [
        f"Measured accuracies are of the {EPOCHS[select]}: mean ± standard deviation over seeds "
        f"{listed}{more} (number of runs)."
    ]
    wide = [f"{c.row} {c.column}" for c in cells if _is_wide(c)]
    if wide:
        where = ", ".join(wide) if len(wide) <= 3 else f"{len(wide)} cells"
        lines.append(f"{where}: an interval wider than one point shows little.")
    return lines


def _is_wide(cell: Cell) -> bool:
    if cell.sample is None or cell.verdict not in ("reproduced", "differs"):
        return False
    return 2 * (cell.sample.prediction or 0.0) > 1.0


def _comparing(cells: Sequence[Cell], baseline: str) -> list[str]:
    lines = []
    if compared := [cell for cell in cells if cell.comparison]:
        tests = {cell.comparison.test for cell in compared if cell.comparison}
        ways = {
            "paired": "paired t-test over the shared seeds",
            "welch": "Welch's t-test",
            "permutation": "exact permutation test where values have no spread",
        }
        used = "; ".join(text for test, text in ways.items() if test in tests)
        tested = f", two-sided: {used}; p corrected for the rows of a column (Holm), alpha {ALPHA}"
        to = f"Differences are to {compared[0].baseline}, in percent points"
        lines.append(f"{to}{tested if used else ''}.")
    precisions = {cell.column: cell.precision for cell in cells if cell.row == baseline}
    return lines + [
        f"{cell.row}, {cell.column}: run in {cell.precision}, so not compared with {baseline}."
        for cell in cells
        if cell.runs and cell.precision != (precisions.get(cell.column) or cell.precision)
    ]


def _parts(runs: Sequence[Record]) -> list[str]:
    """Which runs are of a part of a published data set, by data set."""
    sizes = {(r.result.data, r.data.train_size): None for r in runs if not is_complete(r)}
    return [f"Of {data} only a part was used: {size} training images." for data, size in sizes]


def _recipe(cells: Sequence[Cell]) -> list[str]:
    """The values of the recipe that the document does not state."""
    configs = []
    for cell in cells:
        if cell.published and cell.runs:
            first = cell.runs[0]
            with suppress(UsageError):  # a damaged configuration leaves the cell's result valid
                configs.append((first.result.data, cell.experiment, first.config))
    found = ours(configs)
    return [f"The document does not state these values, they are ours: {', '.join(found)}."] * bool(
        found
    )


def _provenance(runs: Sequence[Record]) -> str:
    precisions = ", ".join(dict.fromkeys(record.result.precision for record in runs))
    archived = sum(record.kept for record in runs)
    aside = f"; {archived} of {len(runs)} runs are archived" if archived else ""
    return (
        f"Run in {precisions} on {', '.join(hardware(runs))}, with lwbench at "
        f"{', '.join(revisions(runs))}{aside}."
    )
