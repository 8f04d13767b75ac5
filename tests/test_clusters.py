"""scripts/slurm_train.sh, with stand-ins for SLURM's commands."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
PAGE = (Path(__file__).parent.parent / "docs" / "clusters.md").read_text(encoding="utf-8")


@pytest.fixture
def submitted(tmp_path, monkeypatch):
    """Run the batch script as SLURM does; returns its exit code and the commands that it ran."""
    for name, code in (("srun", '"${TRAINING_ENDS_WITH:-0}"'), ("scontrol", "0")):
        words = '"$(basename "$0") $* on ${SRUN_CPUS_PER_TASK:-?}"'
        script = f'#!/bin/sh\necho {words} >> "$CALLS"\nexit {code}\n'
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))

    def run(*overrides, **variables):
        given = {"SLURM_JOB_ID": "17", **variables}
        command = ["bash", str(SCRIPTS / "slurm_train.sh"), *overrides]
        done = subprocess.run(command, env={**os.environ, **given}, capture_output=True, text=True)
        assert done.stderr == ""
        return done.returncode, (tmp_path / "calls").read_text().splitlines()

    return run


def test_a_finished_training_ends_the_job(submitted):
    found = submitted("model=mb0", "epochs=2", SLURM_CPUS_PER_TASK="4")
    assert found == (0, ["srun lwbench train model=mb0 epochs=2 on 4"])


def test_an_interrupted_training_is_requeued(submitted):
    code, calls = submitted(TRAINING_ENDS_WITH="75", SLURM_RESTART_COUNT="3")
    assert (code, calls[1:]) == (75, ["scontrol requeue 17 on 1"])


@pytest.mark.parametrize("code", ["1", "2", "130", "143", "137"])
def test_a_training_that_failed_or_was_cancelled_is_not_requeued(submitted, code):
    found, calls = submitted(TRAINING_ENDS_WITH=code)
    assert str(found) == code and len(calls) == 1


def test_the_number_of_restarts_is_bounded(submitted):
    given = {"TRAINING_ENDS_WITH": "75", "LWBENCH_MOST_RESTARTS": "3", "SLURM_RESTART_COUNT": "3"}
    code, calls = submitted(**given)
    assert code == 75 and len(calls) == 1


def test_a_task_of_an_array_trains_the_seed_of_its_number(submitted):
    _, (call,) = submitted("model=mb0", SLURM_ARRAY_TASK_ID="2")
    assert call.startswith("srun lwbench train model=mb0 seed=2 ")


def test_the_signal_reaches_the_job_step_and_the_page_says_so():
    script = (SCRIPTS / "slurm_train.sh").read_text()
    assert "#SBATCH --signal=USR1@300\n" in script and "#SBATCH --requeue\n" in script
    assert "`#SBATCH --signal=USR1@300`" in PAGE and "`LWBENCH_MOST_RESTARTS` (50)" in PAGE
    assert "LWBENCH_MOST_RESTARTS:-50" in script
