"""Finished runs read back: which are found, which of several counts, what is kept."""

import json
import os

import pytest

from lwbench.runs.records import KEPT_FILES, chosen, keep, records

FIGURES = {"epoch": 1, "test_loss": 1.0, "test_top1": 60.0, "test_top5": 90.0, "train_top1": 50.0}


@pytest.fixture
def finished(tmp_path):
    """Makes a finished run's directory; returns its path."""

    def make(folder="", identity="abcd1234", seed=0, top1=60.0, age=0, name=None, **changes):
        path = tmp_path / folder / "cifar10" / "mb0" / (name or f"{identity}-s{seed}")
        (path / "checkpoints").mkdir(parents=True)
        (path / "checkpoints" / "last.pt").write_bytes(b"weights")
        final = FIGURES | {"test_top1": top1}
        result = {
            "identity": identity, "model": "mb0", "data": "cifar10", "seed": seed, "epochs": 1,
            "precision": "fp32", "device": "a processor", "params": 10, "seconds": 1.0,
            "images_per_s": 10.0, "final": final, "best": FIGURES,
        }  # fmt: skip
        (path / "result.json").write_text(json.dumps(result | changes))
        (path / "config.yaml").write_text("seed: 0\n")
        (path / "metrics.csv").write_text("epoch,test_top1\n1,60.0\n")
        os.utime(path / "result.json", (1e9 - age, 1e9 - age))
        return path

    return make


def test_runs_are_found_local_before_kept(tmp_path, finished):
    finished(seed=1)
    finished("measured", seed=2)
    assert [(r.result.seed, r.kept) for r in records(tmp_path)] == [(1, False), (2, True)]
    assert [r.result.seed for r in records(tmp_path, kept=False)] == [1]


def test_an_unfinished_run_is_no_record(tmp_path, finished):
    (finished() / "result.json").unlink()
    assert records(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"identity": 3}', "\x00"])
def test_a_damaged_result_is_left_out_with_a_warning(tmp_path, finished, caplog, text):
    (finished() / "result.json").write_text(text)
    assert records(tmp_path) == []
    assert "damaged" in caplog.text


def test_an_infinite_figure_is_damage(tmp_path, finished):
    finished(seconds=float("inf"))
    assert records(tmp_path) == []


def test_the_newest_of_several_runs_counts(tmp_path, finished):
    finished(top1=61.0, age=50)
    finished(top1=62.0, name="abcd1234-s0-2", age=10)
    assert [r.result.final.test_top1 for r in chosen(records(tmp_path))] == [62.0]


def test_a_local_run_counts_before_a_newer_kept_one(tmp_path, finished):
    finished(top1=61.0, age=50)
    finished("measured", top1=62.0)
    assert [r.result.final.test_top1 for r in chosen(records(tmp_path))] == [61.0]


def test_precisions_are_never_one_run(tmp_path, finished):
    finished()
    finished(precision="bf16", name="abcd1234-s0-2")
    assert len(chosen(records(tmp_path))) == 2


def test_an_error_rate_is_what_is_missing_to_hundred(tmp_path, finished):
    finished(top1=61.0)
    (record,) = records(tmp_path)
    assert record.value("top1_error") == pytest.approx(39.0)
    assert record.value("top1", "best") == 60.0


def test_what_is_kept_has_no_weights_and_is_read_again(tmp_path, finished):
    finished()
    (record,) = records(tmp_path)
    target = keep(record, tmp_path)
    assert {path.name for path in target.rglob("*")} <= set(KEPT_FILES)
    again = records(tmp_path)[1]
    assert again.kept and again.result == record.result and again.metrics == record.metrics


@pytest.mark.parametrize("content", [b"epoch,\xff\n1,2\n", b"\x00\xfe"])
def test_damaged_metrics_are_no_rows_and_a_warning(tmp_path, finished, caplog, content):
    (finished() / "metrics.csv").write_bytes(content)
    (record,) = records(tmp_path)
    assert record.metrics == []
    assert "metrics.csv is damaged" in caplog.text
