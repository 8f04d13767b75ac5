"""Print what `bench` found, with differences between networks, and draw the picture."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from ..logs import log
from ..runs.latencies import Latency
from ..tables.latencies import layout
from .table import terminal_width

if TYPE_CHECKING:
    from ..measure.latency import Difference
    from .bench import Options


def show(found: Sequence[Latency], options: "Options") -> None:
    """Print the records as a table, CSV or JSON, and write the picture if there is to be one."""
    from ..tables import formats

    if not found:
        return
    compared = differences(found, options.alpha)
    if options.format in ("csv", "json"):
        pairs = zip(found, compared, strict=True)
        print(formats.listed([_row(one, to) for one, to in pairs], options.format), end="")
    else:
        table = layout(found, [str(to or "") for to in compared])
        more = _remarks(found, compared, options.alpha)
        table = replace(table, remarks=[*table.remarks, *more])
        print(formats.written([table], options.format, terminal_width()), end="")
    if options.picture is not None:
        from ..report.latency_plots import over_macs

        try:
            options.picture.parent.mkdir(parents=True, exist_ok=True)
            over_macs(found).savefig(options.picture)
        except OSError as error:
            raise UsageError(f"picture={options.picture}: {error.strerror or error}") from error
        log.info("written: %s", options.picture)


def differences(found: Sequence[Latency], alpha: float) -> "list[Difference | None]":
    """Each record compared with the first network of its setting, if they took turns.

    The level holds for all comparisons together (Bonferroni).
    """
    from ..measure.latency import difference, relative, spread

    groups: dict[tuple[Any, ...], list[int]] = {}  # cases that took turns under one runtime
    for index, one in enumerate(found):
        if one.session is not None and len(one.processes_ms) > 1:
            groups.setdefault((one.session, one.runtime), []).append(index)
    firsts: dict[tuple[Any, ...], int] = {}
    pairs = []
    for index, one in enumerate(found):
        first = firsts.setdefault((one.setting, one.image_size, one.device), index)
        together = any({index, first} <= {*group} for group in groups.values())
        pairs.append((index, first) if together and index != first else None)
    count = sum(pair is not None for pair in pairs)
    compared: list[Difference | None] = [None] * len(found)
    for group in groups.values():
        values = dict(zip(group, relative([found[i].processes_ms for i in group]), strict=True))
        for pair in pairs:
            if pair is not None and pair[0] in group:
                pooled = spread(np.stack([*values.values()]))
                ours, baseline = (values[index] for index in pair)
                compared[pair[0]] = difference(ours, baseline, pooled, alpha / count)
    return compared


def _remarks(
    found: Sequence[Latency], compared: "Sequence[Difference | None]", alpha: float
) -> list[str]:
    lines = []
    if count := sum(one is not None for one in compared):
        level = f"{100 * (1 - alpha):g} %"
        lines.append(
            "Differences are to the first network in the same setting, judged by the spread "
            f"between processes; {count} intervals hold together at {level} (Bonferroni)."
        )
    if len({one.session for one in found}) > 1:
        lines.append(
            "Cases that were measured by different commands are not compared: force=true measures "
            "all of this command in turn."
        )
    return lines


def _row(one: Latency, to: "Difference | None") -> dict[str, Any]:
    """A record for programs, without its blocks."""
    low, high = one.interval_ms or (None, None)
    keys = ("name", "runtime", "image_size", "num_classes", "batch_size", "threads", "deploy")
    more = ("load_s", "peak_bytes", "params", "macs", "drift", "device", "governor", "measured")
    return {
        **{key: getattr(one, key) for key in keys},
        "p50_ms": one.p50_ms,
        "low_ms": low,
        "high_ms": high,
        "p95_ms": one.p95_ms,
        "images_per_s": one.images_per_s,
        **{key: getattr(one, key) for key in more},
        "has_drifted": one.has_drifted,
        "difference": to and to.share,
        "difference_low": to and to.low,
        "difference_high": to and to.high,
        "answer": to and to.word,
        "imported_from": one.imported_from,
    }
