"""Statistics over seeds: mean and standard deviation, intervals, comparisons with a baseline.

scipy is imported where it is used, since it takes long and tables without runs do not need it.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import comb, sqrt

ALPHA = 0.05  # of every test and interval: 95 %
# Least number of runs on either side, or of pairs. With two runs the 97.5 % quantile of Student's t
# (one degree of freedom) is 12.7, so that hardly any difference could be shown.
MIN_RUNS = 3
NO_SPREAD = 1e-9  # percent points; floating-point error of the differences of equal values

BETTER, WORSE = "better", "worse"
NO_DIFFERENCE, TOO_FEW = "no difference shown", "too few runs"
PValue = Callable[[Sequence[float]], float]  # of mean zero, from differences in seed order
OUTCOMES = (BETTER, WORSE, NO_DIFFERENCE, TOO_FEW)


@dataclass(frozen=True)
class Sample:
    """One accuracy or error rate by seed, in percent; at least one value."""

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

    def verdict(self, published: str | None) -> str:
        """Compare the mean with a published value, in percent."""
        if published is None:
            return "measured"
        if self.n < MIN_RUNS:
            return TOO_FEW
        # the tolerance makes binary floating point agree with decimal arithmetic at the boundary
        near = abs(float(published) - self.mean) <= (self.prediction or 0.0) + 1e-9
        return "reproduced" if near else "differs"

    def __str__(self) -> str:
        """`78.10 ± 0.31`."""
        return f"{self.mean:.2f}" + ("" if self.sd is None else f" ± {self.sd:.2f}")

    def _half_width(self, variance: float) -> float | None:
        if self.sd is None:
            return None
        from scipy.special import stdtrit

        return float(stdtrit(self.n - 1, 1 - ALPHA / 2)) * self.sd * sqrt(variance)


@dataclass(frozen=True)
class Comparison:
    """The difference of a row to the baseline row, in percent points."""

    difference: float  # of the means; over the pairs alone where seeds are paired
    test: str | None  # paired | welch | permutation | sequential; None for too few runs
    p: float | None
    holm: float | None  # p, corrected for the number of rows compared
    word: str  # one of OUTCOMES
    fixed: float | None = None  # beside an always-valid p: that for a fixed number of seeds


def comparisons(
    samples: Mapping[str, Sample],
    baseline: Sample,
    lower_is_better: bool = False,
    always_valid: Mapping[str, PValue] = {},
    alpha: float = ALPHA,
) -> dict[str, Comparison]:
    """Compare every sample with the baseline: one family of tests, with p corrected together.

    `always_valid`: the tests of samples to which seeds were added until they were decided.
    """
    raw = {name: compare(sample, baseline) for name, sample in samples.items()}
    for name, test in always_valid.items():
        raw[name] = _grown(raw[name], samples[name], baseline, test)
    tested = {name: one.p for name, one in raw.items() if one.p is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    sign = -1 if lower_is_better else 1
    return {
        name: replace(
            one, holm=corrected[name], word=_word(sign * one.difference, corrected[name], alpha)
        )
        if name in corrected
        else one
        for name, one in raw.items()
    }


def _grown(found: Comparison, sample: Sample, baseline: Sample, test: PValue) -> Comparison:
    """The comparison with an always-valid p, over the seeds 0, 1, 2 ... that both have."""
    pairs: list[float] = []
    while len(pairs) in sample.values and len(pairs) in baseline.values:
        pairs.append(sample.values[len(pairs)] - baseline.values[len(pairs)])
    if len(pairs) < MIN_RUNS:
        return replace(found, test=None, p=None, fixed=found.p)
    mean = statistics.fmean(pairs)
    return Comparison(mean, "sequential", test(pairs), None, TOO_FEW, paired(pairs).p)


def compare(sample: Sample, baseline: Sample) -> Comparison:
    """Compute the difference and its uncorrected p-value; `comparisons` sets the word.

    A paired t-test where both have at least three seeds in common, else Welch's test over all runs.
    A t-test is undefined for values without spread; an exact permutation test takes its place.
    """
    shared = sorted(set(sample.values) & set(baseline.values))
    if len(shared) >= MIN_RUNS:
        pairs = [sample.values[seed] - baseline.values[seed] for seed in shared]
        return paired(pairs)
    difference = sample.mean - baseline.mean
    if min(sample.n, baseline.n) < MIN_RUNS:
        return Comparison(difference, None, None, None, TOO_FEW)
    return _welch(sample, baseline, difference)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979); returned in the order given."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = largest
    return corrected


def paired(differences: Sequence[float]) -> Comparison:
    """Test that the mean of three or more differences is zero; `comparisons` sets the word."""
    mean = statistics.fmean(differences)
    if statistics.stdev(differences) > NO_SPREAD:
        n, sd = len(differences), statistics.stdev(differences)
        return Comparison(mean, "paired", _two_sided(mean / sd * sqrt(n), n - 1), None, TOO_FEW)
    # equal differences: two of all 2**n choices of their signs are as extreme
    p = 1.0 if abs(mean) <= NO_SPREAD else 2 / 2 ** len(differences)
    return Comparison(mean, "permutation", p, None, TOO_FEW)


def _welch(sample: Sample, baseline: Sample, difference: float) -> Comparison:
    deviations = sample.sd or 0.0, baseline.sd or 0.0
    if max(deviations) > NO_SPREAD:
        sizes = sample.n, baseline.n
        a, b = (sd**2 / n for sd, n in zip(deviations, sizes, strict=True))
        freedom = (a + b) ** 2 / (a**2 / (sizes[0] - 1) + b**2 / (sizes[1] - 1))
        p = _two_sided(difference / sqrt(a + b), freedom)
        return Comparison(difference, "welch", p, None, TOO_FEW)
    # equal values on either side: at most two of all ways to divide them are as extreme
    ways = comb(sample.n + baseline.n, sample.n)
    p = 1.0 if abs(difference) <= NO_SPREAD else min(1.0, 2 / ways)
    return Comparison(difference, "permutation", p, None, TOO_FEW)


def _two_sided(t: float, freedom: float) -> float:
    """The probability of a t statistic at least as far from zero."""
    from scipy.special import stdtr  # scipy.stats takes 0.7 s to import

    return float(2 * stdtr(freedom, -abs(t)))


def _word(gain: float, p: float, alpha: float) -> str:
    if p >= alpha:
        return NO_DIFFERENCE
    return BETTER if gain > 0 else WORSE
