"""The report's pictures, as data for its page. A picture that lacks its data is left out.

Each yields its pictures one by one: what is not asked for is not drawn. matplotlib, which takes a
second to import, is imported at the first one.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from ..runs.records import Record
from ..tables.cells import Cell
from ..tables.published import Table
from .runview import DAMAGE, Picture


def costs(table: Table, cells: Sequence[Cell]) -> Iterator[Picture]:
    """Bars of parameters and MACs, where a table has both."""
    from . import plots

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
    yield from _drawn(title, name, lambda: plots.costs(networks, _counted(table)))


def planes(table: Table, cells: Sequence[Cell]) -> Iterator[Picture]:
    """Top-1 accuracy over MACs, published and measured, a picture a data set with runs."""
    from . import plots

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
        words = {"accuracy": f"top-1 on {column.data}", "counted": _counted(table)}
        name = f"{table.name} {column.data} top1 over macs"
        yield from _drawn(title, name, lambda p=points, w=words: plots.accuracy_over_macs(*p, **w))


def curves(title: str, runs: Iterable[Record]) -> Iterator[Picture]:
    """Loss and accuracy per epoch by network, a pair of pictures a data set."""
    from . import plots

    by_data: dict[str, list[Record]] = {}
    for record in runs:
        by_data.setdefault(record.result.data, []).append(record)
    for data, found in by_data.items():
        for quantity, words in (("loss", "loss"), ("top1", "top-1 accuracy")):
            yield from _drawn(
                f"{title}: {words} per epoch on {data}",
                f"{title} {data} {quantity} per epoch",
                lambda found=found, q=quantity: plots.curves(plots.by_network(found), q),
            )


def of_run(record: Record) -> Iterator[Picture]:
    """The run's confusion matrices, and what its deformable layer looks at."""
    from . import maps

    run = f"{record.result.data} {record.result.model} {record.run.path.name}"
    matrices = "confusion matrices, final weights"
    yield from _drawn(matrices, f"{run} confusion", lambda: maps.confusion(record))
    if (record.run.path / "offsets.npz").is_file():
        points = "learned sampling points on test images"
        yield from _drawn(points, f"{run} offsets", lambda: maps.offsets(record))


def _accuracies(cell: Cell, values: Iterable[float]) -> tuple[float, ...]:
    return tuple(100 - v if cell.kind == "top1_error" else v for v in values)


def _counted(table: Table) -> str:
    ways = {f"{f.rule}, {f.image_size} px" for f in table.figures if f.kind == "macs"}
    return ways.pop() if len(ways) == 1 else "as the table counts them"


def _drawn(title: str, name: str, draw: Callable[[], Any]) -> Iterator[Picture]:
    from .canvas import data_uri

    try:
        figure = draw()
        yield Picture(title, name, figure, data_uri(figure))
    except DAMAGE:  # NoPicture among them: it lacks its data
        return
