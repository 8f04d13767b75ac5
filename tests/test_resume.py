"""What may go on: not an edited configuration; more epochs, where the result stays the same."""

import contextlib
import io
import json
import os
import signal
from pathlib import Path

import pytest
import yaml
from test_interruption import assert_equal_runs, image_tree

from lwbench.cli import main
from lwbench.logs import EpochProgress
from lwbench.runs.directory import Run
from lwbench.runs.records import devices, records, revisions
from lwbench.runs.runconfig import RunConfig


@pytest.fixture
def job(tmp_path):
    """The command of a run of an epoch or two, which takes a moment."""
    root = image_tree(tmp_path / "images")
    return ["train", "model=mb0", "data=folder", f"data.root={root}", "image_size=32",
            "batch_size=12", "seed=3", f"out={tmp_path / 'out'}"]  # fmt: skip


def started(job):
    """The directory of a run that has only just started."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert main([*job, "--cfg"]) == 0
    config = yaml.safe_load(text.getvalue())
    run = job_folder(job) / "images" / "mb0" / f"{RunConfig.stored(config, '').identity}-s3"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(text.getvalue())
    return run


def job_folder(job):
    (out,) = [word for word in job if word.startswith("out=")]
    return Path(out.removeprefix("out="))


def test_an_extended_run_equals_one_trained_without_a_break(job, tmp_path, capsys):
    job.append("scheduler=constant")
    assert main([*job, "epochs=1"]) == 0
    capsys.readouterr()
    assert main([*job, "epochs=2", "extend=true"]) == 0
    said = capsys.readouterr().out
    assert "epoch 2/2" in said and "epoch 1/2" not in said
    assert main([*job, "epochs=2", f"out={tmp_path / 'whole'}"]) == 0
    (whole,) = tmp_path.glob("whole/*/*/*")
    assert_equal_runs(whole, tmp_path / "out" / whole.relative_to(tmp_path / "whole"))


def test_a_schedule_over_all_epochs_cannot_be_extended(job, capsys):
    job.append("scheduler=cosine")
    (started([*job, "epochs=2"]) / "checkpoints" / "last.pt").write_bytes(b"")
    assert main([*job, "epochs=3", "extend=true"]) == 2
    said = capsys.readouterr().err
    assert "scheduler=cosine depends on epochs" in said and said.count("\n") == 2


def test_without_a_shorter_run_there_is_nothing_to_extend(job, capsys):
    (started([*job, "epochs=2"]) / "checkpoints" / "last.pt").write_bytes(b"")
    assert main([*job, "epochs=3", "label_smoothing=0.5", "extend=true"]) == 2
    assert "no run of this configuration and seed" in capsys.readouterr().err


def test_a_configuration_edited_by_hand_is_refused_with_what_differs(job, capsys):
    path = started(job) / "config.yaml"
    path.write_text(path.read_text().replace("batch_size: 12", "batch_size: 13"))
    assert main(job) == 2
    assert "batch_size=13 for 12" in capsys.readouterr().err


def test_eval_refuses_a_configuration_that_is_not_the_results(job, capsys):
    run = started(job)
    figures = {"epoch": 1, "test_loss": 1.0, "test_top1": 1.0, "test_top5": 1.0, "train_top1": 1.0}
    result = {"identity": "00000000", "model": "mb0", "data": "images", "seed": 3, "epochs": 1,
              "precision": "fp32", "device": "cpu", "params": 1, "seconds": 1.0,
              "images_per_s": 1.0, "final": figures, "best": figures}  # fmt: skip
    (run / "result.json").write_text(json.dumps(result))
    assert main(["eval", f"run={run}"]) == 2
    assert "was changed" in capsys.readouterr().err


# every start is recorded


def interrupted(job, capsys, monkeypatch, at_step):
    """Start `job` and have it told to end at an optimizer step; its directory."""
    progress = EpochProgress.images_done
    steps = []

    def told(self, images):
        steps.append(images)
        if len(steps) == at_step:
            os.kill(os.getpid(), signal.SIGTERM)
        progress(self, images)

    with monkeypatch.context() as patched:
        patched.setattr(EpochProgress, "images_done", told)
        assert main(job) == 143
    capsys.readouterr()
    *_, config = sorted(job_folder(job).glob("*/*/*/config.yaml"))
    return config.parent


def test_every_start_is_recorded_with_what_it_trained(job, capsys, monkeypatch):
    job += ["epochs=3", "batch_size=4"]  # 6 steps an epoch
    path = interrupted(job, capsys, monkeypatch, at_step=8)
    env = json.loads((path / "env.json").read_text())
    (first,) = env["starts"]
    assert (first["epochs"], first["steps"]) == (1, 8)
    first |= {"git_revision": "1" * 40, "git_dirty": False, "device": "another processor"}
    first["versions"]["torch"] = "1.0"
    first["convolutions"] = "another compiler"
    (path / "env.json").write_text(json.dumps(env))
    assert main(job) == 0
    said = capsys.readouterr().err
    assert said.count("was trained so far with") == 1 and "Traceback" not in said
    for difference in (
        "revision 1111111111 (now ",
        "torch 1.0 (now ",
        "device another processor",
        "convolutions another compiler (now ",
    ):
        assert difference in said
    (record,) = records(job_folder(job))
    assert [start.git_revision == "1" * 40 for start in record.starts] == [True, False]
    assert [(start.epochs, start.steps) for start in record.starts] == [(1, 8), (2, 10)]
    assert record.starts[0].started <= record.starts[1].started <= record.finished
    assert devices([record])[0] == "another processor" and len(devices([record])) == 2
    assert revisions([record])[0] == "1111111111" and len(revisions([record])) == 2


def test_a_resume_under_equal_conditions_says_nothing(job, capsys, monkeypatch):
    job += ["epochs=2", "batch_size=4"]
    path = interrupted(job, capsys, monkeypatch, at_step=8)
    assert main(job) == 0
    assert capsys.readouterr().err == ""
    assert "was trained so far with" not in (path / "train.log").read_text()


def test_an_old_record_is_resumed_as_its_first_start(job, capsys, monkeypatch):
    path = interrupted([*job, "epochs=2"], capsys, monkeypatch, at_step=1)
    env = json.loads((path / "env.json").read_text())
    old = env["starts"][0] | {"git_revision": "2" * 40, "data": env["data"]}
    (path / "env.json").write_text(
        json.dumps({k: v for k, v in old.items() if k not in ("epochs", "steps")})
    )
    assert main([*job, "epochs=2"]) == 0
    assert "revision 2222222222" in capsys.readouterr().err
    (record,) = records(job_folder(job))
    assert [start.steps for start in record.starts] == [None, 3]


def test_starts_that_left_no_checkpoint_are_dropped(job):
    path = started([*job, "epochs=1"])
    Run(path).record_start()
    assert main([*job, "epochs=1"]) == 0
    (record,) = records(job_folder(job))
    assert [start.steps for start in record.starts] == [2]


def test_an_extended_run_names_the_starts_of_the_shorter_one(job):
    job.append("scheduler=constant")
    assert main([*job, "epochs=1"]) == 0
    assert main([*job, "epochs=2", "extend=true"]) == 0
    found = {record.result.epochs: record for record in records(job_folder(job))}
    assert [start.epochs for start in found[2].starts] == [1, 1]


def test_a_forced_run_that_is_interrupted_continues_with_the_same_command(job, capsys, monkeypatch):
    job += ["epochs=2", "batch_size=4"]
    assert main(job) == 0
    (first,) = job_folder(job).glob("*/*/*")
    untouched = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    job.append("force=true")
    forced = interrupted(job, capsys, monkeypatch, at_step=8)
    assert forced.name == first.name + "-2" and not (forced / "result.json").exists()
    assert main(job) == 0
    assert "epoch 1/2" not in capsys.readouterr().out
    assert {path.name for path in first.parent.iterdir()} == {first.name, forced.name}
    assert {path: path.read_bytes() for path in untouched} == untouched
    assert [start.steps for start in Run(forced).environment().starts] == [8, 4]
    assert_equal_runs(first, forced)
    assert main(job) == 0  # finished: the next one is made
    assert (first.parent / f"{first.name}-3" / "result.json").exists()


# directories from strangers: data, compared with the registries

STRANGE = {
    "an object": ("model:\n  builder: x", "model: !!python/object/apply:os.system ['touch ran']"),
    "a target": ("\nmodel:\n", "\nmodel:\n  _target_: os.system\n"),
    "an unknown builder": ("builder: mobilenet_ldc", "builder: os.system"),
    "a builder of a wrong type": ("builder: mobilenet_ldc", "builder: [os, system]"),
    "a group of a wrong type": ("\noptimizer:\n", "\noptimizer: 3\nx:\n"),
    "text for a number": ("batch_size: 12", "batch_size: many"),
    "a huge number": ("image_size: 32", "image_size: 1000000000000000000000000"),
    "a huge seed": ("seed: 3", "seed: 99999999999999999999999999"),
    "infinity": ("label_smoothing: 0.0", "label_smoothing: .inf"),
    "a number for a key": ("seed: 3", "7: 7\nseed: 3"),
    "a date": ("epochs: 1", "epochs: 2001-01-01"),
    "deep nesting": ("epochs: 1", "epochs: " + "[" * 5000 + "]" * 5000),
    "no text at all": ("epochs: 1", "epochs: \x00"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_eval_of_a_strangers_run_uses_nothing_but_valid_data(
    job, tmp_path, kind, capsys, monkeypatch
):
    text = (started([*job, "epochs=1"]) / "config.yaml").read_text()
    before, after = STRANGE[kind]
    if kind == "an object":
        changed = f"{after}\n{text}"
    else:
        assert before in text
        changed = text.replace(before, after, 1)
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(changed)
    assert main(["eval", "run=."]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lwbench: ") and said.count("\n") <= 2 and "Traceback" not in said
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]
