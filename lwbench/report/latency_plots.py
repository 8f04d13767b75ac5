"""Pictures of latency: over MACs, and accuracy over it, with intervals of both."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from ..runs.latencies import Latency
from .canvas import COLOURS, MARKERS, NoPicture, place_labels, plain, styled
from .plots import pareto

LABELLED = 30  # most points that are all labelled, so that labels do not cover each other
STRIKING = 16  # of more points, so many


class Point(NamedTuple):
    """A network's latency, and its accuracy in percent for each seed."""

    latency: Latency
    accuracy: tuple[float, ...]


@styled()
def over_macs(found: Sequence[Latency]) -> Figure:
    """Median latency with its interval over plain MACs, both logarithmic; a colour per setting.

    Raises NoPicture where no record has MACs.
    """
    groups: dict[str, list[Latency]] = {}
    for one in found:
        if one.macs:
            groups.setdefault(one.place, []).append(one)
    if not groups:
        raise NoPicture("no record of latency has MACs")
    figure = Figure(figsize=(9, 6.2), layout="constrained")
    ax = figure.subplots()
    for index, (place, ones) in enumerate(groups.items()):
        _errorbars(ax, ones, [float(one.macs or 0) for one in ones], index, place, is_across=False)
    sizes = " and ".join(dict.fromkeys(f"{one.image_size} px" for one in found))
    ax.set(xscale="log", yscale="log", xlabel=f"MACs (plain, {sizes})", ylabel="latency (ms)")
    ax.xaxis.set_major_formatter(EngFormatter())
    ax.yaxis.set_major_formatter("{x:g}")
    _legend(figure)
    first = _striking(next(iter(groups.values())))
    place_labels(ax, [(float(one.macs or 0), one.p50_ms, plain(one.name)) for one in first])
    return figure


@styled()
def accuracy_over_latency(points: Mapping[str, Sequence[Point]], accuracy: str) -> Figure:
    """Accuracy over latency: interval of the median, standard deviation over seeds; a Pareto front.

    `points`: by place, the device with its setting; `accuracy`: its name. Raises NoPicture without
    points.
    """
    if not any(points.values()):
        raise NoPicture("no network has both a latency and an accuracy")
    figure = Figure(figsize=(8, 5.4), layout="constrained")
    ax = figure.subplots()
    labels = []
    for index, (place, ones) in enumerate(points.items()):
        means = [float(np.mean(one.accuracy)) for one in ones]
        spread = [_deviation(one.accuracy) for one in ones]
        found = [one.latency for one in ones]
        _errorbars(ax, found, means, index, place, is_across=True, other=spread)
        times = [one.p50_ms for one in found]
        front = pareto(list(zip(times, means, strict=True)))
        ax.step(*zip(*front, strict=True), where="post", color=COLOURS[index % len(COLOURS)], lw=1)
        labels += [(one.p50_ms, y, plain(one.name)) for one, y in zip(found, means, strict=True)]
    ax.set(xlabel="latency (ms)", ylabel=f"{plain(accuracy)} (%)")
    ax.margins(0.12)
    _legend(figure)
    place_labels(ax, labels[:LABELLED])
    return figure


def _striking(found: Sequence[Latency]) -> Sequence[Latency]:
    """Those to label: all, or of many the ones whose MACs say least about their latency."""
    if len(found) <= LABELLED:
        return found
    macs, times = (np.log([getattr(one, key) for one in found]) for key in ("macs", "p50_ms"))
    apart = np.abs(times - np.polyval(np.polyfit(macs, times, 1), macs))
    return [found[index] for index in np.argsort(-apart)[:STRIKING]]


def _errorbars(
    ax: Axes,
    found: Sequence[Latency],
    others: Sequence[float],
    index: int,
    label: str,
    *,
    is_across: bool,
    other: Sequence[float] | None = None,
) -> None:
    """Points with the intervals of their latencies; `is_across`: latencies are on the x axis."""
    times = [one.p50_ms for one in found]
    ends = [one.interval_ms or (one.p50_ms, one.p50_ms) for one in found]
    errors = np.array([(t - low, high - t) for t, (low, high) in zip(times, ends, strict=True)]).T
    x, y, xerr, yerr = (
        (times, others, errors, other) if is_across else (others, times, other, errors)
    )
    ax.errorbar(
        x, y, xerr=xerr, yerr=yerr, label=plain(label, 80), linestyle="none", capsize=2,
        marker=MARKERS[index % len(MARKERS)], color=COLOURS[index % len(COLOURS)], markersize=5,
    )  # fmt: skip


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _legend(figure: Figure) -> None:
    figure.legend(loc="outside lower center", ncols=1)
