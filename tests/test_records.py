"""Finished runs read back: which are found, which of several counts, what is kept."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from lwbench.cli import main
from lwbench.runs.records import (
    ARCHIVED_BYTES,
    ARCHIVED_FILES,
    archive,
    chosen,
    devices,
    records,
    revisions,
)
from lwbench.tables import studies

FIGURES = {"epoch": 1, "test_loss": 1.0, "test_top1": 60.0, "test_top5": 90.0, "train_top1": 50.0}


@pytest.fixture
def finished(tmp_path):
    """Makes a finished run's directory; returns its path."""

    def make(folder="", identity="abcd1234", seed=0, top1=60.0, minute=0, name=None, **changes):
        path = tmp_path / folder / "cifar10" / "mb0" / (name or f"{identity}-s{seed}")
        (path / "checkpoints").mkdir(parents=True)
        (path / "checkpoints" / "last.pt").write_bytes(b"weights")
        final = FIGURES | {"test_top1": top1}
        result = {
            "identity": identity, "model": "mb0", "data": "cifar10", "seed": seed, "epochs": 1,
            "precision": "fp32", "device": "a processor", "params": 10, "seconds": 1.0,
            "images_per_s": 10.0, "final": final, "best": FIGURES,
            "finished": f"2026-01-01T00:{minute:02}:00Z",
        }  # fmt: skip
        (path / "result.json").write_text(json.dumps(result | changes))
        (path / "config.yaml").write_text("seed: 0\n")
        (path / "metrics.csv").write_text("epoch,test_top1\n1,60.0\n")
        return path

    return make


def test_runs_are_found_local_before_kept(tmp_path, finished):
    finished(seed=1)
    finished("measured", seed=2)
    assert [(r.result.seed, r.is_archived) for r in records(tmp_path)] == [(1, False), (2, True)]
    assert [r.result.seed for r in records(tmp_path, archived=False)] == [1]


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
    finished(top1=61.0, minute=1)
    finished(top1=62.0, name="abcd1234-s0-2", minute=2)
    assert [r.result.final.test_top1 for r in chosen(records(tmp_path))] == [62.0]


def test_a_files_time_of_change_chooses_no_run(tmp_path, finished):
    """Clones and copies change it."""
    older = finished(top1=61.0, minute=1)
    newer = finished(top1=62.0, name="abcd1234-s0-2", minute=2)
    os.utime(newer / "result.json", (1e9, 1e9))
    os.utime(older / "result.json", (2e9, 2e9))
    assert [r.result.final.test_top1 for r in chosen(records(tmp_path))] == [62.0]
    assert [r.finished for r in records(tmp_path)] == [
        "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"
    ]  # fmt: skip


def test_of_runs_of_the_same_second_the_last_repetition_counts(tmp_path, finished):
    for number in ("", "-2", "-10", "-9"):
        finished(top1=60.0 + int(number or -1) / -10, name=f"abcd1234-s0{number}")
    assert [r.run.number for r in chosen(records(tmp_path))] == [10]


def test_an_old_record_finished_when_it_was_started(tmp_path, finished):
    path = finished(finished=None)
    (path / "env.json").write_text('{"started": "2025-11-24T23:39:01Z"}')
    (record,) = records(tmp_path)
    assert record.finished == "2025-11-24T23:39:01Z"


def test_a_local_run_counts_before_a_newer_kept_one(tmp_path, finished):
    finished(top1=61.0, minute=1)
    finished("measured", top1=62.0, minute=2)
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
    target = archive(record, tmp_path)
    assert {path.name for path in target.rglob("*")} <= set(ARCHIVED_FILES)
    again = records(tmp_path)[1]
    assert again.is_archived and again.result == record.result and again.metrics == record.metrics


@pytest.mark.parametrize(("size", "kept"), [(8, 8), (48, 5), (160, 0)])
def test_an_archived_run_has_as_many_images_offsets_as_fit(size, kept, tmp_path, finished):
    path = finished() / "offsets.npz"
    draw = np.random.default_rng(0).standard_normal
    arrays = {"images": draw((8, 3, size, size)), "stem.offset": draw((8, 2, size, size))}
    np.savez_compressed(path, **{name: array.astype("float32") for name, array in arrays.items()})
    (record,) = records(tmp_path)
    target = archive(record, tmp_path) / "offsets.npz"
    assert target.is_file() == bool(kept)
    if kept:
        assert target.stat().st_size <= ARCHIVED_BYTES
        with np.load(target) as found, np.load(path) as whole:
            assert {name: len(found[name]) for name in found} == dict.fromkeys(arrays, kept)
            assert all((found[name] == whole[name][:kept]).all() for name in arrays)


def test_damaged_offsets_are_not_archived(tmp_path, finished):
    (finished() / "offsets.npz").write_bytes(b"PK" + bytes(ARCHIVED_BYTES))
    (record,) = records(tmp_path)
    assert not (archive(record, tmp_path) / "offsets.npz").exists()


