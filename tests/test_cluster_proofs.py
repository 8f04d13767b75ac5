"""Proofs on a real SLURM and a real Ray cluster on this machine: `pytest -m cluster`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1900),
    pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs root"),
]


def proof(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not shutil.which("slurmctld"), reason="needs slurm-wlm and munge")
def test_a_slurm_that_stops_runs_and_loses_a_node_gives_the_local_table():
    said = proof("bash", str(SCRIPTS / "slurm_local.sh"))
    assert "--- node n1 was set down" in said and "equal to the table" in said


def test_a_ray_cluster_that_loses_a_node_gives_the_local_runs():
    pytest.importorskip("ray")
    script = f"ip link set lo up; exec {sys.executable} {SCRIPTS / 'ray_local.py'}"
    said = proof("unshare", "-n", "sh", "-c", script)
    assert "--- a node was removed" in said and "--- equal to local runs" in said
