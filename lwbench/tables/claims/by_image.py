"""Compare two networks image by image: both saw the same test images, and err alike on many.

A run keeps one bit per test image (`predictions.npz`, in canonical order): whether it was right.
Within a seed, McNemar's exact test compares the images on which one of both is right. Over seeds,
the differences and their errors from images are combined with a deviation between seeds
(DerSimonian and Laird, Controlled Clinical Trials 1986). The seed-wise test remains the one that
decides: images say how sure one pair of runs is, seeds how much another pair would differ.
"""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

from ...runs.records import Record
from ..cells import Cell, FilledTable
from ..layout import Entry, Header, Layout

if TYPE_CHECKING:
    import numpy as np

NORMAL = 1.959964  # the 97.5 % quantile
LARGEST = 10**8  # test images; more are a damaged file


@dataclass(frozen=True)
class Pair:
    """Two runs of one seed on the same `images`: on how many only one of them is right."""

    seed: int
    only_left: int
    only_right: int
    images: int

    @property
    def difference(self) -> float:
        """Left minus right, in points."""
        return 100 * (self.only_left - self.only_right) / self.images

    @property
    def variance(self) -> float:
        """Of the difference over test images, in squared points."""
        either = (self.only_left + self.only_right) / self.images
        mean = (self.only_left - self.only_right) / self.images
        return 100**2 * (either - mean * mean) / self.images

    @property
    def p(self) -> float:
        """McNemar's exact two-sided p."""
        from scipy.stats import binomtest

        either = self.only_left + self.only_right
        return float(binomtest(self.only_left, either, 0.5).pvalue) if either else 1.0


@dataclass(frozen=True)
class Mixed:
    """The estimate over seeds, in points: its 95 % interval, and the deviation between seeds."""

    difference: float
    interval: tuple[float, float]
    between: float
    pairs: Sequence[Pair]


def correct(record: Record) -> "np.ndarray | None":
    """Whether each test image was taken for its class, (N,) bool; None where it is not recorded."""
    import numpy as np

    try:
        with np.load(record.run.path / "predictions.npz", allow_pickle=False) as file:
            bits, count = file["correct"], int(file["count"])
        if bits.dtype != np.uint8 or bits.ndim != 1 or not 0 < count <= LARGEST:
            return None
        found: np.ndarray = np.unpackbits(bits, count=count).astype(bool)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    # damaged or of another run: it must be the accuracy that the result states
    is_same = abs(100 * found.mean() - record.result.final.test_top1) < 0.02
    return found if len(found) == count and is_same else None


def compared(left: Sequence[Record], right: Sequence[Record]) -> list[Pair]:
    """The pairs of runs of one seed whose predictions are recorded."""
    import numpy as np

    others = {record.result.seed: correct(record) for record in right}
    pairs = []
    for record in left:
        one, two = correct(record), others.get(record.result.seed)
        if one is None or two is None or len(one) != len(two):
            continue
        only_left, only_right = np.sum(one & ~two), np.sum(two & ~one)
        pairs.append(Pair(record.result.seed, int(only_left), int(only_right), len(one)))
    return pairs


def mixed(pairs: Sequence[Pair]) -> Mixed | None:
    """The random-effects estimate over seeds; None without pairs."""
    if not pairs:
        return None
    # a pair that errs alike on every image has no variance of its own: half an image stands for it
    variances = [max(p.variance, (50 / p.images) ** 2) for p in pairs]
    weights = [1 / v for v in variances]
    mean = sum(w * p.difference for w, p in zip(weights, pairs, strict=True)) / sum(weights)
    q = sum(w * (p.difference - mean) ** 2 for w, p in zip(weights, pairs, strict=True))
    scale = sum(weights) - sum(w * w for w in weights) / sum(weights)
    between = max(0.0, (q - (len(pairs) - 1)) / scale) if scale > 0 else 0.0
    weights = [1 / (v + between) for v in variances]
    estimate = sum(w * p.difference for w, p in zip(weights, pairs, strict=True)) / sum(weights)
    half = NORMAL / sqrt(sum(weights))
    return Mixed(estimate, (estimate - half, estimate + half), sqrt(between), pairs)


def of_table(filled: FilledTable) -> Layout:
    """A row per comparison of top-1 with the baseline whose predictions are recorded."""
    bases = {cell.column: cell for cell in filled.cells if cell.row == filled.table.baseline}
    rows = []
    for cell in filled.cells:
        base = bases.get(cell.column)
        if base is None or cell is base or not _is_shown(cell, base):
            continue
        if (found := mixed(compared(cell.runs, base.runs))) is None:
            continue
        low, high = found.interval
        texts = (
            f"{found.difference:+.2f}",
            f"[{low:+.2f}, {high:+.2f}]",
            f"{found.between:.2f}",
            ", ".join(f"{pair.p:.3g}" if pair.p else "below 1e-300" for pair in found.pairs),
        )
        rows.append([Entry(cell.row), Entry(cell.column), *map(Entry, texts)])
    names = ("row", "column", f"vs {filled.table.baseline}", "95 % interval", "between seeds")
    headers = [Header(name, "text") for name in (*names, "McNemar's p within each seed")]
    remark = (
        "Both networks of a seed are compared on the same test images, in points; the interval is "
        "over images and seeds. The seed-wise test above decides."
        if rows
        else "No pair of runs has predictions by image: runs of earlier versions have none."
    )
    shown = rows or [[Entry("-") for _ in headers]]
    return Layout(f"{filled.table.name}: image by image", "", headers, shown, (remark,))


def _is_shown(cell: Cell, base: Cell) -> bool:
    # the bits are of the last epoch and of top-1 alone
    return cell.kind == "top1" and cell.select == "final" and cell.is_comparable(base)
