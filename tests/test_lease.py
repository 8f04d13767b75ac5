"""Run directories on shared file systems: two processes that share no kernel lock."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lwbench.errors import UsageError
from lwbench.runs import lease
from lwbench.runs.directory import Run

SECONDS = 1.0
# A process on another machine: flock does not reach it, and its process number means nothing here.
ELSEWHERE = f"""
import contextlib, socket, sys
from pathlib import Path
socket.gethostname = lambda: "elsewhere"
from lwbench.runs import lease
lease.LEASE_SECONDS = {SECONDS}
lease.kernel_locked = lambda *_, **__: contextlib.nullcontext()
from lwbench.runs.directory import Run
run = Run(Path(sys.argv[1]))
with run.locked():
    run.record_start()
    print("held", flush=True)
    for line in sys.stdin:
        run.write_result({{"by": "elsewhere"}})
        print("written", flush=True)
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A process of another machine that holds the run in `tmp_path`."""
    monkeypatch.setattr(lease, "LEASE_SECONDS", SECONDS)
    process = subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        with suppress(OSError):
            stream.close()


def write(process):
    process.stdin.write("now\n")
    process.stdin.flush()


def test_two_machines_never_hold_one_run(tmp_path, elsewhere):
    run = Run(tmp_path)
    assert run.is_locked()
    with pytest.raises(UsageError, match=f"written by process {elsewhere.pid}"), run.locked():
        pass
    write(elsewhere)  # it was renewed meanwhile
    assert elsewhere.stdout.readline() == "written\n" and run.has_result


def test_a_dead_machine_frees_its_run_after_the_time_out(tmp_path, elsewhere):
    elsewhere.kill()
    run, begin = Run(tmp_path), time.monotonic()
    with run.locked():
        assert time.monotonic() - begin > 0.6 * SECONDS  # nothing here could know of its death
        assert run.is_locked()
    assert not run.is_locked() and not (tmp_path / lease.NAME).exists()


def test_a_paused_machine_that_outlived_its_lease_writes_nothing(tmp_path, elsewhere):
    os.kill(elsewhere.pid, signal.SIGSTOP)
    run = Run(tmp_path)
    with run.locked():
        write(elsewhere)
        os.kill(elsewhere.pid, signal.SIGCONT)
        elsewhere.stdin.close()
        assert elsewhere.wait(20) == 1
        assert "was taken over by another process" in elsewhere.stderr.read()
        assert not run.has_result
        run.write_result({"by": "here"})  # it took nothing away
    assert run.has_result and not list(tmp_path.rglob(".*.part"))


def test_a_writer_paused_between_the_check_and_the_replacement_fails(tmp_path, monkeypatch):
    # the process that takes the run over removes partial files, and with them the right to replace
    run = Run(tmp_path)
    run.checkpoints.mkdir()
    monkeypatch.setattr(
        "lwbench.runs.files.check_held", lambda path: [p.unlink() for p in path.parent.glob(".*")]
    )
    with pytest.raises(FileNotFoundError):
        run.write_result({})
    assert not run.has_result


def test_a_file_system_without_flock_has_the_lease(tmp_path, monkeypatch):
    def without(*_):
        raise OSError(37, "No locks available")

    run = Run(tmp_path)
    monkeypatch.setattr("fcntl.flock", without)
    with run.locked():
        assert (tmp_path / lease.NAME).exists() and run.is_locked()
    assert not run.is_locked()


def test_a_file_outside_a_lost_run_may_be_written(tmp_path):
    with Run(tmp_path / "run").locked():
        (tmp_path / "run" / lease.NAME).unlink()
        lease.check_held(tmp_path / "other")
        with pytest.raises(lease.LeaseLost):
            lease.check_held(Path(tmp_path / "run" / "result.json"))
