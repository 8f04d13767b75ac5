"""Many runs at once: isolation, failures, signals, locks. Real processes, real deaths."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lwbench.cli import main
from lwbench.config import train_config
from lwbench.engine.signals import Interrupted
from lwbench.runs.directory import Run
from lwbench.runs.machine import usable_cores
from lwbench.sweeps import forced, local
from lwbench.sweeps.local import _slots, gpus, run_all
from lwbench.sweeps.plan import PlannedRun

TINY = ["model=mb0", "image_size=8", "epochs=1", "batch_size=512"]

# What Python runs before anything else: audit hooks in the process of a run. With DEATHS, some
# seeds' processes end in ways of their own when they open their metrics, to write them. Where the
# command line's module would be executed, a stand-in takes the place of runs that TRAINED does not
# name: it takes the directory and its lock as a training does, but loads no torch.
SITE = """
import os, signal, sys, time

def hook(event, arguments):
    if event not in ("open", "exec") or "lwbench.sweeps.job" not in sys.orig_argv:
        return
    if event == "open" and "metrics.csv" in str(arguments[0]) and "DEATHS" in os.environ:
        die()
    if event == "exec" and arguments[0].co_filename.endswith("lwbench/__main__.py"):
        if not set(os.environ["TRAINED"].split()) & set(sys.orig_argv):
            try:
                stand_in(sys.argv[2:])
            except SystemExit as end:
                os._exit(end.code)
            os._exit(0)
        sys.modules.pop("torch", None)

def die():
    if "seed=1" in sys.orig_argv:
        raise RuntimeError("a broken network")
    if "seed=2" in sys.orig_argv:
        sys.exit(7)
    if "seed=3" in sys.orig_argv:
        os.kill(os.getpid(), signal.SIGKILL)
    if "seed=5" in sys.orig_argv:
        sys.exit(0)

def stand_in(overrides):
    from lwbench.config import train_config
    from lwbench.runs.directory import Run

    config = train_config(overrides)
    with Run.for_training(config).locked() as run:
        if run.has_result:
            return
        run.write_config(config)
        with open(run.path / "train.log", "a") as log:
            print("started", file=log)
        print("epoch 1/1 " + "x" * 100_000, flush=True)  # more than a pipe holds
        run.write_metrics([{"epoch": 1, "test_top1": 50.0}])
        time.sleep(0.3)
        figures = dict(epoch=1, test_loss=1.0, test_top1=50.0, test_top5=90.0, train_top1=50.0)
        run.write_result(dict(
            identity=run.identity, model="mb0", data="digits", seed=config.seed, epochs=1,
            precision="fp32", device="cpu", params=1, seconds=1.0, images_per_s=1.0,
            final=figures, best=figures))

if "multiprocessing.forkserver" in sys.orig_argv[-1]:
    sys.modules["torch"] = None  # importing it fails, quickly
sys.addaudithook(hook)
"""


def command(*arguments):
    return [sys.executable, "-m", "lwbench", "train", "-m", *TINY, *arguments]


def sweep(*arguments):
    return main(["train", "-m", *TINY, *arguments])


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    """The environment of sweeps whose runs are made by stand-ins, in an empty working folder."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    monkeypatch.setenv("TRAINED", "")
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def seeds(folder):
    found = Path(folder).glob("outputs/digits/mb0/*/result.json")
    return sorted(int(path.parent.name.rpartition("-s")[2]) for path in found)


def test_jobs_that_raise_exit_or_are_killed_leave_the_others_alone_and_run_again(
    stand_ins, tmp_path, capfd
):
    stand_ins.setenv("TRAINED", "seed=0 seed=1")
    stand_ins.setenv("DEATHS", "yes")
    assert sweep("seed=0,1,2,3,5", "jobs=2") == 1
    assert seeds(tmp_path) == [0]
    said = capfd.readouterr()
    summary = said.out[said.out.rindex("failed ") :]
    for seed, reason in ((1, "a broken network"), (2, "exit code 7"), (3, "killed by SIGKILL"),
                         (5, "ended without a result")):  # fmt: skip
        (line,) = [line for line in summary.splitlines() if f"seed={seed}" in line]
        assert reason in line and "train.log" in line
        (log,) = tmp_path.glob(f"outputs/digits/mb0/*-s{seed}/train.log")
        assert reason in log.read_text()
    assert "Traceback" not in said.err + said.out

    stand_ins.delenv("DEATHS")
    stand_ins.setenv("TRAINED", "")
    assert sweep("seed=0,1,2,3,5", "jobs=2") == 0 and seeds(tmp_path) == [0, 1, 2, 3, 5]
    assert capfd.readouterr().out.count("lwbench train model=mb0") == 4


