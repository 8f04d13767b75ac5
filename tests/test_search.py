"""Searches with Optuna, on runs whose results are made up: no network is trained."""

import json

import pytest

from lwbench.cli import main
from lwbench.config import search_space
from lwbench.engine.signals import Interrupted
from lwbench.sweeps import local

pytest.importorskip("optuna")
BASE = ("train", "-m", "sweeper=optuna", "model=mb0", "epochs=1", "data.validation=0.1")
FIGURES = {"epoch": 1, "test_loss": 1.0, "test_top1": 50.0, "test_top5": 90.0, "train_top1": 50.0}


@pytest.fixture
def made(tmp_path, monkeypatch):
    """The learning rates of the runs that were made, which are best at 0.1."""
    rates = []

    def make(jobs, at_once):
        for job in jobs:
            lr = job.config.lr
            rates.append(lr)
            job.run.path.mkdir(parents=True, exist_ok=True)
            row = {"epoch": 1, "validation_top1": 90 - 100 * abs(lr - 0.1), "test_top1": 1.0}
            job.run.write_config(job.config)
            job.run.write_metrics([row])
            job.run.write_result({
                "identity": job.run.identity, "model": "mb0", "data": "digits", "seed": 0,
                "epochs": 1, "precision": "fp32", "device": "cpu", "params": 1, "seconds": 1.0,
                "images_per_s": 1.0, "final": FIGURES, "best": FIGURES,
            })  # fmt: skip
        return []

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "run_all", make)
    return rates


def test_ranges_are_intervals_choices_and_lists():
    rate, size = "optimizer.lr=tag(log,interval(0.01,1.0))", "batch_size=interval(1,4)"
    fixed, ranges = search_space(["model=mb0,ldc0", rate, "epochs=1", size])
    assert fixed == ["epochs=1"] and ranges["model"].choices == ("mb0", "ldc0")
    assert ranges["optimizer.lr"][1:] == ((0.01, 1.0), True)
    assert ranges["batch_size"].bounds == (1, 4) and isinstance(ranges["batch_size"].bounds[0], int)


def test_a_search_finds_the_best_value_and_says_what_it_was_chosen_on(made, capsys):
    assert main([*BASE, "n_trials=6", "optimizer.lr=interval(0.01,0.5)"]) == 0
    said = capsys.readouterr().out
    assert len(made) == 6 and "6 trials in outputs/searches/" in said
    best = min(made, key=lambda lr: abs(lr - 0.1))
    first = next(line for line in said.splitlines() if "optimizer.lr=" in line)
    assert f"optimizer.lr={best}" in first and "values were chosen on them" in said
    assert main(["table", "runs=outputs"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    chosen = "chose values of optimizer.lr on held-out training images (val_top1): 6 cells"
    assert f"Trials of a search, which {chosen}" in said
    assert main(["table", "runs=outputs", "format=csv"]) == 0
    assert '""keys"": [""optimizer.lr""]' in capsys.readouterr().out
    assert main(["table", "runs=outputs", "format=json"]) == 0
    cells = [cell for cell in json.loads(capsys.readouterr().out) if cell["column"] == "top1"]
    search = {"objective": "val_top1", "keys": ["optimizer.lr"]}
    assert [cell["search"] for cell in cells] == [search] * 6


def test_an_interrupted_search_goes_on_with_the_same_values(made, tmp_path, monkeypatch):
    arguments = [*BASE, "n_trials=4", "jobs=2", "optimizer.lr=interval(0.01,0.5)"]
    assert main([*arguments, "out=whole"]) == 0
    whole, make = list(made), local.run_all
    made.clear()

    def interrupted(jobs, at_once):
        if len(made) == 2:
            raise Interrupted(15)
        return make(jobs, at_once)

    monkeypatch.setattr(local, "run_all", interrupted)
    assert main([*arguments, "out=parts"]) == 143
    monkeypatch.setattr(local, "run_all", make)
    assert main([*arguments, "out=parts"]) == 0 and made == whole
    assert main([*arguments, "out=parts"]) == 0 and made == whole  # nothing is left


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["objective=test_top1"], "a search on test images"),
        (["data.validation=0.0"], "data.validation=0.1"),
        (["n_trials=0"], "how many runs"),
        (["launcher=slurm", "launcher.wait=false"], "waits for its runs"),
    ],
)
def test_a_search_that_would_mislead_or_cannot_run_is_refused(arguments, said, made, capsys):
    given = [*BASE, "n_trials=2", "optimizer.lr=interval(0.01,0.5)", *arguments]
    if "n_trials=0" in arguments:
        given.remove("n_trials=2")
    assert main(given) == 2 and made == []
    assert said in capsys.readouterr().err
    assert main([*BASE, "n_trials=2", "optimizer.lr=0.1"]) == 2
