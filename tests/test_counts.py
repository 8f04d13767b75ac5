"""The cache of counts, and the page that is written from it."""

import runpy
from pathlib import Path

import pytest

from lwbench.commands._config_dir import using_config_dir
from lwbench.commands._counting import cached_counts
from lwbench.tables.cells import CountRequest

ROOT = Path(__file__).parent.parent
REQUEST = CountRequest(("model=mb0",), 10, 32)


def counting(calls):
    def count(requests):
        calls.append(requests)
        return {request: {"params": 1, "macs": {"plain": 2}} for request in requests}

    return count


def test_a_second_call_counts_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []
    first = cached_counts([REQUEST, REQUEST], counting(calls))
    second = cached_counts([REQUEST], counting(calls))
    assert first == second == {REQUEST: {"params": 1, "macs": {"plain": 2}}}
    assert calls == [[REQUEST]]


def test_a_damaged_cache_is_counted_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []
    cached_counts([REQUEST], counting(calls))
    (path,) = tmp_path.glob("lwbench/*.json")
    path.write_text('{"half')
    cached_counts([REQUEST], counting(calls))
    assert len(calls) == 2


def test_a_cache_that_cannot_be_written_costs_no_result(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cached_counts([REQUEST], counting([]))


def test_a_changed_configuration_file_starts_a_new_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "conf" / "model" / "mine.yaml"
    path.parent.mkdir(parents=True)
    calls = []
    for text in ("# first", "# changed"):
        path.write_text(text)
        with using_config_dir(tmp_path / "conf"):
            cached_counts([REQUEST], counting(calls))
    assert len(calls) == 2


def test_the_zoo_page_is_up_to_date():
    script = ROOT / "scripts" / "zoo.py"
    if not script.exists():
        pytest.skip("not in a checkout")
    zoo = runpy.run_path(str(script))
    assert zoo["page"]() == zoo["PAGE"].read_text(encoding="utf-8")
