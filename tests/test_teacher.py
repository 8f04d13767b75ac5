"""The teacher of a distillation: its identity, what is refused, and a whole run with one."""

import json
import shutil

import pytest
import yaml

from lwbench.cli import main
from lwbench.config import train_config
from lwbench.errors import UsageError
from lwbench.runs.directory import Run
from lwbench.runs.runconfig import RunConfig

FIGURES = {"epoch": 1, "test_loss": 1.25, "test_top1": 50.0, "test_top5": 90.0, "train_top1": 60.0}
RESULT = {
    "identity": "1a2b3c4d", "model": "mb0", "data": "digits", "seed": 0, "epochs": 1,
    "precision": "fp32", "device": "cpu", "params": 10, "seconds": 1.0, "images_per_s": 1.0,
    "final": FIGURES, "best": FIGURES,
}  # fmt: skip


def finished_run(folder, **changes):
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(RESULT | changes))
    return folder


def identity(*overrides):
    return train_config(["model=mb0", *overrides]).identity


def test_the_identity_has_the_teachers_figures_and_not_its_place(tmp_path):
    first = finished_run(tmp_path / "a")
    shutil.copytree(first, tmp_path / "archive" / "b")
    config = train_config(["model=mb0", f"teacher={first}"])
    assert config.identity == identity(f"teacher={tmp_path / 'archive' / 'b'}")
    assert config.distillation.network.startswith("mb0/1a2b3c4d-s0 of ")
    better = finished_run(tmp_path / "c", final=FIGURES | {"test_loss": 1.2499999999999998})
    assert identity(f"teacher={better}") != config.identity != identity()
    # what is stored needs the teacher no longer
    shutil.rmtree(first)
    assert RunConfig.stored(config.values, "").identity == config.identity


def test_keys_of_a_distillation_count_with_a_teacher_alone(tmp_path):
    teacher = f"teacher={finished_run(tmp_path / 'a')}"
    assert identity(teacher, "distillation.weight=0.5") != identity(teacher)
    assert identity(teacher, "distillation.temperature=4") == identity(teacher)
    with pytest.raises(UsageError, match=r"distillation\.weight has no effect without teacher"):
        train_config(["distillation.weight=0.5"])
    with pytest.raises(UsageError, match=r"distillation\.network follows from teacher"):
        train_config([teacher, "distillation.network=other"])


@pytest.mark.parametrize("key", ["accumulate=1", "eval_every=1", "ema=null", "ema=0"])
def test_a_key_that_is_off_leaves_the_identity(key):
    assert identity(key) == identity()


@pytest.mark.parametrize(
    "key", ["accumulate=2", "eval_every=2", "ema=0.99", "data.augment.rand_augment=1"]
)
def test_a_key_that_is_on_is_part_of_the_identity(key):
    assert identity(key) != identity()


def test_numbers_in_lists_are_equal_however_they_are_written():
    crops = "data.augment.crop_scale="
    assert identity(f"{crops}[0.5,1]") == identity(f"{crops}[0.5,1.0]") != identity()


@pytest.mark.parametrize("key", ["accumulate=0", "ema=1", "ema=-0.1", "eval_every=0.5"])
def test_values_out_of_range_are_refused(key):
    with pytest.raises(UsageError, match=key.partition("=")[0]):
        train_config([key])


def test_a_teacher_that_is_no_finished_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not the directory of a finished run"):
        train_config([f"teacher={tmp_path}"])


def test_an_archived_teacher_has_no_weights(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored = train_config(["model=mb0"])
    folder = finished_run(tmp_path / "a", identity=stored.identity)
    (folder / "config.yaml").write_text(yaml.safe_dump(stored.values))
    assert main(["train", "model=mb0", f"teacher={folder}"]) == 2
    assert "archived runs hold records only" in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_a_run_with_all_of_it_is_evaluated_to_its_recorded_figures(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    common = ["train", "model=mb0", "threads=1", "batch_size=64"]
    assert main([*common, "epochs=1"]) == 0
    (teacher,) = (tmp_path / "outputs" / "digits" / "mb0").iterdir()
    assert main([*common, "epochs=2", "ema=0.9", "accumulate=2", f"teacher={teacher}"]) == 0
    said = capsys.readouterr().out
    assert "teacher   mb0" in said and "decay 0.9" in said and "(128 images)" in said
    (run,) = set((tmp_path / "outputs" / "digits" / "mb0").iterdir()) - {teacher}
    assert Run(run).read_result().raw is not None
    assert main(["eval", f"run={run}"]) == 0
    assert capsys.readouterr().out.count("as recorded") == 2
    # another teacher's weights under the name of this one
    shutil.copy(run / "checkpoints" / "last.pt", teacher / "checkpoints" / "last.pt")
    assert main([*common, "epochs=3", f"teacher={teacher}"]) == 2
    assert "is not of the last epoch" in capsys.readouterr().err


def test_weights_are_a_teacher_with_their_network(tmp_path):
    import torch

    path = tmp_path / "weights.pt"
    torch.save({"x": torch.zeros(1)}, path)
    chosen = ("model@distillation.model=mb0", f"teacher={path}")
    config = train_config(["model=mb0", *chosen])
    assert config.distillation.network.startswith("sha256:")
    assert config.distillation.model.builder == config.model.builder
    assert identity(*chosen, "distillation.model.stem=ldc") != config.identity
    torch.save({"x": torch.ones(1)}, path)
    assert identity(*chosen) != config.identity
    with pytest.raises(UsageError, match="has no effect without teacher"):
        train_config(["model@distillation.model=mb0"])