def test_two_sweeps_at_once_never_make_a_run_twice(stand_ins, tmp_path):
    logs = [tmp_path / "first", tmp_path / "second"]
    both = [subprocess.Popen(command("seed=0,1,2"), stdout=log.open("w")) for log in logs]
    assert [process.wait(timeout=250) for process in both] == [0, 0]
    assert seeds(tmp_path) == [0, 1, 2]
    assert sum(log.read_text().count("epoch 1/1") for log in logs) == 3


def until(condition, seconds=100):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def long_sweep(tmp_path):
    """A sweep of two long runs at once, both in their first epochs."""
    arguments = command("epochs=10000", "seed=0,1", "jobs=2")
    process = subprocess.Popen(
        arguments, cwd=tmp_path, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip

    def rows():
        return list(tmp_path.glob("outputs/digits/mb0/*/metrics.csv"))

    try:
        until(lambda: len(rows()) == 2 or process.poll() is not None)
        assert process.poll() is None, process.stderr.read()
        yield process, [Run(path.parent) for path in rows()]
    finally:
        process.kill()
        process.communicate()


def test_runs_end_with_their_state_saved_when_the_sweep_is_killed(long_sweep):
    process, runs = long_sweep
    assert all(run.is_locked() for run in runs)
    process.kill()
    until(lambda: not any(run.is_locked() for run in runs), 40)
    assert all((run.checkpoints / "last.pt").exists() for run in runs)


def killed(results, *arguments):
    """Start a sweep and kill it as soon as it has one of `results()`."""
    first = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL)
    until(lambda: results() or first.poll() is not None, 250)
    first.kill()
    assert first.wait() == -signal.SIGKILL, "it was done before it could be killed"


def test_a_sweep_that_was_killed_and_is_started_again_skips_what_is_done(
    stand_ins, tmp_path, capfd
):
    killed(lambda: seeds(tmp_path), "seed=0,1,2")
    done = {p: p.stat().st_mtime_ns for p in tmp_path.glob("outputs/digits/mb0/*/result.json")}
    assert sweep("seed=0,1,2") == 0 and seeds(tmp_path) == [0, 1, 2]
    assert done and all(path.stat().st_mtime_ns == time for path, time in done.items())
    assert "seed=0" not in capfd.readouterr().out  # no job was started for it


def repeated(folder):
    """The finished repetitions, by directory name, with the times of their results."""
    found = folder.glob("outputs/digits/mb0/*-s*-*/result.json")
    return {path.parent.name[8:]: path.stat().st_mtime_ns for path in found}


def test_a_forced_sweep_that_was_killed_continues(stand_ins, tmp_path, capfd):
    jobs = ["seed=0,1", "force=true"]
    assert sweep("seed=0,1") == 0
    killed(lambda: repeated(tmp_path), *jobs)
    done = repeated(tmp_path)
    capfd.readouterr()
    assert sweep(*jobs) == 0
    said = capfd.readouterr().out
    assert f"{len(done)} of 2 runs are finished" in said
    assert f"] lwbench train {' '.join(TINY)} seed=0" not in said
    finished = repeated(tmp_path)
    assert sorted(finished) == ["-s0-2", "-s1-2"] and done.items() <= finished.items()
    # without the record the next one makes all of them again
    assert not list(tmp_path.glob("outputs/.forced*"))


def test_a_forced_job_that_dies_writes_to_its_own_log_and_is_made_again(stand_ins, tmp_path, capfd):
    assert sweep("seed=2,3") == 0
    logs = {path: path.read_text() for path in tmp_path.glob("outputs/digits/mb0/*/train.log")}
    stand_ins.setenv("DEATHS", "yes")
    assert sweep("seed=2,4", "force=true") == 1
    assert list(repeated(tmp_path)) == []  # seed 4 is the first of its own
    assert {path: path.read_text() for path in logs} == logs
    (log,) = tmp_path.glob("outputs/digits/mb0/*-s2-2/train.log")
    assert "exit code 7" in log.read_text() and str(log.parent.name) in capfd.readouterr().out
    stand_ins.delenv("DEATHS")
    assert sweep("seed=2,4", "force=true") == 0
    assert "1 of 2 runs are finished" in capfd.readouterr().out
    assert list(repeated(tmp_path)) == ["-s2-2"]


