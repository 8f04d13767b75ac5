"""What runs over several seeds show: mean and spread, intervals, differences to a baseline.

Plain numbers in, plain words out. scipy is imported where it is needed: tables without runs do
without it.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import comb, sqrt

ALPHA = 0.05  # of every test and interval: 95 %
MIN_RUNS = 3  # fewer runs a side, or pairs, show nothing: t at one degree of freedom is 12.7
_NO_SPREAD = 1e-9  # percent points: what rounding leaves of equal values

BETTER, WORSE = "better", "worse"
NO_DIFFERENCE, TOO_FEW = "no difference shown", "too few runs"


@dataclass(frozen=True)
class Sample:
    """One figure by seed, in percent. Needs one value at least."""

    values: Mapping[int, float]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(sorted(self.values))

    @cached_property
    def mean(self) -> float:
        return statistics.fmean(self.values.values())

    @cached_property
    def sd(self) -> float | None:
        """Standard deviation over seeds (n - 1); None of one value."""
        return statistics.stdev(self.values.values()) if self.n > 1 else None

    @property
    def confidence(self) -> float | None:
        """Half-width of the 95 % confidence interval of the mean; None of one value."""
        return self._half_width(1 / self.n)

    @property
    def prediction(self) -> float | None:
        """Half-width of the 95 % prediction interval of a single further run.

        t sd sqrt(1 + 1/n): 15.6 sd at n = 2, 5.0 sd at n = 3. None of one value.
        """
        return self._half_width(1 + 1 / self.n)

    def _half_width(self, variance: float) -> float | None:
        if self.sd is None:
            return None
        from scipy.special import stdtrit

        return float(stdtrit(self.n - 1, 1 - ALPHA / 2)) * self.sd * sqrt(variance)


@dataclass(frozen=True)
class Comparison:
    """A row's difference to the baseline row, in percent points."""

    difference: float  # of the means; over the pairs alone where seeds are paired
    test: str | None  # paired | welch | permutation; None of too few runs
    p: float | None
    holm: float | None  # p, corrected for the rows compared
    word: str  # better | worse | no difference shown | too few runs


def comparisons(
    samples: Mapping[str, Sample], baseline: Sample, lower_is_better: bool = False
) -> dict[str, Comparison]:
    """Every sample compared with the baseline: a family of tests, corrected together."""
    raw = {name: compare(sample, baseline) for name, sample in samples.items()}
    tested = {name: one.p for name, one in raw.items() if one.p is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    sign = -1 if lower_is_better else 1
    return {
        name: replace(one, holm=corrected[name], word=_word(sign * one.difference, corrected[name]))
        if name in corrected
        else one
        for name, one in raw.items()
    }


def compare(sample: Sample, baseline: Sample) -> Comparison:
    """The difference and its p-value, uncorrected: the word stays that of too few runs.

    Paired by seed where both have at least three seeds in common, Welch's test over all runs else.
    Without any spread a t-test has no answer: an exact permutation test gives one.
    """
    shared = sorted(set(sample.values) & set(baseline.values))
    if len(shared) >= MIN_RUNS:
        pairs = [sample.values[seed] - baseline.values[seed] for seed in shared]
        return _paired(pairs)
    difference = sample.mean - baseline.mean
    if min(sample.n, baseline.n) < MIN_RUNS:
        return Comparison(difference, None, None, None, TOO_FEW)
    return _welch(sample, baseline, difference)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the order given."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = largest
    return corrected


def _paired(differences: Sequence[float]) -> Comparison:
    mean = statistics.fmean(differences)
    if statistics.stdev(differences) > _NO_SPREAD:
        from scipy.stats import ttest_1samp

        p = float(ttest_1samp(differences, 0.0).pvalue)
        return Comparison(mean, "paired", p, None, TOO_FEW)
    # equal differences: of all ways to choose their signs, two are as extreme
    p = 1.0 if abs(mean) <= _NO_SPREAD else 2 / 2 ** len(differences)
    return Comparison(mean, "permutation", p, None, TOO_FEW)


def _welch(sample: Sample, baseline: Sample, difference: float) -> Comparison:
    if max(sample.sd or 0.0, baseline.sd or 0.0) > _NO_SPREAD:
        from scipy.stats import ttest_ind_from_stats

        stats = [(one.mean, one.sd, one.n) for one in (sample, baseline)]
        p = float(ttest_ind_from_stats(*stats[0], *stats[1], equal_var=False).pvalue)
        return Comparison(difference, "welch", p, None, TOO_FEW)
    # equal values on either side: of all ways to deal them, two at most are as extreme
    ways = comb(sample.n + baseline.n, sample.n)
    p = 1.0 if abs(difference) <= _NO_SPREAD else min(1.0, 2 / ways)
    return Comparison(difference, "permutation", p, None, TOO_FEW)


def _word(gain: float, p: float) -> str:
    if p >= ALPHA:
        return NO_DIFFERENCE
    return BETTER if gain > 0 else WORSE
