"""Runs enter the cells they were made for: by identity, one a seed, one precision, whole data."""

from dataclasses import replace
from pathlib import Path

import pytest

from lwbench.runs.directory import Run
from lwbench.runs.records import Record
from lwbench.runs.runconfig import RunConfig
from lwbench.runs.schema import Environment, Result
from lwbench.tables import captions, cells, layout, published, studies
from lwbench.tables.studies import Identities, Study
from lwbench.tables.table import Column

(LDC,) = published.load("ldc/4")
FIGURES = {f.row: f for f in LDC.figures if f.column == "cifar10_top1"}
MB0 = FIGURES["mb0"]  # 89.28 published
EPOCH = {"epoch": 1, "test_loss": 1.0, "test_top5": 90.0, "train_top1": 50.0}


CONFIG = {
    "epochs": 1, "batch_size": 128, "image_size": 32, "model": {"builder": "m"},
    "data": {"builder": "d"}, "optimizer": {"builder": "sgd"}, "scheduler": {"builder": "cosine"},
}  # fmt: skip


def record(top1, seed=0, identity="full", precision="fp32", kept=False, images=None, **changes):
    result = Result.model_validate(
        {
            "identity": identity, "model": "mb0", "data": "cifar10", "seed": seed, "epochs": 1,
            "precision": precision, "device": "a processor", "params": 10, "seconds": 1.0,
            "images_per_s": 10.0, "final": EPOCH | {"test_top1": top1},
            "best": EPOCH | {"test_top1": top1 + 1},
        } | changes
    )  # fmt: skip
    made = Record(Run(Path(f"out/{identity}-s{seed}")), result, kept)
    data = {"digest": "a", "train_size": 50_000, "test_size": 10_000} | (images or {})
    made.__dict__["config"] = RunConfig.stored(CONFIG, "")
    env = {"data": data, "git_revision": "0123456789abcdef", "git_dirty": True}
    made.__dict__["environment"] = Environment.model_validate(env)
    return made


def study(records, overrides=(), identity="full", **changes):
    """A study in which mb0 asks for the runs of one identity; any other row for its own label."""
    asked = {f.train: Identities(f.row, f.row) for f in FIGURES.values()}
    asked[MB0.train] = Identities(identity, "full")
    by_identity = studies.by_identity(records)
    return Study(overrides, identities=asked, records=by_identity, **changes)


def cell(records, published_value="89.28", **changes):
    figure = replace(MB0, value=published_value)
    table = replace(
        LDC, figures=(figure,), rows=("mb0",), columns={"cifar10_top1": Column("top1", "cifar10")}
    )
    (found,) = cells.filled(table, {}, study(records, **changes)).cells
    return found


def test_a_cell_is_mean_and_deviation_over_its_seeds():
    found = cell([record(89.0, 0), record(90.0, 1), record(91.0, 2), record(10.0, 0, "other")])
    assert (found.measured, found.sample.sd, found.sample.n) == (90.0, 1.0, 3)
    assert str(layout.measured(found)) == "90.00 ± 1.00 (3), reproduced (±4.97)"
    assert layout.measured(found, intervals=True).text.startswith("90.00 ± 1.00 (3) [87.52, 92.48]")


@pytest.mark.parametrize(
    ("accuracies", "published_value", "verdict"),
    [
        ([], "89.28", "open"),
        ([89.28], "89.28", "too few runs"),
        ([89.2, 89.3], "89.28", "too few runs"),
        ([89.2, 89.3, 89.4], "89.28", "reproduced"),
        ([89.2, 89.3, 89.4], "89.79", "reproduced"),  # 4.97 deviations of 0.1 reach 89.797
        ([89.2, 89.3, 89.4], "89.80", "differs"),
        ([89.2, 89.3, 89.4], "88.80", "differs"),
        ([89.28] * 3, "89.28", "reproduced"),
        ([89.28] * 3, "89.27", "differs"),
        ([89.2, 89.3, 89.4], None, "measured"),
    ],
)
def test_the_published_value_must_lie_where_a_further_run_would(
    accuracies, published_value, verdict
):
    runs = [record(top1, seed) for seed, top1 in enumerate(accuracies)]
    assert cell(runs, published_value).verdict == verdict


def test_a_reduced_study_neither_reproduces_nor_differs():
    runs = [record(top1, seed, "short") for seed, top1 in enumerate([89.2, 89.3, 89.4])]
    reduced = cell(runs, overrides=("epochs=10",), identity="short")
    assert (reduced.verdict, reduced.overrides) == ("reduced", ("epochs=10",))
    assert reduced.command.endswith("epochs=10")
    assert cell(runs).verdict == "open"  # and full cells take none of its runs


def test_overrides_that_change_no_result_leave_a_study_full():
    runs = [record(top1, seed) for seed, top1 in enumerate([89.2, 89.3, 89.4])]
    found = cell(runs, overrides=("device=cpu",))
    assert (found.verdict, found.overrides) == ("reproduced", ())


def test_a_cell_holds_one_precision_that_of_most_seeds():
    runs = [record(80.0, seed) for seed in (0, 1)]
    runs += [record(90.0, seed, precision="bf16") for seed in (0, 1)]
    assert (cell(runs).precision, cell(runs).measured) == ("fp32", 80.0)
    runs.append(record(90.0, 2, precision="bf16"))
    assert (cell(runs).precision, cell(runs).measured) == ("bf16", 90.0)


