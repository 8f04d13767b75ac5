"""The report's pictures, as data for its page; a picture whose data are missing is left out.

Each function yields pictures one by one, so that those not asked for are not drawn. Imports
matplotlib, which takes a second: callers import this module when they draw.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from matplotlib.figure import Figure

from ..errors import LwbenchError
from ..runs.records import Record
from ..tables.cells import Cell, FilledTable
from . import maps, plots
from .canvas import data_uri
from .runview import Picture

QUANTITIES: dict[plots.Quantity, str] = {"loss": "loss", "top1": "top-1 accuracy"}


def of_table(filled: FilledTable, runs: Sequence[Record]) -> Iterator[Picture]:
    """Loss and accuracy per epoch, accuracy over MACs per data set, parameters and MACs."""
    name = filled.table.name
    for data in dict.fromkeys(record.result.data for record in runs):
        networks = plots.by_network([record for record in runs if record.result.data == data])
        for quantity, words in QUANTITIES.items():
            title, draw = f"{words} per epoch on {data}", partial(plots.curves, networks, quantity)
            yield from _drawn(f"{name}: {title}", f"{name} {data} {quantity} per epoch", draw)
    by_kind = {
        kind: {c.row: c.measured for c in filled.cells if c.kind == kind and c.measured}
        for kind in ("params", "macs")
    }
    params, macs = by_kind["params"], by_kind["macs"]
    for key, column in filled.table.columns.items():
        cells = [c for c in filled.cells if c.column == key and c.row in macs]
        if column.kind in ("top1", "top1_error") and any(cell.runs for cell in cells):
            data = f"{column.data}"
            draw = partial(_accuracy_over_macs, cells, macs, data, _counted(filled.cells))
            title = f"{name}: top-1 accuracy on {data} over MACs"
            yield from _drawn(title, f"{name} {data} top1 over macs", draw)
    costs = {row: plots.Cost(params[row], macs[row]) for row in params if row in macs}
    draw = partial(plots.costs, costs, _counted(filled.cells))
    yield from _drawn(f"{name}: parameters and MACs, counted here", f"{name} params and macs", draw)


def of_run(record: Record) -> Iterator[Picture]:
    """The run's confusion matrices, and the sampling points of its deformable layer."""
    run = f"{record.result.data} {record.result.model} {record.run.path.name}"
    draw = partial(maps.confusion, record)
    yield from _drawn("confusion matrices, final weights", f"{run} confusion", draw)
    if (record.run.path / "offsets.npz").is_file():
        draw = partial(maps.offsets, record)
        yield from _drawn("learned sampling points on test images", f"{run} offsets", draw)


def _accuracy_over_macs(
    cells: Sequence[Cell], macs: dict[str, float], data: str, counted: str
) -> Figure:
    def point(cell: Cell, values: Iterable[float]) -> plots.Point:
        accuracies = (100 - v if cell.kind == "top1_error" else v for v in values)
        return plots.Point(cell.row, macs[cell.row], tuple(accuracies))

    printed = [point(c, [float(c.published)]) for c in cells if c.published is not None]
    found = [point(c, c.sample.values.values()) for c in cells if c.sample]
    return plots.accuracy_over_macs(printed, found, accuracy=f"top-1 on {data}", counted=counted)


def _counted(cells: Sequence[Cell]) -> str:
    """The rule and input size of the MACs, where all cells share them."""
    macs = [(cell.rule, cell.request) for cell in cells if cell.kind == "macs"]
    ways = {f"{rule}, {request.image_size} px" for rule, request in macs if request}
    return ways.pop() if len(ways) == 1 else "as the table counts them"


def _drawn(title: str, name: str, draw: Callable[[], Figure]) -> Iterator[Picture]:
    try:
        figure = draw()
        yield Picture(title, name, figure, data_uri(figure))
    except (LwbenchError, OSError, ValueError, TypeError):
        return  # NoPicture, or a file that is damaged in a way that its reader did not foresee
