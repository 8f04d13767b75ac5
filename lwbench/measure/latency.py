"""Latency as a statistic: timed calls, a reference kernel, intervals from resampled blocks.

Calls that follow each other are correlated, so that blocks of calls are what is resampled. Blocks
of one process are correlated too: differences between networks are judged by their processes.
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
    word: str  # slower, faster, no difference shown

    def __str__(self) -> str:
        text = f"{100 * self.share:+.1f} % [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"
        return f"{text} {self.word}"


def relative(cases: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
    """Each process's latency relative to the other cases', as a logarithm: (cases, processes).

    `cases`: the blocks of each process of each case, which took turns: the same number for all. The
    mean of a round's blocks is taken from each, and with it the clock as it was then.
    """
    found = []
    for blocks in zip(*cases, strict=True):  # of one process of each case
        logs = np.log(np.asarray(blocks))
        found.append(np.median(logs - logs.mean(0), axis=1))
    return np.stack(found, axis=1)


def spread(values: np.ndarray) -> tuple[float, int]:
    """Standard deviation between the processes of a case, pooled, and its degrees of freedom.

    `values`: those of `relative`, of two cases and two processes at least.
    """
    rest = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
    degrees = (values.shape[0] - 1) * (values.shape[1] - 1)
    return float(np.sqrt((rest**2).sum() / degrees)), degrees


def difference(
    ours: np.ndarray, baseline: np.ndarray, pooled: tuple[float, int], alpha: float
) -> Difference:
    """Compare two cases by their processes' values in `relative`; `pooled`: see `spread`.

    Two processes of the same network differ for as long as they live, by more than their blocks
    vary, so that processes are the sampling unit. The interval is Student's.
    """
    from scipy.special import stdtrit  # a light part of scipy, but not needed to read records

    deviation, degrees = pooled
    middle = float((ours - baseline).mean())
    half = float(stdtrit(degrees, 1 - alpha / 2)) * deviation * (2 / len(ours)) ** 0.5
    low, high = middle - half, middle + half
    word = "no difference shown" if low <= 0 <= high else "slower" if low > 0 else "faster"
    return Difference(float(np.expm1(middle)), float(np.expm1(low)), float(np.expm1(high)), word)
