"""Tests that stay valid when they are looked at after every seed, and what they cost."""

import numpy as np
import pytest
from scipy.special import stdtr

from lwbench.tables.claims.sequential import bounds, e_process_p, sequential_p

MOST, STUDIES = 20, 20_000
# an independent simulation of the same rule: p bounds of 3, 7, 12, 17 and 20 pairs at alpha 0.05
SIMULATED = {3: 0.00016, 7: 0.0011, 12: 0.0056, 17: 0.018, 20: 0.030}


def t_values(differences):
    """Student's t at every look n = 2 ... of many studies: (studies, n) -> (studies, n - 1)."""
    n = np.arange(1, differences.shape[1] + 1)
    sums, squares = differences.cumsum(1), (differences**2).cumsum(1)
    variance = (squares - sums**2 / n)[:, 1:] / (n[1:] - 1)
    return (sums / n)[:, 1:] / np.sqrt(variance / n[1:])


def sequential_rejects(differences, alpha=0.05):
    n = np.arange(3, differences.shape[1] + 1)
    p = 2 * stdtr(n - 1, -np.abs(t_values(differences)[:, 1:]))
    return p <= np.array(bounds(alpha, differences.shape[1]))


def e_rejects(differences, alpha=0.05):
    n = np.arange(2, differences.shape[1] + 1)
    square, wide = t_values(differences) ** 2, 1 + n
    ratio = (1 + square / (n - 1)) / (1 + square / ((n - 1) * wide))
    return wide**-0.5 * ratio ** (n / 2) >= 1 / alpha


def drawn(shape, heavy, effect=0.0, seed=0):
    draws = np.random.default_rng(seed)
    values = draws.standard_t(3, shape) if heavy else draws.standard_normal(shape)
    return values + effect


def test_the_bounds_spend_alpha_as_the_cube_of_the_share_of_seeds():
    found = bounds(0.05, MOST)
    assert found[0] == pytest.approx(0.05 * (3 / 20) ** 3)
    assert list(found) == sorted(found) and len(found) == 18
    for n, p in SIMULATED.items():
        assert found[n - 3] == pytest.approx(p, rel=0.07)
    assert all(a < b for a, b in zip(bounds(0.01, MOST), found, strict=True))


def test_p_is_the_least_alpha_that_ends_the_study():
    differences = list(drawn(MOST, False, 0.9, seed=3))
    p = sequential_p(differences, MOST)
    assert p < 0.05
    assert sequential_rejects(np.array([differences]), p).any()
    assert not sequential_rejects(np.array([differences]), p / 1.07).any()


def test_p_never_rises_as_seeds_are_added_and_ignores_those_beyond_the_design():
    differences = list(drawn(30, False, 0.5, seed=4))
    found = [sequential_p(differences[:n], MOST) for n in range(1, 31)]
    assert found[:2] == [1.0, 1.0] and found == sorted(found, reverse=True)
    assert found[19] == found[29]
    anytime = [e_process_p(differences[:n]) for n in range(1, 31)]
    assert anytime == sorted(anytime, reverse=True)


def test_equal_differences_and_differences_of_zero_show_nothing():
    assert sequential_p([0.0] * 10, MOST) == 1.0
    assert e_process_p([0.0] * 10) == 1.0


def test_p_of_the_e_process_is_that_of_its_formula():
    differences = drawn((1, 12), False, 1.5, seed=5)
    p = e_process_p(list(differences[0]))
    assert e_rejects(differences, p * 1.000001).any()
    assert not e_rejects(differences, p * 0.999999).any()


def most(alpha):
    """Rejections of 20,000 studies that are within the binomial error (three deviations)."""
    return alpha * STUDIES + 3 * np.sqrt(STUDIES * alpha * (1 - alpha))


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("heavy", [False, True], ids=["normal", "heavy-tailed"])
def test_under_the_null_at_most_alpha_of_20000_studies_declare_a_difference(heavy, alpha):
    differences = drawn((STUDIES, MOST), heavy)
    rejected = sequential_rejects(differences, alpha).any(1).sum()
    print(f"sequential, heavy={heavy}, alpha={alpha}: {rejected / STUDIES:.4f}")
    assert rejected <= most(alpha)
    if not heavy:  # exact, so that no power is given away
        assert rejected >= 2 * alpha * STUDIES - most(alpha)
    rejected = e_rejects(drawn((STUDIES, 100), heavy), alpha).any(1).sum()
    print(f"e-process up to 100 seeds, heavy={heavy}, alpha={alpha}: {rejected / STUDIES:.4f}")
    assert rejected <= most(alpha)


@pytest.mark.slow
def test_stopping_early_costs_little_power_and_saves_seeds():
    differences = drawn((STUDIES, MOST), False, 0.8)
    rejected = sequential_rejects(differences)
    power = rejected.any(1).mean()
    seeds = np.where(rejected.any(1), rejected.argmax(1) + 3, MOST).mean()
    fixed = (2 * stdtr(MOST - 1, -np.abs(t_values(differences)[:, -1])) < 0.05).mean()
    null = np.abs(t_values(drawn((STUDIES, MOST), False))[:, 1:])
    peeking = (2 * stdtr(np.arange(2, MOST), -null) < 0.05).any(1).mean()
    print(f"power {power:.3f} with {seeds:.1f} seeds, fixed n {fixed:.3f}, peeking {peeking:.3f}")
    assert power > fixed - 0.03 and seeds < 15
    assert peeking > 0.2  # what the bounds are for
