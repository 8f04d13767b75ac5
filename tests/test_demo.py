"""scripts/demo_faults.py, run as a user runs it."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "demo_faults.py"


@pytest.mark.slow  # three runs of a sweep, and Hydra's three
def test_lwbench_loses_nothing_where_other_tools_do():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("holds: ") >= 4  # ours; a later version of a peer may hold too
