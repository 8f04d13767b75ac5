"""The report's pictures, as data for its page; a picture whose data are missing is left out.

Each function yields pictures one by one, so that those not asked for are not drawn. matplotlib
takes a second to import and is imported when the first one is drawn.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ..runs.records import Record
from ..tables.cells import Cell, FilledTable
from .runview import DAMAGE, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from . import plots


def costs(filled: FilledTable) -> Iterator[Picture]:
    """Bars of parameters and MACs, where a table has both."""
    from . import plots

    table, cells = filled
    counts: dict[str, dict[str, float]] = {}
    for cell in cells:
        if cell.kind in ("params", "macs") and cell.measured is not None:
            counts.setdefault(cell.row, {})[cell.kind] = cell.measured
    networks = {
        row: plots.Cost(found["params"], found["macs"])
        for row, found in counts.items()
        if len(found) == 2
    }
    title = f"{table.name}: parameters and MACs, counted here"
    name = f"{table.name} params and macs"
    yield from _drawn(title, name, lambda: plots.costs(networks, _counted(cells)))


def planes(filled: FilledTable) -> Iterator[Picture]:
    """Top-1 accuracy over MACs, published and measured, a picture per data set with runs."""
    from . import plots

    table, cells = filled
    macs = {c.row: c.measured for c in cells if c.kind == "macs" and c.measured}
    for key, column in table.columns.items():
        if column.kind not in ("top1", "top1_error"):
            continue
        line = [c for c in cells if c.column == key and c.row in macs]
        printed = [(c, (float(c.published),)) for c in line if c.published is not None]
        found = [(c, tuple(c.sample.values.values())) for c in line if c.sample]
        if not found:
            continue
        points = [
            [plots.Point(c.row, macs[c.row], _accuracies(c, values)) for c, values in some]
            for some in (printed, found)
        ]
        title = f"{table.name}: top-1 accuracy on {column.data} over MACs"
        draw = partial(
            plots.accuracy_over_macs, *points,
            accuracy=f"top-1 on {column.data}", counted=_counted(cells),
        )  # fmt: skip
        yield from _drawn(title, f"{table.name} {column.data} top1 over macs", draw)


def curves(title: str, runs: Iterable[Record]) -> Iterator[Picture]:
    """Loss and accuracy per epoch by network, two pictures per data set."""
    quantities: dict[plots.Quantity, str] = {"loss": "loss", "top1": "top-1 accuracy"}
    by_data: dict[str, list[Record]] = {}
    for record in runs:
        by_data.setdefault(record.result.data, []).append(record)
    for data, found in by_data.items():
        for quantity, words in quantities.items():
            yield from _drawn(
                f"{title}: {words} per epoch on {data}",
                f"{title} {data} {quantity} per epoch",
                partial(_curves, found, quantity),
            )


def _curves(found: Sequence[Record], quantity: "plots.Quantity") -> "Figure":
    from . import plots

    return plots.curves(plots.by_network(found), quantity)


def of_run(record: Record) -> Iterator[Picture]:
    """The run's confusion matrices, and the sampling points of its deformable layer."""
    from . import maps

    run = f"{record.result.data} {record.result.model} {record.run.path.name}"
    matrices = "confusion matrices, final weights"
    yield from _drawn(matrices, f"{run} confusion", lambda: maps.confusion(record))
    if (record.run.path / "offsets.npz").is_file():
        points = "learned sampling points on test images"
        yield from _drawn(points, f"{run} offsets", lambda: maps.offsets(record))


def _accuracies(cell: Cell, values: Iterable[float]) -> tuple[float, ...]:
    return tuple(100 - v if cell.kind == "top1_error" else v for v in values)


def _counted(cells: Sequence[Cell]) -> str:
    """The rule and input size of the MACs, where all cells share them."""
    macs = [(cell.rule, cell.request) for cell in cells if cell.kind == "macs"]
    ways = {f"{rule}, {request.image_size} px" for rule, request in macs if request}
    return ways.pop() if len(ways) == 1 else "as the table counts them"


def _drawn(title: str, name: str, draw: Callable[[], "Figure"]) -> Iterator[Picture]:
    from .canvas import data_uri

    try:
        figure = draw()
        yield Picture(title, name, figure, data_uri(figure))
    except DAMAGE:  # includes NoPicture, which is raised where data are missing
        return
