"""Pictures that compare networks: curves, costs, accuracy over costs.

Each function returns a figure for `canvas.save` and `canvas.data_uri`. Missing data raise
NoPicture, whose message says why; callers leave that picture out.
"""

import logging
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from ..runs.records import Record, chosen, grouped
from ..tables.studies import images
from .canvas import COLOURS, DASHES, HATCHES, MARKERS, NoPicture, place_labels, plain, styled

log = logging.getLogger("lwbench")

Networks = Mapping[str, Sequence[Record]]
Quantity = Literal["loss", "top1"]

QUANTITIES = {"loss": "cross-entropy (nats)", "top1": "top-1 accuracy (%)"}


class Cost(NamedTuple):
    """The cost of a network: parameters, and multiply-accumulates per image."""

    params: float
    macs: float


@dataclass(frozen=True)
class Point:
    """A network in the plot: multiply-accumulates, and an accuracy in percent for each seed."""

    label: str
    macs: float
    accuracy: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.accuracy))


def by_network(found: Sequence[Record]) -> dict[str, list[Record]]:
    """Group runs that differ in nothing but their seed, under the name of their network.

    Where a network was trained in several ways, the name is followed by what differs: identity,
    precision, the digest of the images.
    """
    keys = operator.attrgetter("result.model", "result.identity", "result.precision")
    groups = grouped(found, lambda record: (*keys(record), images(record)[:8]))
    return {
        _name(key, groups): sorted(chosen(groups[key]), key=lambda record: record.result.seed)
        for key in sorted(groups)
    }


def _name(key: tuple[str, ...], keys: Iterable[tuple[str, ...]]) -> str:
    _, *ways = zip(*(other for other in keys if other[0] == key[0]), strict=True)
    parts = [part for part, way in zip(key[1:], ways, strict=True) if len(set(way)) > 1]
    return f"{key[0]} ({', '.join(parts)})" if parts else key[0]


# --- curves -------------------------------------------------------------------------------------


