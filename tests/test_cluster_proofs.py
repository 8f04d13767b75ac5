"""Proofs on a real SLURM and a real Ray cluster on this machine: `pytest -m cluster`.

Those of torchrun, which have the same mark, are in test_distributed.py.
"""

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
needs_slurm = pytest.mark.skipif(
    not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))),
    reason="needs slurm-wlm and munge",
)


def has_namespaces():
    """Whether a process may have a network of its own."""
    return not subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode


def proof(*command):
    folder = os.path.dirname(sys.executable)  # scripts call python and lwbench
    environment = os.environ | {"PATH": os.pathsep.join([folder, os.environ["PATH"]])}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_slurm
def test_a_slurm_that_stops_runs_and_loses_a_node_gives_the_local_table():
    said = proof("bash", str(SCRIPTS / "slurm_study.sh"))
    assert "--- node n1 was set down" in said and "equal to the table" in said


@needs_slurm
def test_a_slurm_requeues_and_finishes_the_run_of_a_batch_script():
    said = proof("bash", str(SCRIPTS / "slurm_demo.sh"))
    assert "JobState=PENDING Restarts=1" in said and "Exited with exit code 75" in said
    assert "equal to the run that nothing stopped" in said


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare of util-linux")
def test_a_ray_cluster_that_loses_a_node_gives_the_local_runs():
    pytest.importorskip("ray")
    if not has_namespaces():
        pytest.skip("needs network namespaces: Ray listens on all interfaces")
    script = f"ip link set lo up; exec {sys.executable} {SCRIPTS / 'ray_local.py'}"
    said = proof("unshare", "-n", "sh", "-c", script)
    assert "--- a node was removed" in said and "--- equal to local runs" in said
