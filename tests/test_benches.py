"""The benchmarks in their tiny form: they work, and say what they measured. Never how fast."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
FACTS = {"bench", "case", "peer", "ratio", "runs", "spread", "cpu"}
SLOW = {"startup"}  # starts a dozen processes that load torch


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in sorted(path.stem.removeprefix("bench_") for path in SCRIPTS.glob("bench_*.py"))
    ],
)
def test_a_benchmark_prints_a_json_line_a_case_with_peer_and_processor(name, tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / f"bench_{name}.py"), "--tiny"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines
    for line in lines:
        assert line.keys() >= FACTS and line["bench"] == name
        low, high = line["spread"]
        assert 0 < low <= high and line["runs"] >= 1 and line["cpu"]
