"""Studies that grow until they are decided: designs, kills, budgets, and what tables show."""

import json
import random
import re

import pytest

from lwbench import cli
from lwbench.commands import _growing
from lwbench.engine.signals import Interrupted
from lwbench.errors import UsageError
from lwbench.tables.claims import designs, planner

pytestmark = pytest.mark.usefixtures("uncounted")

EPOCH = {"epoch": 1, "test_loss": 1.0, "test_top5": 90.0, "train_top1": 50.0}
MINE = """
columns: {digits_top1: {kind: top1, data: digits}}
rows:
  - {label: plain, run: "model=mb0"}
  - {label: better, run: "model=ldc0"}
  - {label: alike, run: "model=ldc3"}
"""
GAINS = {"mb0": 0.0, "ldc0": 1.5, "ldc3": 0.1}


class Killed(Exception):
    """The process is gone."""


def accuracy(job):
    """What a training of this network and seed reaches, whenever it is made."""
    noise = random.Random(f"{job.config.model_name} {job.config.seed}").gauss(0, 0.5)
    return 60 + GAINS[job.config.model_name] + noise


@pytest.fixture
def study(tmp_path, monkeypatch):
    """`lwbench reproduce table=mine.yaml until=decided` with made-up trainings."""
    (tmp_path / "mine.yaml").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    trained = []

    def run_all(jobs, at_once):
        for job in jobs:
            if job.is_finished:
                continue
            run = job.run
            run.path.mkdir(parents=True, exist_ok=True)
            run.write_config(job.config)
            run.record_start()
            figures = EPOCH | {"test_top1": accuracy(job)}
            run.write_result(
                {
                    "identity": run.identity, "model": job.config.model_name, "data": "digits",
                    "seed": job.config.seed, "epochs": job.config.epochs, "precision": "fp32",
                    "device": "a processor", "params": 1_080_000, "seconds": 60.0,
                    "images_per_s": 10.0, "final": figures, "best": figures,
                }
            )  # fmt: skip
            trained.append(f"{job.config.model_name} {job.config.seed}")
        return []

    monkeypatch.setattr(_growing, "run_all", run_all)

    def reproduce(*arguments):
        return cli.main(["reproduce", "table=mine.yaml", "until=decided", *arguments])

    reproduce.trained = trained
    return reproduce


def decisions(capsys):
    text = capsys.readouterr().out
    return re.findall(r"^(?:better|alike) > .*(?:supported|undecided)", text, re.M), text


def test_seeds_are_added_where_they_decide_and_no_more(study, capsys):
    assert study("max_seeds=12") == 0
    (better, alike), text = decisions(capsys)
    assert better.endswith("supported") and "always valid" in better
    assert alike.endswith("undecided")
    assert "# max_seeds is reached" in text
    seeds = {model: sum(one.startswith(f"{model} ") for one in study.trained) for model in GAINS}
    assert seeds["ldc0"] < 12 and seeds["ldc3"] == 12
    assert study.trained[:3] == ["ldc3 0", "mb0 0", "ldc0 0"]  # pilots of all first


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_study_that_is_killed_again_and_again_decides_the_same(study, capsys, jobs):
    keys = ["max_seeds=12", f"jobs={jobs}"]
    assert study(*keys, "out=undisturbed") == 0
    expected, _ = decisions(capsys)
    undisturbed = list(study.trained)
    study.trained.clear()
    kills = random.Random(0)
    original = _growing.run_all
    while True:
        end = len(study.trained) + kills.randrange(1, 6)  # where the process is killed

        def dying(jobs, at_once, end=end):
            for job in kills.sample(jobs, len(jobs)) if at_once > 1 else jobs:
                if len(study.trained) >= end:
                    raise Killed
                original([job], at_once)
            return []

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_growing, "run_all", dying)
            code = study(*keys, "out=killed")
        if code == 0:
            break
    found, _ = decisions(capsys)
    if jobs == 1:
        assert (found, study.trained) == (expected, undisturbed)
    # several at once fill a batch that was cut with seeds of other comparisons: a seed more or
    # less may be trained, but a comparison looks at the seeds one after another all the same
    assert [line.rpartition(" ")[2] for line in found] == [
        line.rpartition(" ")[2] for line in expected
    ]
    assert len(found) == 2 and abs(len(study.trained) - len(undisturbed)) <= 2