# env.json: every start of a run

OLD = {
    "command": "lwbench train", "process": "process 1 on a", "started": "2025-11-24T23:39:01Z",
    "python": "3.11.7", "versions": {"torch": "2.14.1", "thop": None}, "system": "Linux",
    "cpu": "a processor", "cores": 2, "git_revision": "25f808720168ca", "git_dirty": False,
    "device": "a processor", "threads": 1,
    "data": {"digest": "67b7", "root": "/images", "train_size": 50000, "test_size": 10000,
             "classes": 10},
}  # fmt: skip


def test_an_old_record_of_the_environment_is_one_start(tmp_path, finished):
    (finished() / "env.json").write_text(json.dumps(OLD))
    (record,) = records(tmp_path)
    (start,) = record.starts
    dumped, recorded = start.model_dump(), {k: OLD[k] for k in OLD if k != "data"}
    assert {key: dumped[key] for key in recorded} == recorded
    # fields that did not exist then are unknown
    assert not any(dumped[key] for key in dumped.keys() - recorded.keys() - {"epochs"})
    assert start.has_trained and start.steps is None
    dumped = record.data.model_dump()
    assert {key: dumped[key] for key in OLD["data"]} == OLD["data"]
    assert not any(dumped[key] for key in dumped.keys() - OLD["data"].keys())


def test_archived_runs_are_read_as_before():
    folder = Path(__file__).parent.parent / "outputs"
    envs = {r: json.loads((r.run.path / "env.json").read_text()) for r in records(folder)}
    # those of the first study, from before an environment listed its starts
    found = {record: env for record, env in envs.items() if "starts" not in env}
    assert len(found) == 18
    for record, env in found.items():
        (start,) = record.starts
        assert (start.git_revision, start.started) == (env["git_revision"], env["started"])
        assert record.data.digest == env["data"]["digest"] and record.finished == env["started"]


@pytest.mark.parametrize("value", [None, 3, 1e400, -1, "x", [], {}, [[1]], {"a": {"b": [1]}}, True])
@pytest.mark.parametrize(
    "field", [*OLD, "epochs", "starts", *(f"data.{key}" for key in OLD["data"]), "data.left_out"]
)
def test_an_invalid_field_of_the_environment_is_unknown_and_costs_one_warning(
    tmp_path, finished, caplog, field, value
):
    content = json.loads(json.dumps(OLD))
    group, _, name = field.rpartition(".")
    (content[group] if group else content)[name] = value
    (finished() / "env.json").write_text(json.dumps(content))
    (record,) = records(tmp_path)
    for start in record.starts:
        assert start.threads in (1, 3, None, True) and isinstance(start.versions, dict)
    assert record.data.train_size in (50000, 3, 1, None)
    assert studies.is_published(record) in (True, False)
    assert revisions([record]) and devices([record])
    assert len([r for r in caplog.records if "count as unknown" in r.getMessage()]) <= 1


def test_a_number_as_text_in_the_environment_ends_no_table(tmp_path, capsys):
    archived = Path(__file__).parent.parent / "outputs" / "measured" / "cifar10"
    shutil.copytree(archived, tmp_path / "cifar10")
    for path in tmp_path.glob("cifar10/*/*/env.json"):
        env = json.loads(path.read_text())
        env["data"]["train_size"] = "50000 images"
        path.write_text(json.dumps(env))
    reduced = ["columns=cifar10", "epochs=10", "image_size=32", f"out={tmp_path}"]
    assert main(["table", "table=ldc/4", "format=json", *reduced]) == 0
    said = capsys.readouterr()
    assert said.out.count('"n": 3') == 6 and "Traceback" not in said.err


@pytest.mark.parametrize(
    "changes",
    [{"seconds": float("nan")}, {"epochs": 10**400}, {"params": "many"}, {"final": None},
     {"seed": -1}, {"finished": "yesterday"}, {"best": FIGURES | {"test_top1": 101.0}},
     {"identity": [1]}, {"device": {"a": 1}}, {"final": FIGURES | {"test_loss": float("inf")}}],
)  # fmt: skip
def test_an_invalid_field_of_a_result_costs_that_run_alone(tmp_path, finished, caplog, changes):
    finished(seed=1)
    path = finished(seed=2) / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert [r.result.seed for r in records(tmp_path)] == [1]
    assert len(caplog.records) == 1 and "s2/result.json is damaged" in caplog.text


@pytest.mark.parametrize("content", [b"epoch,\xff\n1,2\n", b"\x00\xfe"])
def test_damaged_metrics_are_no_rows_and_a_warning(tmp_path, finished, caplog, content):
    (finished() / "metrics.csv").write_bytes(content)
    (record,) = records(tmp_path)
    assert record.metrics == []
    assert "metrics.csv is damaged" in caplog.text
