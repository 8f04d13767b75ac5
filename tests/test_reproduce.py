"""A table's runs: planned, made, made again only where something is missing."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lwbench.cli import main
from lwbench.config import train_configs
from lwbench.errors import UsageError
from lwbench.runs.directory import Run
from lwbench.runs.records import archive, records
from lwbench.sweeps import plan as plans
from lwbench.tables import published
from lwbench.tables.selection import selected
from lwbench.tables.studies import requests

ROOT = Path(__file__).parent.parent
OWN = """
source: a study of one's own
columns: {top1: {kind: top1, data: digits}}
rows:
  - {label: plain, run: model=mb0}
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(extra, wanted, out, kept=True):
    tables = selected(published.load("ldc/4"), None, "cifar10")
    composed = train_configs(requests(tables, (*extra, f"out={out}")))
    return plans.plan(composed, wanted, records(Path(out), archived=kept))


def directory(run):
    return Run.of(run.config)


def finish(run, epochs=10, seconds=1000.0):
    """Give a planned run a result, as if it had been made."""
    path = directory(run).path
    path.mkdir(parents=True)
    figures = {"epoch": 1, "test_loss": 1, "test_top1": 1, "test_top5": 1, "train_top1": 1}
    result = {
        "identity": run.config.identity, "model": run.config.model_name, "data": "cifar10",
        "seed": run.config.seed, "epochs": epochs, "precision": "fp32", "device": "a processor",
        "params": 1, "seconds": seconds, "images_per_s": 1, "final": figures, "best": figures,
    }  # fmt: skip
    (path / "result.json").write_text(json.dumps(result))
    (path / "config.yaml").write_text(json.dumps(run.config.values))


# the plan


def test_a_column_needs_each_row_with_each_seed_a_seed_after_the_other(tmp_path):
    plan = planned((), [0, 1, 2], tmp_path)
    assert [p.config.seed for p in plan] == [0] * 6 + [1] * 6 + [2] * 6
    assert [p.config.model_name for p in plan[:6]] == ["mb0", "dc0", "ldc0", "ldc1", "ldc2", "ldc3"]
    assert {p.state for p in plan} == {"missing"} and all(p.seconds is None for p in plan)


def test_finished_resumable_and_missing_runs_are_told_apart(tmp_path):
    first, second, *_ = planned((), [0], tmp_path)
    finish(first)
    half = directory(second)
    half.checkpoints.mkdir(parents=True)
    (half.checkpoints / "last.pt").write_bytes(b"")
    half.write_metrics([{"epoch": 1}])
    again = planned((), [0], tmp_path)
    assert [p.state for p in again[:3]] == ["finished", "resumable", "missing"]
    assert again[0].line.startswith("# finished: lwbench train model=mb0")
    assert again[1].line.endswith("# resumes after 1 of 100 epochs")
    # 1000 s for ten epochs: 99 are left of the second, none of the first
    assert [p.seconds for p in again[:3]] == [0, 9900, 10000]
    assert "other networks" in plans.summary(again, 1)[1]


def test_half_the_time_is_estimated_for_two_at_once(tmp_path):
    first, *_ = planned((), [0], tmp_path)
    finish(first, epochs=100, seconds=7200)
    plan = planned((), [0], tmp_path)
    assert "about 10 h 0 min with jobs=1" in plans.summary(plan, 1)[1]
    assert "about 5 h 0 min with jobs=2 at best" in plans.summary(plan, 2)[1]


def test_kept_runs_count_as_finished_unless_told_otherwise(tmp_path):
    first, *_ = planned((), [0], tmp_path)
    finish(first)
    (record,) = records(tmp_path)
    archive(record, tmp_path)
    (record.run.path / "result.json").unlink()
    assert planned((), [0], tmp_path)[0].state == "archived"
    assert planned((), [0], tmp_path, kept=False)[0].state == "missing"


def test_a_reduced_study_shares_no_run_with_the_full_one(tmp_path):
    full, reduced = planned((), [0], tmp_path), planned(("epochs=10",), [0], tmp_path)
    assert not {p.config.identity for p in full} & {p.config.identity for p in reduced}