@pytest.mark.parametrize("content", ["", "[]", '{"directories": {"x": 3}}', '{"directories": 5}'])
def test_a_damaged_record_of_a_forced_sweep_is_as_none(tmp_path, monkeypatch, content):
    overrides = ("model=mb0", f"out={tmp_path}", "force=true")
    jobs = [PlannedRun(overrides, train_config(overrides))]
    monkeypatch.setattr(local, "_run_all", lambda jobs, at_once: [1])
    run_all(forced.assigned(jobs), 1)
    (record,) = tmp_path.glob(".forced-*.json")
    record.write_text(content)
    (job,) = forced.assigned(jobs)
    assert job.directory == Run.first(job.config).path and not job.is_finished


@pytest.mark.parametrize(
    ("signum", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, 75, marks=pytest.mark.slow),
    ],
)
def test_a_signal_reaches_every_run_and_all_are_waited_for(long_sweep, signum, code):
    process, runs = long_sweep
    process.send_signal(signum)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert not any(run.is_locked() for run in runs)
    assert all((run.checkpoints / "last.pt").exists() for run in runs)


def test_threads_are_shared_and_gpus_dealt_in_turn(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    slots = _slots(3)
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in slots] == ["3", "5", "3"]
    assert all(slot["OMP_NUM_THREADS"] == str(max(1, usable_cores() // 3)) for slot in slots)
    assert _slots(1) == [{}]  # a single run has the machine to itself


def test_slices_of_a_gpu_and_errors_are_no_gpus(monkeypatch, tmp_path):
    lines = "GPU 0: a card\n  MIG 1g.10gb Device 0: a slice\nGPU 1: a card\nan error"
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '%s\\n' '{lines}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus() == ["0", "1"]


def test_a_signal_reaches_a_job_that_was_just_being_started(monkeypatch, tmp_path):
    """The signal comes while it is started, before the sweep knows the process."""
    overrides = ("model=mb0", f"out={tmp_path}")
    job = PlannedRun(overrides, train_config(overrides))

    def started(words, environment, piped):
        sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
        process = subprocess.Popen(sleep, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        os.kill(os.getpid(), signal.SIGTERM)
        return process

    monkeypatch.setattr(local, "started", started)
    begin = time.monotonic()
    with pytest.raises(Interrupted):
        run_all([job], 1)
    assert time.monotonic() - begin < 30


def test_output_that_nobody_reads_holds_no_run(stand_ins, tmp_path):
    with subprocess.Popen(
        command("seed=0,1", "jobs=2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline()  # the reader leaves after a line, as `| head -1` does
        process.stdout.close()
        errors = process.stderr.read().decode()
        code = process.wait(timeout=200)
    assert code == 0 and errors == ""
    assert seeds(tmp_path) == [0, 1]


def test_no_gpu_is_dealt_where_none_is_visible(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus() == []


@pytest.mark.parametrize("jobs", ["0", "-1", "many", "1.5", "1000000000"])
def test_jobs_must_be_a_number(jobs, capsys):
    assert sweep("seed=0,1", f"jobs={jobs}") == 2
    said = capsys.readouterr().err
    assert "jobs=" in said and "Traceback" not in said


def test_the_summary_names_in_what_runs_of_one_network_differ(monkeypatch, tmp_path, capsys):
    figures = {"epoch": 1, "test_loss": 1, "test_top1": 9, "test_top5": 9, "train_top1": 9}

    def made(jobs, at_once):
        for job in jobs:
            job.run.path.mkdir(parents=True)
            job.run.write_result({
                "identity": job.run.identity, "model": job.config.model_name, "data": "digits",
                "seed": job.config.seed, "epochs": 1, "precision": "fp32", "device": "cpu",
                "params": 1, "seconds": 1, "images_per_s": 1, "final": figures, "best": figures,
            })  # fmt: skip
        return []

    monkeypatch.setattr(local, "run_all", made)
    monkeypatch.chdir(tmp_path)
    widths = ["model=mobilenetv1_025", "epochs=1", "model.width=0.25,0.5", "seed=0,1"]
    assert main(["train", "-m", *widths]) == 0
    rows = [line.split()[:4] for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [
        ["mobilenetv1_025", "digits", f"model.width={width}", seed]
        for width in ("0.25", "0.5")
        for seed in "01"
    ]