@styled()
def curves(networks: Networks, quantity: Quantity) -> Figure:
    """Loss or accuracy per epoch, train beside test: a line per network, a band over its seeds.

    `networks`: their runs, as `by_network` groups them. The line is the mean, the band reaches from
    the smallest to the largest value. A network without metrics is left out, with a warning; raises
    NoPicture where no network remains.
    """
    splits = ("train", "test")
    drawn = {
        name: {split: _over_seeds(runs, f"{split}_{quantity}") for split in splits}
        for name, runs in networks.items()
    }
    for name in [name for name, tables in drawn.items() if not all(map(len, tables.values()))]:
        log.warning("%s has no %s per epoch in its metrics.csv and is left out", name, quantity)
        del drawn[name]
    if not drawn:
        raise NoPicture(f"no run has {quantity} per epoch in its metrics.csv")
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, split in zip(axes, splits, strict=True):
        ax.set(title=split, xlabel="epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        for index, (name, tables) in enumerate(drawn.items()):
            _curve(ax, tables[split], index, f"{plain(name)} (n = {len(networks[name])})")
    axes[0].set_ylabel(QUANTITIES[quantity])
    _legend_below(figure, axes[0], "line: mean over n seeds; band: smallest to largest")
    return figure


def _over_seeds(runs: Sequence[Record], key: str) -> np.ndarray:
    """Rows of epoch, mean, smallest, largest; epochs without a finite value are left out."""
    values: dict[int, list[float]] = {}
    for row in (row for run in runs for row in run.metrics):
        if key in row and "epoch" in row:
            values.setdefault(int(row["epoch"]), []).append(row[key])
    return np.array([(e, sum(v) / len(v), min(v), max(v)) for e, v in sorted(values.items())])


def _curve(ax: Axes, table: np.ndarray, index: int, label: str) -> None:
    epoch, mean, low, high = table.T
    colour = COLOURS[index % len(COLOURS)]
    ax.fill_between(epoch, low, high, color=colour, alpha=0.2, linewidth=0)
    ax.plot(
        epoch,
        mean,
        color=colour,
        linestyle=DASHES[index % len(DASHES)],
        marker=MARKERS[index % len(MARKERS)],
        markevery=max(1, len(epoch) // 10),
        markersize=4,
        label=label,
    )


def _legend_below(figure: Figure, ax: Axes, title: str) -> None:
    handles, labels = ax.get_legend_handles_labels()
    columns = max(1, min(4, 110 // (max(map(len, labels)) + 6)))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, title=title, handlelength=4
    )


# --- costs --------------------------------------------------------------------------------------


@styled()
def costs(networks: Mapping[str, Cost], counted: str) -> Figure:
    """Bars of parameters and of MACs by network; `counted` names the rule and the input size.

    Raises NoPicture without networks.
    """
    if not networks:
        raise NoPicture("no network was counted")
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(networks)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    titles = {"params": "parameters", "macs": f"MACs ({plain(counted)})"}
    for index, (ax, key) in enumerate(zip(axes, titles, strict=True)):
        values = [getattr(cost, key) for cost in networks.values()]
        bars = ax.barh(
            range(len(values)), values, height=0.7,
            color=("#56B4E9", "#E69F00")[index], edgecolor="black", hatch=HATCHES[index],
        )  # fmt: skip
        ax.bar_label(bars, [EngFormatter(places=2)(value) for value in values], padding=3)
        ax.set(xlabel=titles[key], xlim=(0, 1.25 * max(values) or 1))
        ax.xaxis.set_major_formatter(EngFormatter())
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(networks)), [plain(name) for name in networks])
    axes[0].invert_yaxis()
    return figure


# --- accuracy over cost -------------------------------------------------------------------------


_FRONT: dict[str, Any] = {"where": "post", "color": "#555555", "linewidth": 1, "zorder": 1}


@styled()
def accuracy_over_macs(
    published: Sequence[Point], measured: Sequence[Point], *, accuracy: str, counted: str
) -> Figure:
    """Accuracy over MACs: published points hollow, measured ones filled, a Pareto front for each.

    Measured: mean and standard deviation over seeds. `accuracy` names the accuracy ("top-1 on
    cifar100"), `counted` the rule and the input size of the MACs. A label has the same shape and
    colour in both. Raises NoPicture without points.
    """
    if not published and not measured:
        raise NoPicture("no network has both MACs and an accuracy")
    figure = Figure(figsize=(8, 5.4), layout="constrained")
    ax = figure.subplots()
    names = list(dict.fromkeys(point.label for point in (*published, *measured)))
    for points, filled in ((published, False), (measured, True)):
        for point in points:
            _point(ax, point, names.index(point.label), filled)
        if front := pareto([(point.macs, point.mean) for point in points]):
            ax.step(*zip(*front, strict=True), linestyle="-" if filled else ":", **_FRONT)
    macs = [point.macs for point in (*published, *measured)]
    if max(macs) > 4 * min(macs) > 0:  # over a smaller range a linear axis has more ticks
        ax.set_xscale("log", subs=[2, 5])
        ax.xaxis.set_minor_formatter(EngFormatter())
    ax.xaxis.set_major_formatter(EngFormatter())
    ax.set(xlabel=f"MACs ({plain(counted)})", ylabel=f"{plain(accuracy)} (%)")
    ax.margins(0.12)
    handles = _point_legend(bool(published), measured)
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    place_labels(ax, [(p.macs, p.mean, plain(p.label)) for p in (*published, *measured)])
    return figure


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, gain) pairs whose gain no other pair reaches at the same or a lower cost."""
    front: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or gain > front[-1][1]:
            front.append((cost, gain))
    return front


def _point(ax: Axes, point: Point, index: int, filled: bool) -> None:
    colour = COLOURS[index % len(COLOURS)]
    several = len(point.accuracy) > 1
    ax.errorbar(
        point.macs,
        point.mean,
        yerr=np.std(point.accuracy, ddof=1) if several else None,
        marker=MARKERS[index % len(MARKERS)],
        color=colour,
        markerfacecolor=colour if filled else "white",
        markersize=7,
        capsize=3,
        linestyle="none",
    )


def _point_legend(published: bool, measured: Sequence[Point]) -> list[Line2D]:
    dot: dict[str, Any] = {"marker": "o", "color": "#555555", "markersize": 7}
    seeds = sorted({len(point.accuracy) for point in measured})
    n = f"n = {seeds[0]}" if len(seeds) == 1 else f"n = {seeds[0]} to {seeds[-1]}" if seeds else ""
    hollow = Line2D([], [], linestyle=":", markerfacecolor="white", label="published", **dot)
    label = f"measured, {n} (mean, standard deviation)"
    filled = Line2D([], [], linestyle="-", label=label, **dot)
    return [hollow] * published + [filled] * bool(measured)