def test_the_planned_identity_is_that_of_the_printed_command(tmp_path):
    (run, *_) = planned(("epochs=10", "image_size=32"), [4], tmp_path)
    words = tuple(shlex.split(run.command)[2:])
    config = train_configs([words])[words]
    assert config.identity == run.config.identity and config.seed == 4


@pytest.mark.parametrize(
    ("text", "found"), [("3", [0, 1, 2]), ("0,5,7", [0, 5, 7]), ("[7]", [7]), ("4,4", [4])]
)
def test_seeds_are_a_number_or_a_list(text, found):
    assert plans.seeds(text) == found


@pytest.mark.parametrize("text", ["0", "", "a", "-1", "1.5", "1;2", "[]", "1," + "9" * 30])
def test_other_seeds_are_refused(text):
    with pytest.raises(UsageError, match="seeds="):
        plans.seeds(text)


def test_a_run_of_a_part_of_the_data_is_refused_in_the_place_of_a_full_one(tmp_path, capsys):
    first, *_ = planned((), [0], tmp_path)
    finish(first)
    env = {"data": {"train_size": 100, "test_size": 30}}
    (directory(first).path / "env.json").write_text(json.dumps(env))
    arguments = ["reproduce", "table=ldc/4", "columns=cifar10", "dry_run=true", f"out={tmp_path}"]
    assert main(arguments) == 2
    assert "not of cifar10 as published: 130 images instead of 60,000" in capsys.readouterr().err
    assert main([*arguments, "epochs=3"]) == 0  # another identity, and a reduced study


def test_a_damaged_result_is_named_rather_than_skipped(tmp_path):
    first, *_ = planned((), [0], tmp_path)
    finish(first)
    (directory(first).path / "result.json").write_text('{"identity": "x"}')
    with pytest.raises(UsageError, match="damaged\nremove that file"):
        planned((), [0], tmp_path)


# the command


def test_dry_run_prints_one_line_a_run_without_data_or_torch(tmp_path):
    code = (
        "import sys; from lwbench.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(3 if 'torch' in sys.modules else code)"
    )
    arguments = ["reproduce", "table=hsnet/4", "seeds=2", "dry_run=true"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    commands = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    assert commands and all(line.startswith("lwbench train ") for line in commands)
    assert subprocess.run(["bash", "-n"], input=done.stdout, text=True).returncode == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "needs table="),
        (["table=ldc/44"], "no table"),
        (["table=ldc/4", "columns=cifar1"], "no column"),
        (["table=ldc/4", "columns=params"], "no accuracy among these cells"),
        (["table=ldc/4", "seed=3"], "rows and columns"),
        (["table=ldc/4", "epohcs=3"], "unknown key 'epohcs'; nearest: epochs"),
        (["table=ldc/4", "jobs=none"], "jobs=none"),
        (["table=ldc/4", "dry_run=perhaps"], "dry_run=perhaps"),
    ],
)
def test_what_cannot_be_meant_is_one_line_and_exit_code_2(arguments, said, tmp_path, capsys):
    assert main(["reproduce", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_every_published_table_has_a_line_in_the_script():
    lines = (ROOT / "scripts" / "tables.sh").read_text().splitlines()
    named = [found[1] for line in lines if (found := re.search(r"table=(\S+)", line))]
    assert sorted(named) == sorted(published.names())


def test_a_study_killed_and_started_again_ends_in_the_table_of_an_undisturbed_one(own, capfd):
    arguments = ["reproduce", "table=mine.yaml", "seeds=1", "epochs=2", "batch_size=256",
                 "image_size=8", "jobs=2"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "lwbench", *arguments], stdout=subprocess.DEVNULL
    )
    end = time.monotonic() + 200
    while not list(own.glob("outputs/digits/*/*/metrics.csv")) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()

    def table_below_the_plan(*more):
        assert main([*arguments, *more]) == 0
        said = capfd.readouterr().out
        return said[said.index("mine: ") :]

    disturbed, calm = table_below_the_plan(), table_below_the_plan("out=calm")
    assert "(1)" in calm and disturbed == calm  # where the runs lie is no part of a study's name
