"""Runs that are forked from a process with torch, beside runs in interpreters of their own."""

import csv
import json
import os
import signal
import subprocess
import sys
from multiprocessing import forkserver

import pytest

from lwbench.sweeps import forking

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a fork server is for Linux")
WORDS = ["model=mb0", "image_size=8", "epochs=1", "batch_size=512", "threads=1", "device=cpu"]


@pytest.fixture
def no_server(monkeypatch):
    """No fork server at the start, and none is left."""
    forkserver._forkserver._stop()
    monkeypatch.setattr(forking, "_served", {})
    yield
    forkserver._forkserver._stop()


def ended(process):
    said = process.stderr.read().decode()
    process.stdin.close()
    return process.wait(), said


def train(out, environment):
    """The kind of process, and the run's figures and record of its start without times."""
    words = [*WORDS, f"out={out}"]
    process = forking.started(words, environment, piped=True)
    assert "finished: " in process.stdout.read().decode()
    assert ended(process) == (0, "")
    (folder,) = out.glob("digits/mb0/*")
    (row,) = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
    figures = {name: value for name, value in row.items() if "loss" in name or "top1" in name}
    assert len(figures) > 3
    start = json.loads((folder / "env.json").read_text())["starts"][-1]
    differing = ("command", "process", "started")
    return type(process), figures, {k: v for k, v in start.items() if k not in differing}


def test_a_forked_run_is_that_of_a_new_interpreter(tmp_path, no_server):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    forked = train(tmp_path / "forked", environment)
    tasks = os.listdir(f"/proc/{forkserver._forkserver._forkserver_pid}/task")
    assert len(tasks) == 1, "torch hangs in what is forked after its threads were started"
    other = train(tmp_path / "new", {**environment, "LWBENCH_TEST": "another environment"})
    assert (forked[0], other[0]) == (forking.Forked, subprocess.Popen)
    assert forked[1:] == other[1:]


@pytest.mark.slow
def test_runs_are_made_when_the_server_was_killed(tmp_path, no_server):
    first = train(tmp_path / "first", dict(os.environ))
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    assert train(tmp_path / "second", dict(os.environ))[1:] == first[1:]
