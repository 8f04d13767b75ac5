"""What a table says below itself: how its numbers came about, and what its words mean."""

from collections.abc import Sequence
from contextlib import suppress

from ..errors import UsageError
from .cells import VERDICTS, Cell
from .layout import Filled
from .published import ACCURACY, COMPLEXITY, Table
from .recipe import ours
from .statistics import ALPHA
from .studies import hardware, is_whole, revisions


def title(filled: Filled) -> str:
    """The table's name and source, and the overrides of a reduced study."""
    table, cells = filled
    overrides = next((cell.overrides for cell in cells if cell.overrides), ())
    study = f"; a reduced study: {' '.join(overrides)}" if overrides else ""
    return f"{table.name}: {table.source}{study}"


def remarks(filled: Filled) -> list[str]:
    """The caption's sentences: how it was counted and run, what the words mean, notes."""
    table, cells = filled
    lines = []
    if any(cell.rule for cell in cells):
        lines.append(_counting(table))
    if any(cell.published for cell in cells):
        lines.insert(0, "Beside each published number stands what was measured here.")
        words = {cell.verdict for cell in cells}
        legend = [f"{word}: {VERDICTS[word]}" for word in VERDICTS if word in words]
        lines.append("; ".join(legend) + ".")
    if any(cell.kind in ACCURACY and cell.published for cell in cells):
        lines.append(_selection(table))
    if measured := [cell for cell in cells if cell.runs]:
        lines += [*_measuring(measured, table.baseline), *_recipe(filled), _making(measured)]
    lines += table.notes
    return lines + [f"{cell.row}, {cell.column}: {cell.note}." for cell in cells if cell.note]


def _counting(table: Table) -> str:
    counted = [figure for figure in table.figures if figure.kind in COMPLEXITY]
    ways = [(f.rule, f.num_classes, f.image_size) for f in counted]
    usual = max(dict.fromkeys(ways), key=ways.count)
    others: dict[tuple[str, int, int], list[str]] = {}
    for figure, way in zip(counted, ways, strict=True):
        if way != usual:
            others.setdefault(way, []).append(f"{figure.row} {figure.column}")
    odd = [f"{_way(*way)} for {', '.join(where)}" for way, where in others.items()]
    return "Counted under " + "; ".join([_way(*usual), *odd]) + "."


def _way(rule: str, num_classes: int, image_size: int) -> str:
    return f"{rule}, {num_classes} classes, {image_size} px"


def _selection(table: Table) -> str:
    if table.select == "unstated":
        return "The document does not say whether accuracies are of the best or the last epoch."
    which = {"best": "best (on the test images, which flatters)", "final": "last"}[table.select]
    return f"The document's accuracies are of the {which} epoch."


def _measuring(cells: Sequence[Cell], baseline: str) -> list[str]:
    """How the accuracies of these cells came about."""
    epoch = {"final": "last epoch", "best": "best epoch, chosen on the test images, which flatters"}
    lines = [
        f"Measured accuracies are of the {epoch[cells[0].select or 'final']}: mean ± standard "
        "deviation over seeds (number of runs)."
    ]
    wide = [c for c in cells if c.verdict in ("reproduced", "differs") and _is_wide(c)]
    if wide:
        lines.append(f"{_cells(wide)}: an interval wider than a point shows little.")
    if compared := [cell for cell in cells if cell.comparison]:
        lines.append(_comparing(compared))
    precisions = {cell.column: cell.precision for cell in cells if cell.row == baseline}
    lines += [
        f"{cell.row}, {cell.column}: run in {cell.precision}, so not compared with {baseline}."
        for cell in cells
        if cell.precision != precisions.get(cell.column, cell.precision)
    ]
    return [*lines, *_parts(cells)]


def _comparing(cells: Sequence[Cell]) -> str:
    tests = {cell.comparison.test for cell in cells if cell.comparison}
    ways = {
        "paired": "paired t-test over the shared seeds",
        "welch": "Welch's t-test",
        "permutation": "exact permutation test where nothing spreads",
    }
    used = "; ".join(text for test, text in ways.items() if test in tests)
    tested = f", two-sided: {used}; p corrected for the rows of a column (Holm), alpha {ALPHA}"
    return f"Differences are to {cells[0].baseline}, in percent points{tested if used else ''}."


def _is_wide(cell: Cell) -> bool:
    return 2 * (cell.sample.prediction or 0.0) > 1.0


def _parts(cells: Sequence[Cell]) -> list[str]:
    """Runs of a part of a published data set, by data set."""
    runs = [record for cell in cells for record in cell.runs if not is_whole(record)]
    sizes = {(r.result.data, r.data.train_size): None for r in runs}
    return [f"Of {data} only a part, {size} training images." for data, size in sizes]


def _recipe(filled: Filled) -> list[str]:
    """The values of the recipe that no document states, where one states others."""
    runs = []
    for figure, cell in zip(filled.table.figures, filled.cells, strict=True):
        if cell.published and cell.runs:
            options = dict(part.split("=", 1) for part in figure.train or ())
            first = cell.runs[0]
            with suppress(UsageError):  # a damaged configuration says nothing; its result stands
                runs.append((first.result.data, options.get("experiment"), first.config))
    found = ours(runs)
    return [f"Of the recipe these values are ours: {', '.join(found)}."] if found else []


def _making(cells: Sequence[Cell]) -> str:
    runs = [record for cell in cells for record in cell.runs]
    precisions = ", ".join({record.result.precision: None for record in runs})
    kept = len({record.run.path for record in runs if record.kept})
    aside = f"; {kept} of {len({record.run.path for record in runs})} are kept runs" if kept else ""
    return (
        f"Run in {precisions} on {', '.join(hardware(runs))}, with lwbench at "
        f"{', '.join(revisions(runs))}{aside}."
    )


def _cells(cells: Sequence[Cell]) -> str:
    names = [f"{cell.row} {cell.column}" for cell in cells]
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} cells"
