"""scripts/soak.py: its comparison, and one study under signals."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parent.parent / "scripts"


def test_the_comparison_notices_a_bit_and_ignores_times(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from soak import same

    one = {"model": {"w": torch.ones(3)}, "rows": [{"epoch": 1, "seconds": 2.0}]}
    other = {"model": {"w": torch.ones(3)}, "rows": [{"epoch": 1, "seconds": 9.0}]}
    assert same(one, other)
    other["model"]["w"][1] += 1e-7
    assert not same(one, other)
    assert not same([1, 2], [1]) and not same({"a": 1}, {"b": 1}) and not same(1, 2)


@pytest.mark.slow  # a study twice, and the time under signals
@pytest.mark.timeout(3000)
@pytest.mark.skipif(sys.platform != "linux", reason="it finds its processes in /proc")
def test_a_study_under_signals_equals_the_undisturbed_one():
    command = [sys.executable, SCRIPTS / "soak.py", "--minutes", "1", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no difference" in done.stdout
