"""Means, intervals and tests over seeds agree with scipy, with hand computation and with reason."""

import warnings
from math import inf, isfinite, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lwbench.tables import statistics
from lwbench.tables.statistics import Sample, compare, comparisons, holm

percent = st.floats(0, 100, allow_nan=False).map(lambda x: round(x, 2))
runs = st.dictionaries(st.integers(0, 6), percent, min_size=1, max_size=7).map(Sample)
p_values = st.lists(st.floats(0, 1), max_size=8)


def sample(*values, first=0):
    return Sample(dict(enumerate(values, first)))


def test_mean_and_spread_of_a_hand_computed_case():
    one = sample(70.0, 72.0, 74.0)  # deviations -2, 0, 2: variance 8 / 2
    assert (one.n, one.seeds, one.mean, one.sd) == (3, (0, 1, 2), 72.0, 2.0)
    assert one.confidence == pytest.approx(4.302653 * 2 / sqrt(3), rel=1e-6)
    assert one.prediction == pytest.approx(4.302653 * 2 * sqrt(4 / 3), rel=1e-6)


@pytest.mark.parametrize(("n", "factor"), [(2, 15.56), (3, 4.97), (5, 3.04)])
def test_a_further_run_is_predicted_within_so_many_deviations(n, factor):
    one = sample(*range(n))
    assert one.prediction / one.sd == pytest.approx(factor, abs=0.005)


@given(runs)
def test_intervals_are_scipys(one):
    if one.n < 2:
        assert (one.sd, one.confidence, one.prediction) == (None, None, None)
        return
    low, high = stats.t.interval(0.95, one.n - 1, loc=one.mean, scale=one.sd / sqrt(one.n) or 1)
    if one.sd:
        assert one.confidence == pytest.approx((high - low) / 2)
    else:
        assert one.confidence == 0


def test_shared_seeds_are_paired():
    one, other = sample(71.0, 73.5, 75.2, 60.0), sample(70.0, 72.0, 74.0)
    found = compare(one, other)
    theirs = stats.ttest_rel([71.0, 73.5, 75.2], [70.0, 72.0, 74.0])
    assert (found.test, found.p) == ("paired", pytest.approx(theirs.pvalue))
    assert found.difference == pytest.approx(3.7 / 3)  # over the pairs, not over all runs


def test_a_paired_test_of_a_hand_computed_case():
    found = compare(sample(71.0, 72.0, 73.0), sample(70.0, 70.0, 70.0))
    # differences 1, 2, 3: t = 2 / (1 / sqrt 3) = 3.4641 at two degrees of freedom, where
    # p = 1 - t / sqrt(t^2 + 2)
    assert found.p == pytest.approx(1 - sqrt(12) / sqrt(14))


def test_seeds_that_are_not_shared_are_compared_by_welchs_test():
    one, other = sample(71.0, 73.5, 75.2), sample(70.0, 72.0, 74.0, 70.5, first=1)
    found = compare(one, other)
    theirs = stats.ttest_ind([71.0, 73.5, 75.2], [70.0, 72.0, 74.0, 70.5], equal_var=False)
    assert (found.test, found.p) == ("welch", pytest.approx(theirs.pvalue))
    assert found.difference == pytest.approx(one.mean - other.mean)


@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_runs_a_side_are_too_few(n):
    few, many = sample(*[90.0, 91.0][:n]), sample(10.0, 11.0, 12.0)
    for found in (comparisons({"a": few}, many)["a"], comparisons({"a": many}, few)["a"]):
        assert (found.word, found.p, found.holm) == ("too few runs", None, None)
    assert compare(few, many).difference == pytest.approx(few.mean - 11.0)


@pytest.mark.parametrize("first", [0, 10])
def test_runs_without_spread_get_the_p_of_an_exact_permutation_test(first):
    same = compare(sample(0.1 + 0.2, 0.3, 0.3), sample(0.3, 0.3, 0.3, first=first))
    assert same.p == 1.0
    higher, lower = sample(90.0, 90.0, 90.0), sample(80.0, 80.0, 80.0, first=first)
    found = comparisons({"a": higher}, lower)["a"]
    assert found.p == {0: 2 / 8, 10: 2 / 20}[first]
    assert found.word == "no difference shown"


@given(runs, runs)
def test_no_two_samples_give_a_nan_or_a_warning(one, other):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = comparisons({"a": one}, other)["a"]
    assert isfinite(found.difference)
    assert found.p is None or 0 <= found.p <= found.holm <= 1


@given(runs, runs)
def test_exchanging_the_samples_exchanges_better_and_worse(one, other):
    there, back = comparisons({"a": one}, other)["a"], comparisons({"a": other}, one)["a"]
    swapped = {"better": "worse", "worse": "better"}
    assert back.word == swapped.get(there.word, there.word)
    assert back.p == pytest.approx(there.p) if there.p is not None else back.p is None
    errors = comparisons({"a": one}, other, lower_is_better=True)["a"]
    assert errors.word == back.word


def test_lower_is_better_for_errors():
    low, high = sample(10.0, 10.5, 9.8), sample(20.0, 20.4, 19.9)
    assert comparisons({"a": low}, high)["a"].word == "worse"
    assert comparisons({"a": low}, high, lower_is_better=True)["a"].word == "better"


def test_holm_of_a_hand_computed_case():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(p_values)
def test_holm_keeps_the_order_and_never_lowers_a_p(raw):
    found = holm(raw)
    assert all(p <= corrected <= 1 for p, corrected in zip(raw, found, strict=True))
    assert all(corrected <= p * len(raw) for p, corrected in zip(raw, found, strict=True))
    ordered = [corrected for _, corrected in sorted(zip(raw, found, strict=True))]
    assert ordered == sorted(ordered)


def test_a_family_of_rows_is_corrected_together():
    baseline = sample(70.0, 71.0, 72.0)
    row = sample(71.0, 72.5, 73.2)
    alone = comparisons({"a": row}, baseline)["a"]
    rows = {name: row for name in "abcd"} | {"few": sample(99.0)}
    together = comparisons(rows, baseline)["a"]
    assert alone.holm == alone.p == together.p
    assert together.holm == pytest.approx(4 * alone.p)  # the row of one run is no test
    assert statistics.ALPHA / 4 < alone.p < statistics.ALPHA
    assert (alone.word, together.word) == ("better", "no difference shown")


def test_an_interval_never_shrinks_below_its_mean():
    assert sample(50.0, 50.0, 50.0).prediction == 0
    assert sample(50.0).prediction is None
    assert sample(0.0, 100.0).prediction < inf
