"""Records of latency in tables: which one fills a cell, and a table of the records alone."""

from collections.abc import Mapping, Sequence

from ..runs.latencies import Latency, network_key
from ..runs.runconfig import Overrides, RunConfig
from . import captions
from .layout import Entry, Header, Layout, latency
from .table import Table


def requests(tables: Sequence[Table]) -> list[Overrides]:
    """The networks of the tables' latency cells, as overrides, each once."""
    figures = (figure for table in tables for figure in table.figures)
    return list(dict.fromkeys(f.model for f in figures if f.kind == "latency_ms"))


def of_cells(
    tables: Sequence[Table], configs: Mapping[Overrides, RunConfig], found: Sequence[Latency]
) -> dict[tuple[str, str, str], Latency]:
    """The newest record of each latency cell, by table, row and column.

    A column has the records of one device, the one that it names or that of its newest record.
    Imported records are in columns alone that name their device. `found`: the newest first.
    """
    chosen = {}
    for table in tables:
        for key, column in table.columns.items():
            fitting = {
                figure.row: [
                    one
                    for one in found
                    if one.setting == column.setting
                    and one.key == network_key(config.model.spec, *sizes)
                    and (one.device == column.device or not (column.device or one.is_imported))
                ]
                for figure in table.figures
                if figure.column == key and column.kind == "latency_ms"
                if (config := configs.get(figure.model)) is not None
                for sizes in [(figure.num_classes, figure.image_size)]
            }
            # an imported result is never beside a measured one, even of a device of the same name
            sources = [(one.device, one.is_imported) for ones in fitting.values() for one in ones]
            by_age = [(one.device, one.is_imported) for one in found]
            source = min(sources, key=by_age.index, default=None)
            for row, ones in fitting.items():
                same = (one for one in ones if (one.device, one.is_imported) == source)
                if (one := next(same, None)) is not None:
                    chosen[table.name, row, key] = one
    return chosen


def layout(found: Sequence[Latency], differences: Sequence[str] = ()) -> Layout:
    """A row per record; `differences`: to the first network, as text, where they are known.

    The device stands above the latencies; records of several devices have it in their rows.
    """
    devices = list(dict.fromkeys(_device(one) for one in found))
    columns = {"network": [Entry(one.name) for one in found]}
    if len(devices) > 1:
        columns["device"] = [Entry(_device(one)) for one in found]
    where = f" ({devices[0]})" if len(devices) == 1 else ""
    columns |= {
        "runtime": [Entry(one.runtime + " deploy form" * one.deploy) for one in found],
        "px": _numbers([one.image_size for one in found]),
        "batch": _numbers([one.batch_size for one in found]),
        "threads": _numbers([one.threads for one in found]),
        f"latency_ms{where}": [latency(one) for one in found],
        "p95_ms": _numbers([one.p95_ms for one in found], 3),
        "images/s": _numbers([one.images_per_s for one in found], 1),
        "load_s": _numbers([one.load_s for one in found], 2),
        "peak_MiB": _numbers([one.peak_bytes and one.peak_bytes / 2**20 for one in found]),
        "MACs_M": _numbers([one.macs and one.macs / 1e6 for one in found], 2),
    }
    if any(differences):
        columns["difference"] = [Entry(text) for text in differences]
    kinds = {"network": "label", **dict.fromkeys(("device", "runtime", "difference"), "text")}
    return Layout(
        name="latency",
        source="median time of a call",
        headers=[Header(name, kinds.get(name, "number")) for name in columns],
        rows=list(zip(*columns.values(), strict=True)),
        remarks=captions.of_latencies(found),
    )


def _device(one: Latency) -> str:
    return one.device + ", imported" * one.is_imported


def _numbers(values: Sequence[float | None], digits: int = 0) -> list[Entry]:
    return [Entry("-") if v is None else Entry(f"{v:.{digits}f}", value=v) for v in values]
