"""The cache of configurations and counts: made once, bounded, never in the way."""

import os

import pytest

from lwbench.runs import cache
from lwbench.runs.cache import cached


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "lwbench"


def never(keys):
    raise AssertionError(f"made again: {keys}")


def test_what_is_known_is_not_made_again():
    assert cached("x", "a", ["1", "2"], lambda keys: dict.fromkeys(keys, 0)) == {"1": 0, "2": 0}
    assert cached("x", "a", ["2"], never) == {"2": 0}


def test_another_state_of_the_sources_is_another_file(home):
    cached("x", "a", ["1"], lambda keys: {"1": "old"})
    assert cached("x", "b", ["1"], lambda keys: {"1": "new"}) == {"1": "new"}
    assert cached("x", "a", ["1"], never) == {"1": "old"}


def test_a_file_keeps_the_newest_entries(monkeypatch):
    monkeypatch.setattr(cache, "MAX_ENTRIES", 3)
    for key in "abcde":
        cached("x", "s", [key], lambda keys: dict.fromkeys(keys, 1))
    assert cached("x", "s", ["c", "d", "e"], never) == {"c": 1, "d": 1, "e": 1}
    with pytest.raises(AssertionError, match="made again"):
        cached("x", "s", ["a"], never)


def test_a_request_larger_than_the_bound_is_cached_whole(monkeypatch):
    monkeypatch.setattr(cache, "MAX_ENTRIES", 2)
    cached("x", "s", list("abcd"), lambda keys: dict.fromkeys(keys, 1))
    assert cached("x", "s", list("abcd"), never) == dict.fromkeys("abcd", 1)


def test_the_files_of_old_states_are_removed(home, monkeypatch):
    monkeypatch.setattr(cache, "MAX_FILES", 2)
    for age, state in enumerate("abcd"):
        cached("x", state, ["1"], lambda keys: {"1": 1})
        os.utime(home / f"x-{state}.json", (age, age))
    cached("x", "e", ["1"], lambda keys: {"1": 1})
    assert sorted(path.name for path in home.glob("x-*.json")) == ["x-d.json", "x-e.json"]


def test_a_damaged_file_costs_time_and_no_result(home):
    cached("x", "s", ["1"], lambda keys: {"1": 1})
    (home / "x-s.json").write_text("{half")
    assert cached("x", "s", ["1"], lambda keys: {"1": 2}) == {"1": 2}


def test_a_cache_that_cannot_be_written_costs_no_result(home):
    home.parent.mkdir(exist_ok=True)
    home.write_text("a file in the folder's place")
    assert cached("x", "s", ["1"], lambda keys: {"1": 1}) == {"1": 1}
