"""What may go on: not an edited configuration; more epochs, where the result stays the same."""

import contextlib
import io
from pathlib import Path

import pytest
import yaml
from test_interruption import assert_equal_runs, image_tree

from lwbench.cli import main
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
    (run / "result.json").write_text('{"identity": "00000000"}')
    assert main(["eval", f"run={run}"]) == 2
    assert "was changed" in capsys.readouterr().err


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