def test_the_design_is_recorded_first_and_cannot_be_changed_afterwards(study, capsys, tmp_path):
    assert study("max_seeds=5", "alpha=0.1") == 0
    (path,) = (tmp_path / "outputs" / "studies").glob("*/design.json")
    content = json.loads(path.read_text())
    assert (content["alpha"], content["max_seeds"]) == (0.1, 5)
    assert "cubic alpha spending up to 5 seeds" in content["method"]
    assert study("max_seeds=8", "alpha=0.1") == 2
    assert "begun with alpha=0.1 max_seeds=5" in capsys.readouterr().err
    (tmp_path / "outputs" / "measured").mkdir()
    (tmp_path / "outputs" / "studies").rename(tmp_path / "outputs" / "measured" / "studies")
    assert study("max_seeds=8", "alpha=0.1") == 2
    assert "begun with alpha=0.1 max_seeds=5" in capsys.readouterr().err
    (tmp_path / "outputs" / "measured" / "studies").rename(tmp_path / "outputs" / "studies")
    path.write_text("{")
    assert study("max_seeds=5", "alpha=0.1") == 2
    assert "damaged" in capsys.readouterr().err
    assert designs.recorded(tmp_path / "outputs") == []


def test_a_table_of_a_grown_study_takes_its_verdicts_from_the_always_valid_p(study, capsys):
    assert study("max_seeds=12") == 0
    capsys.readouterr()
    assert cli.main(["table", "table=mine.yaml", "format=json"]) == 0
    found = {one["row"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["better"]["test"] == found["alike"]["test"] == "sequential"
    assert found["better"]["comparison"] == "better"
    assert found["better"]["p_fixed_n"] < found["better"]["p"] < 0.05
    assert cli.main(["table", "table=mine.yaml"]) == 0
    text = capsys.readouterr().out
    assert "always valid p" in text and "fixed n p" in text and "grown seed by seed" in text


def test_without_a_largest_number_the_e_process_decides(study, capsys):
    assert study("max_seeds=none", "alpha=0.1", "rows=plain,better") == 0
    (better,), text = decisions(capsys)
    assert better.endswith("supported") and "t e-process" in text


def test_a_dry_run_shows_the_design_and_the_next_runs_and_writes_nothing(study, capsys, tmp_path):
    assert study("dry_run=true", "jobs=4") == 0
    text = capsys.readouterr().out
    assert "2 comparisons: sequential paired t-test" in text and "no pair yet" in text
    assert text.count("lwbench train") >= 3 and not study.trained
    assert not (tmp_path / "outputs").exists()


def test_a_budget_ends_it_cleanly_and_says_what_is_next(study, capsys, monkeypatch):
    assert study("max_seeds=3") == 0  # 60 s a run from now on
    assert study("max_seeds=3", "budget=30s", "epochs=19") == 0
    text = capsys.readouterr().out
    assert "# the budget does not allow the next runs\n# next:\nlwbench train" in text

    def slow(jobs, at_once):
        raise Interrupted(15)

    monkeypatch.setattr(_growing, "run_all", slow)
    assert study("max_seeds=3", "epochs=18") == 143  # a signal from outside is no budget


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["claims=ldc"], "needs until=decided"),
        (["table=ldc/4", "budget=1h"], "needs until=decided"),
        (["until=decided"], "either table=<name> or claims"),
        (["until=decided", "claims=ldc", "rows=mb0"], "cannot be combined"),
        (["until=decided", "table=mine.yaml", "alpha=2"], "a probability"),
        (["until=decided", "table=mine.yaml", "max_seeds=2"], "expected 3 to"),
        (["until=decided", "table=mine.yaml", "budget=soon"], "a time such as"),
        (["until=decided", "table=mine.yaml", "columns=params"], "no column"),
    ],
)
def test_keys_that_mean_nothing_together_are_refused(arguments, reason, study, capsys):
    assert cli.main(["reproduce", *arguments]) == 2
    assert reason in capsys.readouterr().err


def test_times_are_read_as_they_are_written():
    assert _growing.seconds("1h30m") == 5400 and _growing.seconds("45s") == 45
    for bad in ("", "3", "h", "1d"):
        with pytest.raises(UsageError):
            _growing.seconds(bad)


def test_a_plan_has_the_power_it_promises():
    # tables of the paired t-test: effect 1 needs 10 pairs, 0.5 needs 34 for a power of 0.8
    assert planner.pairs_needed(1.0, 1.0) == 10
    assert planner.pairs_needed(0.5, 1.0) == 34
    assert planner.power_of(34, 0.5) > 0.8 > planner.power_of(33, 0.5)
    assert planner.pairs_needed(0.01, 1.0) is None
    assert planner.more_seeds(3, 12, 1600.0) == "about 9 more seeds, 4 h here"
    assert planner.more_seeds(3, None, None) == "more than 200 seeds"


def test_the_plan_of_a_table_says_seeds_and_time(study, capsys):
    assert study("max_seeds=4") == 0
    capsys.readouterr()
    assert cli.main(["plan", "table=mine.yaml", "difference=0.5"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"alike, digits_top1: .*about \d+ more seeds, \d+ min here", text)
    assert cli.main(["table", "table=mine.yaml"]) == 0
    assert re.search(r"alike, digits_top1: undecided; ", capsys.readouterr().out)
    assert cli.main(["plan", "table=mine.yaml", "difference=-1"]) == 2
    assert cli.main(["plan"]) == 2
