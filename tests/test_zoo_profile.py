"""The profiles of every network of torchvision and timm: the script, its file and its page."""

import csv
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "zoo_profile.py"
TABLE = ROOT / "outputs" / "measured" / "zoo_profile.csv"

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="not in a checkout")


def profiles(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250)


def rows_of(table: Path) -> list[dict[str, str]]:
    with open(table, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_networks_are_counted_once_and_a_limit_costs_one_line(tmp_path):
    table = tmp_path / "zoo.csv"
    common = ["--library", "torchvision", "--table", table]
    done = profiles(*common, "--only", "squeezenet1_1")
    assert done.returncode == 0, done.stderr
    done = profiles(*common, "--only", "squeezenet", "--seconds", "0.01")  # resumes
    assert "1 networks are in" in done.stdout and "1 to go" in done.stdout
    done = profiles(*common, "--only", "alexnet", "--gib", "0.01")
    assert done.returncode == 0, done.stderr
    counted, slow, large = rows_of(table)
    assert (counted["arch"], counted["error"]) == ("squeezenet1_1", "")
    assert counted["plain"] == "349151936"
    assert slow["arch"] == "squeezenet1_0"
    assert slow["error"] == "not finished after 0.01 s of processor time"
    assert large["arch"] == "alexnet" and large["error"] and not large["plain"]
    assert all(len(row["error"].splitlines()) < 2 for row in (slow, large))


def test_the_page_is_written_from_the_table():
    done = profiles("--page", "--check")
    assert done.returncode == 0, done.stderr


def test_every_network_has_figures_or_one_line():
    rows = rows_of(TABLE)
    assert len({(row["library"], row["arch"]) for row in rows}) == len(rows)
    for row in rows:
        assert bool(row["error"]) != bool(row["plain"]), row["arch"]
        assert len(row["error"].splitlines()) < 2


def test_the_networks_of_torchvision_cost_what_torchvision_publishes():
    from torchvision.models import list_models

    sys.path.insert(0, str(SCRIPT.parent))
    from zoo_profile import torchvision_weights

    rows = {row["arch"]: row for row in rows_of(TABLE) if row["library"] == "torchvision"}
    if metadata.version("torchvision") != next(iter(rows.values()))["version"]:
        pytest.skip("another torchvision is installed")
    from torchvision import models

    assert set(rows) == set(list_models(module=models))
    for arch, row in rows.items():
        published = torchvision_weights(arch).meta
        assert round(int(row["plain"]) / 1e9, 3) == published["_ops"], arch
        if arch not in ("googlenet", "inception_v3"):  # published with their auxiliary heads
            assert int(row["params"]) == published["num_params"], arch


def test_the_networks_of_timm_are_all_there():
    timm = pytest.importorskip("timm")
    rows = {row["arch"]: row for row in rows_of(TABLE) if row["library"] == "timm"}
    if timm.__version__ != next(iter(rows.values()))["version"]:
        pytest.skip("another timm is installed")
    assert set(rows) == set(timm.list_models())
    assert all(row["flop_counter"] == row["plain"] for row in rows.values() if row["plain"])
