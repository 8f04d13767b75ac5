"""Many runs at once: isolation, failures, signals, locks. Real processes, real deaths."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lwbench.config import train_config
from lwbench.engine.signals import Interrupted
from lwbench.runs.directory import Run
from lwbench.runs.machine import usable_cores
from lwbench.sweeps import forced, local
from lwbench.sweeps.local import _slots, gpus, run_all
from lwbench.sweeps.plan import PlannedRun

TINY = ["model=mb0", "epochs=1", "batch_size=512"]

# What Python runs before anything else: one seed's process ends in a way of its own when it opens
# its metrics, to write them.
DEATHS = """
import os, signal, sys

def deaths(event, arguments):
    if event != "open" or "metrics.csv" not in str(arguments[0]):
        return
    if "lwbench.sweeps.job" not in sys.orig_argv:
        return
    if "seed=1" in sys.orig_argv:
        raise RuntimeError("a broken network")
    if "seed=2" in sys.orig_argv:
        sys.exit(7)
    if "seed=3" in sys.orig_argv:
        os.kill(os.getpid(), signal.SIGKILL)
    if "seed=5" in sys.orig_argv:
        sys.exit(0)

sys.addaudithook(deaths)
"""


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", **more}


def command(*arguments):
    return [sys.executable, "-m", "lwbench", "train", "-m", *TINY, *arguments]


def sweep(*arguments, cwd, **more):
    return subprocess.run(
        command(*arguments), cwd=cwd, env=environment(**more), capture_output=True, text=True,
        timeout=250,
    )  # fmt: skip


def seeds(folder):
    found = Path(folder).glob("outputs/digits/mb0/*/result.json")
    return sorted(int(path.parent.name.rpartition("-s")[2]) for path in found)


def test_jobs_that_raise_exit_or_are_killed_leave_the_others_alone_and_run_again(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(DEATHS)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = sweep("seed=0,1,2,3,5", "jobs=2", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 1, done.stderr
    assert seeds(tmp_path) == [0]
    summary = done.stdout[done.stdout.rindex("failed ") :]
    for seed, reason in ((1, "a broken network"), (2, "exit code 7"), (3, "killed by SIGKILL"),
                         (5, "ended without a result")):  # fmt: skip
        (line,) = [line for line in summary.splitlines() if f"seed={seed}" in line]
        assert reason in line and "train.log" in line
        (log,) = tmp_path.glob(f"outputs/digits/mb0/*-s{seed}/train.log")
        assert reason in log.read_text()
    assert "Traceback" not in done.stderr + done.stdout

    again = sweep("seed=0,1,2,3,5", "jobs=2", cwd=tmp_path)
    assert again.returncode == 0 and seeds(tmp_path) == [0, 1, 2, 3, 5]
    assert again.stdout.count("lwbench train model=mb0") == 4


def test_two_sweeps_at_once_never_make_a_run_twice(tmp_path):
    both = [
        subprocess.Popen(
            command("seed=0,1,2"),
            cwd=tmp_path,
            env=environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=250) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert seeds(tmp_path) == [0, 1, 2]
    assert "".join(out for out, _ in said).count("finished: ") == 3


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
        arguments, cwd=tmp_path, env=environment(), text=True, start_new_session=True,
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


def test_a_sweep_that_was_killed_and_is_started_again_skips_what_is_done(tmp_path):
    first = subprocess.Popen(
        command("seed=0,1,2"), cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL
    )
    until(lambda: seeds(tmp_path) or first.poll() is not None, 250)
    first.kill()
    assert first.wait() == -signal.SIGKILL, "it was done before it could be killed"
    done = {p: p.stat().st_mtime_ns for p in tmp_path.glob("outputs/digits/mb0/*/result.json")}
    again = sweep("seed=0,1,2", cwd=tmp_path)
    assert again.returncode == 0 and seeds(tmp_path) == [0, 1, 2]
    assert done and all(path.stat().st_mtime_ns == time for path, time in done.items())
    assert "seed=0" not in again.stdout  # no job was started for it


def repeated(folder):
    """The finished repetitions, by directory name, with the times of their results."""
    found = folder.glob("outputs/digits/mb0/*-s*-*/result.json")
    return {path.parent.name[8:]: path.stat().st_mtime_ns for path in found}


def test_a_forced_sweep_that_was_killed_continues(tmp_path):
    jobs = ["seed=0,1", "force=true"]
    assert sweep("seed=0,1", cwd=tmp_path).returncode == 0
    first = subprocess.Popen(
        command(*jobs), cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL
    )
    until(lambda: repeated(tmp_path) or first.poll() is not None, 250)
    first.kill()
    assert first.wait() == -signal.SIGKILL, "it was done before it could be killed"
    done = repeated(tmp_path)
    again = sweep(*jobs, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert f"{len(done)} of 2 runs are finished" in again.stdout
    assert "] lwbench train model=mb0 epochs=1 batch_size=512 seed=0" not in again.stdout
    finished = repeated(tmp_path)
    assert sorted(finished) == ["-s0-2", "-s1-2"] and done.items() <= finished.items()
    # without the record the next one makes all of them again
    assert not list(tmp_path.glob("outputs/.forced*"))


@pytest.mark.slow
def test_a_forced_job_that_dies_writes_to_its_own_log_and_is_made_again(tmp_path):
    assert sweep("seed=1,2", cwd=tmp_path).returncode == 0
    logs = {path: path.read_text() for path in tmp_path.glob("outputs/digits/mb0/*/train.log")}
    (tmp_path / "sitecustomize.py").write_text(DEATHS)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = sweep("seed=1,4", "force=true", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 1 and list(repeated(tmp_path)) == []  # seed 4 is the first of its own
    assert {path: path.read_text() for path in logs} == logs
    (log,) = tmp_path.glob("outputs/digits/mb0/*-s1-2/train.log")
    assert "a broken network" in log.read_text() and str(log.parent.name) in done.stdout
    (tmp_path / "sitecustomize.py").unlink()
    again = sweep("seed=1,4", "force=true", cwd=tmp_path)
    assert again.returncode == 0 and "1 of 2 runs are finished" in again.stdout
    assert list(repeated(tmp_path)) == ["-s1-2"]


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
    ("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)]
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
    """The signal comes inside Popen, before the sweep knows the process."""
    overrides = ("model=mb0", f"out={tmp_path}")
    job = PlannedRun(overrides, train_config(overrides))
    real = subprocess.Popen

    def started(command, **options):
        process = real([sys.executable, "-c", "import time; time.sleep(60)"], **options)
        os.kill(os.getpid(), signal.SIGTERM)
        return process

    monkeypatch.setattr(subprocess, "Popen", started)
    begin = time.monotonic()
    with pytest.raises(Interrupted):
        run_all([job], 1)
    assert time.monotonic() - begin < 30


def test_output_that_nobody_reads_holds_no_run(tmp_path):
    words = [*command("seed=0,1", "jobs=2")]
    with subprocess.Popen(
        words, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
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
def test_jobs_must_be_a_number(jobs, tmp_path):
    done = sweep("seed=0,1", f"jobs={jobs}", cwd=tmp_path)
    assert done.returncode == 2 and "jobs=" in done.stderr and "Traceback" not in done.stderr
