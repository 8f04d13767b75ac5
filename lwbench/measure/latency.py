"""Latency as a statistic: timed calls, a reference kernel, intervals from resampled blocks.

Calls that follow each other are correlated, so that blocks of calls are the sampling unit.
"""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np

RESAMPLES = 20_000  # of the bootstrap


def timed(call: Callable[[], object], seconds: float, least: int = 2) -> list[float]:
    """Milliseconds of each call, repeated for so many seconds, at least `least` times."""
    found: list[float] = []
    end = perf_counter() + seconds
    while len(found) < least or perf_counter() < end:
        begin = perf_counter()
        call()
        found.append(1000 * (perf_counter() - begin))
    return found


def reference_ms(repetitions: int = 40) -> float:
    """Median time of a fixed computation on one core in its caches, which follows the clock."""
    values = np.linspace(0, 1, 1 << 16, dtype=np.float32)  # 256 KiB
    out = np.empty_like(values)
    return float(np.median(timed(lambda: np.exp(values, out=out), 0, repetitions)))


def median_interval(blocks: Sequence[float], alpha: float, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval of the median of blocks, at level 1 - alpha (percentile method)."""
    values = np.asarray(blocks)
    draws = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(np.median(values[draws], axis=1), [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def drift(references: Sequence[float]) -> float:
    """By how much the reference kernel varied: 5th to 95th percentile, as a share of the median."""
    low, middle, high = np.quantile(references, [0.05, 0.5, 0.95])
    return float((high - low) / middle)


class Difference(NamedTuple):
    """How much longer one network takes than another, as a share, with its interval."""

    share: float
    low: float
    high: float
    word: str  # slower, faster, no difference shown, or too few blocks

    def __str__(self) -> str:
        text = f"{100 * self.share:+.1f} % [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"
        return f"{text} {self.word}"


def difference(
    ours: Sequence[float], baseline: Sequence[float], alpha: float, seed: int = 0
) -> Difference:
    """Compare the block medians of two cases that took turns; blocks of one round are a pair.

    What changes slowly, such as the clock, affects both blocks of a pair and leaves their ratio.
    """
    logs = np.log(np.asarray(ours) / np.asarray(baseline))
    low, high = median_interval(list(logs), alpha, seed)
    word = "no difference shown" if low <= 0 <= high else "slower" if low > 0 else "faster"
    if 2.0 ** (1 - len(logs)) > alpha:  # not even the whole range would be such an interval
        word = "too few blocks"
    share, low, high = (float(np.expm1(x)) for x in (np.median(logs), low, high))
    return Difference(share, low, high, word)
