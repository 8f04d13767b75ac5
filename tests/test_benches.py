"""The benchmarks in their tiny form work, and print the cases of docs/performance.md."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
FACTS = {"bench", "case", "peer", "ratio", "runs", "spread", "cpu"}
# start a dozen processes that load torch, count every network, or train
SLOW = {
    "backward",
    "deform",
    "epoch",
    "input",
    "latency",
    "report",
    "start",
    "startup",
    "streaming",
}
PAGE = (SCRIPTS.parent / "docs" / "performance.md").read_text(encoding="utf-8")


def case_of(text):
    """A case without its sizes, which the tiny form reduces."""
    return re.sub(r"table=\S+", "table=*", re.sub(r"\d+", "#", text))


def documented(bench):
    """The cases of a benchmark in performance.md, each with what it is compared with."""
    rows = re.findall(rf"^\| {bench} \| ([^|]*) \| ([^|]*) \|", PAGE, re.MULTILINE)
    return {(case_of(re.sub(r" \(.*\)", "", case)), peer) for case, peer in rows}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in sorted(path.stem.removeprefix("bench_") for path in SCRIPTS.glob("bench_*.py"))
    ],
)
def test_a_benchmark_prints_every_documented_case_with_peer_and_processor(name, tmp_path):
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
    assert documented(name) <= {(case_of(line["case"]), line["peer"]) for line in lines}


def test_most_benchmarks_have_figures_on_the_page():
    names = {path.stem.removeprefix("bench_") for path in SCRIPTS.glob("bench_*.py")}
    assert {name for name in names if documented(name)} >= names - {"depthwise", "latency"}
