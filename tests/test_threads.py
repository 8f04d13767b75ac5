"""How threads wait: decided by the load, where the user's environment says nothing."""

import os

import pytest

from lwbench.engine import threads


@pytest.fixture
def unset(monkeypatch):
    # set first, so that what `settle` puts there is undone afterwards
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


def load(monkeypatch, busy_share):
    """Let the system's counters say that so much of a core is in use."""
    per_second = os.sysconf("SC_CLK_TCK")
    readings = iter([1000.0, 1000.0 + busy_share * per_second * 0.1])
    monkeypatch.setattr(threads, "_busy_ticks", lambda: next(readings))


@pytest.mark.parametrize(("busy_share", "spins"), [(0.0, threads.SPINS), (0.1, threads.SPINS),
                                                   (0.5, 0), (2.0, 0)])  # fmt: skip
def test_threads_spin_where_the_machine_is_idle_and_sleep_where_it_is_not(unset, busy_share, spins):
    load(unset, busy_share)
    threads.settle()
    assert os.environ["GOMP_SPINCOUNT"] == str(spins)


def test_what_the_environment_says_stands(unset):
    unset.setenv("OMP_WAIT_POLICY", "active")
    load(unset, 2.0)
    threads.settle()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_a_system_that_tells_nothing_counts_as_idle(unset):
    unset.setattr(threads, "_busy_ticks", lambda: None)
    threads.settle()
    assert os.environ["GOMP_SPINCOUNT"] == str(threads.SPINS)


def test_the_counters_of_this_system_are_read_or_absent():
    ticks = threads._busy_ticks()
    assert ticks is None or ticks > 0
