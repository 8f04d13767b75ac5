"""The run directory: what a run is called, and how its records are written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lwbench.config import GROUPS, train_configs
from lwbench.errors import UsageError
from lwbench.paths import conf_folder
from lwbench.runs.cache import exclusive
from lwbench.runs.directory import Run
from lwbench.runs.files import write_atomically
from lwbench.runs.runconfig import RunConfig
from lwbench.tables import published

CONFIG = {
    "seed": 0, "epochs": 5, "batch_size": 128, "image_size": 32, "out": "outputs",
    "device": "auto", "force": False,
    "model": {"builder": "m", "dropout": 0.0, "stem": "conv"},
    "data": {"builder": "d", "root": None, "recipe": {"lr": 0.1}, "augment": {"flip": False}},
    "optimizer": {"builder": "sgd", "lr": 0.1, "weight_decay": 0.0},
    "scheduler": {"builder": "cosine"},
}  # fmt: skip
CHOICES = {"model": "mb0", "data": "digits"}


def identity(values):
    return RunConfig.of(values, CHOICES).identity


def changed(**keys):
    config = {k: dict(v) if isinstance(v, dict) else v for k, v in CONFIG.items()}
    for key, value in keys.items():
        group, _, name = key.rpartition("__")
        (config[group] if group else config)[name] = value
    return config


@pytest.mark.parametrize(
    "keys",
    [{"seed": 7}, {"device": "cuda"}, {"out": "/tmp"}, {"data__root": "/x"}, {"force": True},
     {"workers": 3}, {"data__cache": "/c"}, {"checkpoint": {"every": 3}},
     {"data__recipe": {"lr": 9}}],
)  # fmt: skip
def test_keys_that_cannot_change_the_result_leave_the_identity(keys):
    assert identity(changed(**keys)) == identity(CONFIG)


@pytest.mark.parametrize(
    "keys",
    [{"epochs": 6}, {"batch_size": 64}, {"optimizer__lr": 0.2}, {"model__stem": "ldc"},
     {"data__augment": {"flip": True}}, {"optimizer__weight_decay": 1e-4}, {"model__dropout": 0.2}],
)  # fmt: skip
def test_keys_that_can_change_the_result_change_the_identity(keys):
    assert identity(changed(**keys)) != identity(CONFIG)


@pytest.mark.parametrize("value", [None, False, 0, 0.0, "none", []])
def test_a_new_key_that_is_switched_off_leaves_old_runs_valid(value):
    assert identity(changed(model__new=value)) == identity(CONFIG)


def test_a_number_is_the_same_number_however_it_is_written():
    assert identity(changed(optimizer__lr=1)) == identity(changed(optimizer__lr=1.0))


def test_the_identity_of_today_is_pinned():
    # a change here orphans every run that users have: say so in the CHANGELOG
    assert identity(CONFIG) == "82c60f92"


@pytest.fixture
def forced(tmp_path):
    return RunConfig.of(changed(out=str(tmp_path), force=True), CHOICES)


def test_a_forced_run_stands_beside_a_finished_one_and_is_the_newest(tmp_path, forced):
    first = Run.for_training(forced)
    assert first.path == tmp_path / "digits" / "mb0" / f"{forced.identity}-s0"
    for number in (2, 3):
        with (newest := Run.for_training(forced)).locked():
            newest.write_result({})
        assert Run.for_training(forced).path.name == f"{first.path.name}-{number}"
        assert Run.of(forced).path == newest.path  # without force it is the finished one
    assert (newest.identity, newest.data_name) == (forced.identity, "digits")


def begun(config):
    """The directory of a run that has saved its state once."""
    run = Run.for_training(config)
    with run.locked():
        run.write_config(config)
        (run.checkpoints / "last.pt").write_bytes(b"")
    return run


def test_a_forced_run_that_was_interrupted_continues(forced):
    first = begun(forced)
    assert Run.for_training(forced).path == first.path
    first.write_result({})
    second = begun(forced)
    assert second.path.name == first.path.name + "-2"
    # also where the same command without force=true continued it meanwhile
    second.write_config(forced.changed({"force": False}))
    assert Run.for_training(forced).path == second.path


def test_force_starts_beside_a_run_that_was_interrupted_without_it(forced):
    first = begun(forced.changed({"force": False}))
    assert Run.for_training(forced).path.name == first.path.name + "-2"
    (first.path / "config.yaml").write_text("{")
    assert Run.for_training(forced).path.name == first.path.name + "-2"


def test_metrics_are_replaced_as_a_whole(tmp_path):
    run = Run(tmp_path)
    run.write_metrics([{"epoch": epoch, "lr": 0.1} for epoch in (1, 2, 3)])
    run.write_metrics([{"epoch": epoch, "lr": 0.1} for epoch in (1, 2)])
    assert [row["epoch"] for row in run.metrics()] == ["1", "2"]


def test_half_files_of_a_killed_writer_are_removed_by_the_next(tmp_path):
    run = Run(tmp_path)
    run.checkpoints.mkdir()
    (run.checkpoints / ".last.pt.1.part").write_bytes(b"half")
    with run.locked():
        assert list(run.checkpoints.iterdir()) == []


def test_partial_files_of_killed_processes_are_removed_under_the_lock(tmp_path):
    path = tmp_path / "photos [1].bin"
    left = tmp_path / f".{path.name}.1.part"
    other = tmp_path / ".photos 1.bin.1.part"
    for file in (left, other):
        file.write_bytes(b"half")
    with exclusive(path) as problem:
        assert problem is None and not left.exists() and other.exists()


def test_two_processes_compute_a_cached_result_once(tmp_path):
    code = (
        "import sys, time; from lwbench.runs.cache import cached\n"
        "make = lambda keys: time.sleep(1) or print('made') or {key: 1 for key in keys}\n"
        "cached('counts', 'now', ['a'], make)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    assert b"".join(process.communicate()[0] for process in both) == b"made\n"


def test_a_second_writer_is_refused_with_who_holds_the_run(tmp_path):
    run = Run(tmp_path / "run")
    hold = (
        "import sys; from pathlib import Path; from lwbench.runs.directory import Run\n"
        "run = Run(Path(sys.argv[1]))\n"
        "with run.locked():\n"
        "    run.record_start(); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(run.path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"written by process {holder.pid}"), run.locked():
            pass
    finally:
        holder.kill()
        holder.wait()
    with run.locked():
        pass  # a dead holder holds nothing


def test_an_output_folder_that_is_a_file_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UsageError, match="cannot write to"),
        Run(tmp_path / "file" / "run").locked(),
    ):
        pass


def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_atomically(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_result_is_no_result(tmp_path):
    run = Run(tmp_path)
    (tmp_path / "result.json").write_text('{"final": ')
    assert run.read_result() is None


def test_a_folder_without_a_configuration_is_no_run(tmp_path):
    with pytest.raises(UsageError, match="not a run directory"):
        Run(tmp_path).read_config()


def test_runs_and_results_load_without_torch():
    modules = "lwbench.runs.records, lwbench.tables.cells, lwbench.report.build"
    code = f"import {modules}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent).returncode == 0


def test_the_identities_of_all_shipped_configurations_and_table_rows_are_held():
    golden = json.loads((Path(__file__).parent / "golden" / "identities.json").read_text())
    configs = train_configs(tuple(line.split(" ")) for line in golden)
    assert {" ".join(key): config.identity for key, config in configs.items()} == golden


def test_every_shipped_configuration_and_table_row_has_a_held_identity():
    golden = json.loads((Path(__file__).parent / "golden" / "identities.json").read_text())
    options = {word for line in golden for word in line.split(" ")}
    for group in GROUPS:
        for path in (conf_folder() / group).glob("*.yaml"):
            if path.stem != "file":  # a network of the user's
                assert f"{group}={path.stem}" in options
    rows = (f.train for table in published.load("all") for f in table.figures if f.train)
    assert {" ".join(train) for train in rows} <= golden.keys()
