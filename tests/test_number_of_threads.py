"""The number of CPU threads of a run: measured or given, recorded before the first step, kept."""

import json
import time

import pytest
import torch

from lwbench.cli import main
from lwbench.config import train_config
from lwbench.engine import threads
from lwbench.engine.load import LoadWatch
from lwbench.runs.directory import Run

QUICK = ["model=mb0", "epochs=1", "batch_size=512", "image_size=8", "device=cpu"]


@pytest.fixture(autouse=True)
def _same_number_afterwards():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def recorded(out):
    (path,) = out.glob("*/*/*/env.json")
    return [start["threads"] for start in json.loads(path.read_text())["starts"]]


def test_the_median_of_each_number_is_measured_in_turns():
    calls = []

    def step(count):
        calls.append(count)
        time.sleep(0.002 if count == 1 else 0.006)

    seconds = threads.fastest(step, [1, 2], seconds=0.05)
    assert min(seconds, key=seconds.get) == 1
    assert calls[:4] == [1, 2, 1, 2]


def test_measuring_changes_neither_weights_nor_gradients_nor_random_numbers(monkeypatch):
    monkeypatch.setattr("lwbench.runs.machine.usable_cores", lambda: 2)
    torch.set_num_threads(2)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Dropout(0.5),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
    )  # fmt: skip
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert threads.measured(model, (4, 3, 8, 8), 4).keys() == {1, 2}
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_where_one_thread_may_be_used_nothing_is_measured(monkeypatch):
    monkeypatch.setattr("lwbench.runs.machine.usable_cores", lambda: 1)
    assert threads.measured(torch.nn.Linear(2, 2), (4, 2), 2) == {}


def test_a_given_number_is_used_recorded_and_said(tmp_path, capsys):
    assert main(["train", *QUICK, "threads=2", f"out={tmp_path}"]) == 0
    assert recorded(tmp_path) == [2]
    assert ", 2 threads; about" in capsys.readouterr().out


def test_the_faster_number_is_chosen_before_the_first_step(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(threads, "measured", lambda *_: {1: 0.5, 2: 0.2})
    assert main(["train", *QUICK, f"out={tmp_path}"]) == 0
    assert recorded(tmp_path) == [2]
    assert "2 threads (measured: 1 thread 256 images/s, 2 threads 640" in capsys.readouterr().out


def test_a_run_that_was_started_keeps_its_number(tmp_path, capsys):
    overrides = [*QUICK, f"out={tmp_path}"]
    run = Run.of(train_config(overrides))
    run.path.mkdir(parents=True)
    run.record_start(threads=2)
    assert main(["train", *overrides, "threads=1"]) == 0
    assert set(recorded(tmp_path)) == {2}
    assert "2 threads as before" in capsys.readouterr().out


def test_the_number_is_not_part_of_the_identity():
    assert train_config(["threads=1"]).identity == train_config(["threads=auto"]).identity
    ways = {train_config([f"evaluate_train={way}"]).identity for way in ("auto", "false", "sample")}
    assert ways == {train_config([]).identity}


@pytest.mark.parametrize("value", ["0", "many", "1.5", "5000"])
def test_other_values_are_refused(value, capsys):
    assert main(["train", f"threads={value}"]) == 2
    assert "threads" in capsys.readouterr().err


def test_a_change_of_load_is_one_line_in_the_log(caplog):
    caplog.set_level("INFO", "lwbench")
    watch = LoadWatch()
    for number, rate in enumerate([90, 100, 110, 80, 50, 40, 30, 60, 95, 100, 60], 1):
        watch.epoch(number, rate)
    slow, again, slow_again = (record.getMessage() for record in caplog.records)
    assert slow.startswith("epoch 5: 50 images/s, 95 before; this process computed on ")
    assert "cores on average, load average" in slow
    assert again == "epoch 9: 95 images/s, as fast as before again"
    assert slow_again.startswith("epoch 11: 60 images/s, 98 before")