def test_a_row_of_another_precision_is_not_compared_and_the_caption_says_so():
    runs = [record(80.0 + seed, seed) for seed in range(3)]
    runs += [record(90.0 + seed, seed, "LDC3", "bf16") for seed in range(3)]
    table = replace(LDC, figures=(MB0, FIGURES["LDC3"]), rows=("mb0", "LDC3"))
    found = cells.filled(table, {}, study(runs))
    assert found.cells[1].comparison is None
    text = " ".join(captions.remarks(found))
    assert "LDC3, cifar10_top1: run in bf16, so not compared with mb0." in text


CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.mark.parametrize(
    "images",
    [
        {"train_size": 500},
        {"train_size": 500, "test_size": 59_500},
        {"test_size": 100},
        {"classes": 2},
        {"classes": 100},
        {"class_names": [f"{name}s" for name in CIFAR10]},
        {"class_names": CIFAR10[::-1]},
    ],
    ids=str,
)
def test_runs_on_other_images_than_the_published_ones_fill_no_cell_of_their_column(images):
    runs = [record(89.0 + seed, seed, images=images) for seed in range(3)]
    assert cell(runs).verdict == "open"
    assert cell(runs, None).verdict == "open"  # nor beside other rows' published values
    short = [record(89.0, 0, "short", images=images)]
    assert cell(short, overrides=("epochs=1",), identity="short").verdict == "open"
    assert study(runs).refused([LDC]) == runs


def test_runs_on_the_published_images_fill_their_column_whatever_is_not_recorded():
    known = {"classes": 10, "class_names": CIFAR10}
    for images in ({}, known, {"train_size": None, "test_size": None}):
        assert cell([record(89.0 + seed, seed, images=images) for seed in range(3)]).measured == 90


@pytest.mark.parametrize("images", [{"digest": "b"}, {"digest": None}, {"content": "other"}])
def test_runs_on_different_images_share_no_cell_and_are_not_compared(images):
    runs = [record(10.0, 0, images=images), record(90.0, 1), record(91.0, 2)]
    assert cell(runs, None).sample.seeds == (1, 2)
    runs = [record(80.0 + seed, seed) for seed in range(3)]
    runs += [record(90.0 + seed, seed, "LDC3", images=images) for seed in range(3)]
    table = replace(LDC, figures=(MB0, FIGURES["LDC3"]), rows=("mb0", "LDC3"))
    found = cells.filled(table, {}, study(runs))
    assert found.cells[1].sample and found.cells[1].comparison is None
    text = " ".join(captions.remarks(found))
    assert "LDC3, cifar10_top1: run on other images, so not compared with mb0." in text


def test_the_best_epoch_is_taken_on_request():
    found = cell([record(88.28, 0)], select="best")
    assert (found.measured, found.select) == (89.28, "best")


def test_rows_are_compared_with_the_baseline_and_corrected_together():
    runs = [record(80.0 + 0.1 * seed, seed) for seed in range(3)]
    for row, gain in {"DC0": 1.0, "LDC0": 2.0, "LDC1": -1.0}.items():
        runs += [record(80.0 + gain + 0.11 * s, s, row) for s in range(3)]
    runs += [record(99.0, 0, "LDC2")]
    figures = tuple(FIGURES.values())
    table = replace(LDC, figures=figures)
    found = {c.row: c for c in cells.filled(table, {}, study(runs)).cells}
    words = {row: c.comparison and c.comparison.word for row, c in found.items()}
    assert words == {
        "mb0": None, "DC0": "better", "LDC0": "better", "LDC1": "worse", "LDC2": "too few runs",
        "LDC3": None,
    }  # fmt: skip
    json = found["DC0"].as_json()
    assert (json["baseline"], json["test"]) == ("mb0", "paired")
    assert json["p"] < json["p_holm"] <= 3 * json["p"]
    assert str(layout.difference(found["DC0"])).startswith("+1.01 better (p ")


def test_lower_is_better_in_a_column_of_errors():
    (hsnet,) = published.load("hsnet/4")
    base, other = [f for f in hsnet.figures if f.column == "cifar100_top1_error"][:2]
    names = {base.train: Identities("a", "a"), other.train: Identities("b", "b")}
    runs = [record(60.0 + seed, seed, "a") for seed in range(3)]
    runs += [record(70.0 + 1.01 * seed, seed, "b") for seed in range(3)]
    table = replace(hsnet, figures=(base, other))
    runs = [replace(r, result=r.result.model_copy(update={"data": "cifar100"})) for r in runs]
    for made in runs:
        made.__dict__["environment"] = Environment()
    records = studies.by_identity(runs)
    first, second = cells.filled(table, {}, Study(identities=names, records=records)).cells
    assert (first.measured, second.comparison.word) == (39.0, "better")
    assert second.comparison.difference == pytest.approx(-10.01)


def test_json_names_hardware_revisions_runs_and_every_number_apart():
    json = cell([record(top1, seed) for seed, top1 in enumerate([89.0, 90.0, 91.0])]).as_json()
    assert (json["published"], json["measured"], json["sd"], json["n"]) == (89.28, 90.0, 1.0, 3)
    assert json["seeds"] == [0, 1, 2]
    assert json["hardware"] == ["a processor"]
    assert json["revisions"] == ["0123456789+"]
    assert json["runs"] == ["out/full-s0", "out/full-s1", "out/full-s2"]
    assert json["prediction"] == pytest.approx(4.9683, abs=1e-4)
    assert json["confidence"] == pytest.approx(2.4841, abs=1e-4)
    assert (json["precision"], json["select"]) == ("fp32", "final")
