"""Tests of paired differences that stay valid when they are looked at after every seed.

With a largest number of seeds, fixed beforehand: the paired t-test with cubic alpha spending. Of
alpha, alpha (n / N)^3 may be spent by the look at n pairs (Lan and DeMets, Biometrika 1983; the
power family of Kim and DeMets, Biometrika 1987). The bounds are exact for normal differences
(Jennison and Turnbull, "Group sequential methods", 2000, chapter 11, treat the t-test): s, the
cosine between the differences and (1 ... 1), is a Markov chain whose distribution is carried along
a grid. Without a largest number: the t-test's e-process with a normal mixture over the effect size
(Lai, Annals of Statistics 1976; Wang and Ramdas, "Anytime-valid t-tests", 2023), p = 1 / max E.
numpy and scipy are imported where they are used.
"""

import statistics
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import sqrt
from typing import TYPE_CHECKING

from ..statistics import MIN_RUNS, NO_SPREAD

if TYPE_CHECKING:
    import numpy as np

FIRST = MIN_RUNS  # number of pairs at the first look
LARGEST = 200  # seeds of a design
EFFECT_VARIANCE = 1.0  # g: of the mixture over effect sizes, in standard deviations squared
_CELLS, _ANGLES = 400, 80  # four digits of the bounds; 1000 and 200 change the fourth
_PER_DECADE, _DECADES = 40, 6


def sequential_p(differences: Sequence[float], most: int) -> float:
    """The always-valid two-sided p-value of mean zero, of at most `most` pairs in seed order.

    The least alpha, on a grid of steps of 6 % and so rounded up, at which one of the looks so far
    would have ended the study; 1.0 below three pairs.
    """
    looks = list(_looks(differences[:most]))
    low, high = 0, _PER_DECADE * _DECADES  # exponents; at `high`, alpha is 1
    if not any(p <= bounds(1.0, most)[n - FIRST] for n, p in looks):
        return 1.0
    while low < high:  # a smaller alpha has smaller bounds at every look
        middle = (low + high) // 2
        limits = bounds(_alpha(middle), most)
        if any(p <= limits[n - FIRST] for n, p in looks):
            high = middle
        else:
            low = middle + 1
    return _alpha(high)


def e_process_p(differences: Sequence[float]) -> float:
    """The always-valid two-sided p-value of mean zero, of any number of pairs in seed order."""
    largest = 1.0
    for n in range(2, len(differences) + 1):
        square = _t(differences[:n]) ** 2
        wide = 1 + n * EFFECT_VARIANCE
        ratio = (1 + square / (n - 1)) / (1 + square / ((n - 1) * wide))
        largest = max(largest, wide**-0.5 * ratio ** (n / 2))
    return 1 / largest


@lru_cache(maxsize=512)
def bounds(alpha: float, most: int) -> tuple[float, ...]:
    """The two-sided p-value at which a look ends the study, for n = 3 ... `most` pairs."""
    import numpy as np
    from scipy.special import stdtr

    cells = (np.arange(_CELLS) + 0.5) / _CELLS  # of |s|
    mass = np.full(_CELLS, 1 / _CELLS)  # of three normal differences, s is uniform
    angles = (np.arange(_ANGLES) + 0.5) / _ANGLES * np.pi - np.pi / 2
    limits, spent = [], 0.0
    for n in range(FIRST, most + 1):
        share = alpha * (n / most) ** 3
        s = _cut(mass, share - spent)
        spent = share
        t = sqrt(n - 1) * s / sqrt(1 - s * s) if s < 1 else float("inf")
        limits.append(float(2 * stdtr(n - 1, -t)))
        # the next difference turns the vector by an angle of density cos^(n-1)
        weights = np.cos(angles) ** (n - 1)
        moved = np.abs(
            sqrt(n) * cells[:, None] * np.cos(angles) + np.sin(angles)
        ) / sqrt(n + 1)  # fmt: skip
        carried = (mass[:, None] * (weights / weights.sum())).ravel()
        mass = _binned(moved.ravel(), carried)
    return tuple(limits)


def _cut(mass: "np.ndarray", share: float) -> float:
    """Remove the upper `share` of the mass; return the value of s where it was cut."""
    for index in range(_CELLS - 1, -1, -1):
        if mass[index] >= share:
            left = share / mass[index] if mass[index] else 0.0
            mass[index] -= share
            return float((index + 1 - left) / _CELLS)
        share -= mass[index]
        mass[index] = 0.0
    return 0.0


def _binned(places: "np.ndarray", mass: "np.ndarray") -> "np.ndarray":
    """The mass at places in 0 ... 1, divided between the two nearest cells."""
    import numpy as np

    at = np.clip(places * _CELLS - 0.5, 0, _CELLS - 1)
    below = at.astype(int)
    above = np.minimum(below + 1, _CELLS - 1)
    upper = at - below
    found: np.ndarray = np.bincount(below, mass * (1 - upper), _CELLS)
    return found + np.bincount(above, mass * upper, _CELLS)


def _looks(differences: Sequence[float]) -> Iterator[tuple[int, float]]:
    """The number of pairs and the two-sided p-value of the t-test at every look."""
    from scipy.special import stdtr

    for n in range(FIRST, len(differences) + 1):
        yield n, float(2 * stdtr(n - 1, -abs(_t(differences[:n]))))


def _t(differences: Sequence[float]) -> float:
    """Student's t of mean zero; 0 for differences without spread, which show nothing alone."""
    deviation = statistics.stdev(differences)
    if deviation <= NO_SPREAD:
        return 0.0
    return statistics.fmean(differences) / deviation * sqrt(len(differences))


def _alpha(exponent: int) -> float:
    return float(10 ** (exponent / _PER_DECADE - _DECADES))
