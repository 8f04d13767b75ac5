"""The report's section on latency: every record, and accuracy over latency where runs have both."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from ..errors import LwbenchError, UsageError
from ..runs.latencies import Latency, network_key
from ..runs.records import Record, grouped
from ..tables.latencies import layout
from .page import Section
from .runview import Picture

Timed = tuple[Latency, Sequence[Record]]  # a record of latency, and runs of that very network


def sections(found: Sequence[Latency]) -> list[Section]:
    """A table per device; imported results have tables of their own."""
    made = []
    for (device, is_imported), ones in grouped_by_device(found).items():
        name = f"latency on {device}{', imported' * is_imported}"
        ordered = sorted(ones, key=lambda one: (one.image_size, *map(str, one.setting), one.p50_ms))
        made.append(Section(replace(layout(ordered), name=name)))
    return made


def grouped_by_device(found: Sequence[Latency]) -> dict[tuple[str, bool], list[Latency]]:
    """The records of each device, measured ones apart from imported ones."""
    groups: dict[tuple[str, bool], list[Latency]] = {}
    for one in found:
        groups.setdefault((one.device, one.is_imported), []).append(one)
    return groups


def pictures(found: Sequence[Latency], records: Sequence[Record], select: str) -> Iterator[Picture]:
    """Accuracy over latency, a picture per data set and device."""
    for data, runs in grouped(records, lambda record: record.result.data).items():
        by_network: dict[str, list[Record]] = {}
        for record in runs:
            with suppress(UsageError):  # a damaged configuration
                config, classes = record.config, record.data.classes or 0
                key = network_key(config.model.spec, classes, config.image_size)
                by_network.setdefault(key, []).append(record)
        for (device, _), ones in grouped_by_device(found).items():
            pairs = [(one, by_network[one.key]) for one in ones if one.key in by_network]
            if pairs:
                yield from _drawn(pairs, data, device, select)


def _drawn(pairs: Sequence[Timed], data: str, device: str, select: str) -> Iterator[Picture]:
    from . import canvas, latency_plots  # import matplotlib

    points: dict[str, list[latency_plots.Point]] = {}
    for one, runs in pairs:
        # runs that differ in more than their seed are points of their own
        for same in grouped(runs, lambda r: (r.result.identity, r.result.precision)).values():
            values = tuple(record.value("top1", select) for record in same)
            points.setdefault(one.place, []).append(latency_plots.Point(one, values))
    title = f"top-1 accuracy on {data} over latency on {device}"
    with suppress(LwbenchError, OSError, ValueError, TypeError):
        figure = latency_plots.accuracy_over_latency(points, f"top-1 on {data}")
        yield Picture(title, title, figure, canvas.data_uri(figure))
