"""Comparisons image by image, held-out training images, and what the choice of the epoch does."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lwbench.data.held_out import held_out
from lwbench.engine.evaluate import Evaluation
from lwbench.engine.result import held_out_figures
from lwbench.errors import UsageError
from lwbench.runs.runconfig import RunConfig
from lwbench.runs.schema import Images
from lwbench.tables import cells, epoch_choice, published
from lwbench.tables.claims import by_image
from lwbench.tables.claims.by_image import Pair


def record(path, correct, seed=0, **figures):
    path.mkdir(parents=True)
    np.savez(path / "predictions.npz", correct=np.packbits(correct), count=len(correct))
    top1 = 100 * float(np.mean(correct))
    final = SimpleNamespace(test_top1=top1)
    result = SimpleNamespace(seed=seed, final=final, precision="fp32", identity="x", **figures)
    return SimpleNamespace(run=SimpleNamespace(path=path), result=result)


def test_predictions_are_read_back_bit_for_bit_and_checked_against_the_result(tmp_path):
    correct = np.random.default_rng(0).random(1003) < 0.6
    one = record(tmp_path / "a", correct)
    assert (by_image.correct(one) == correct).all()
    assert (tmp_path / "a" / "predictions.npz").stat().st_size < 1500
    one.result.final.test_top1 += 0.1  # of another run
    assert by_image.correct(one) is None
    for content in (b"", b"PK\x03\x04 no archive"):
        (tmp_path / "a" / "predictions.npz").write_bytes(content)
        assert by_image.correct(one) is None


def test_a_pair_of_runs_is_compared_on_the_images_on_which_one_is_right(tmp_path):
    left = np.array([True] * 70 + [False] * 30)
    right = np.array([True] * 60 + [False] * 40)
    (pair,) = by_image.compared([record(tmp_path / "a", left)], [record(tmp_path / "b", right)])
    assert (pair.only_left, pair.only_right, pair.images) == (10, 0, 100)
    assert pair.difference == 10 and pair.p == pytest.approx(2 / 2**10)
    # networks that err alike: far more certain than two independent proportions
    assert pair.variance < 100**2 * (0.7 * 0.3 + 0.6 * 0.4) / 100 / 4


def test_the_estimate_over_seeds_widens_with_the_deviation_between_them():
    alike = by_image.mixed([Pair(s, 300, 200, 10_000) for s in range(3)])
    assert alike.difference == pytest.approx(1.0) and alike.between == 0
    width = 2 * 1.96 * np.sqrt(Pair(0, 300, 200, 10_000).variance / 3)
    assert alike.interval[1] - alike.interval[0] == pytest.approx(width, rel=1e-3)
    apart = by_image.mixed([Pair(s, 300 + 200 * s, 200, 10_000) for s in range(3)])
    assert apart.between == pytest.approx(2.0, abs=0.2)
    assert apart.interval[1] - apart.interval[0] > 3 * width
    assert by_image.mixed([]) is None
    assert by_image.mixed([Pair(0, 0, 0, 100)]).difference == 0


def test_an_evaluation_says_of_each_image_whether_it_was_right():
    found = Evaluation(1.0, 50.0, 100.0, np.array([0, 1, 5, 8]), 3)  # true * 3 + predicted
    assert found.correct.tolist() == [True, False, False, True]


def test_the_same_share_of_each_class_is_held_out_for_every_seed():
    labels = torch.tensor([0] * 50 + [1] * 20 + [2] * 2)
    parts = held_out(labels, 0.1)
    assert torch.bincount(labels[parts["validation"]]).tolist() == [5, 2, 1]
    together = torch.cat(list(parts.values())).sort().values
    assert together.tolist() == list(range(72))
    assert all((parts[k] == held_out(labels, 0.1)[k]).all() for k in parts)
    everything = held_out(labels, 0.0)
    assert len(everything["train"]) == 72 and len(everything["validation"]) == 0


def test_the_epoch_is_chosen_on_the_held_out_images_and_reported_on_the_test_images():
    row = {"train_top1": 1.0, "test_loss": 1.0, "test_top5": 90.0}
    rows = [
        row | {"epoch": 1, "test_top1": 50.0, "validation_top1": 60.0},
        row | {"epoch": 2, "test_top1": 55.0, "validation_top1": 58.0},
    ]
    assert held_out_figures(rows)["held_out"]["test_top1"] == 50.0
    assert held_out_figures([row | {"epoch": 1, "test_top1": 50.0}]) == {}


def config(**data):
    group = {"builder": "x", "lr": 0.1}
    return RunConfig.of(
        {"epochs": 1, "batch_size": 2, "image_size": 8, "model": group, "optimizer": group,
         "scheduler": group, "data": {"builder": "digits", **data}}
    )  # fmt: skip


def test_runs_with_held_out_images_have_an_identity_of_their_own():
    assert config().identity == config(validation=0.0).identity
    assert config().identity != config(validation=0.1).identity
    assert config(validation=0.1).data.spec == {"builder": "digits"}
    for bad in (0.9, -0.1, "a"):
        with pytest.raises(UsageError, match="expected a share"):
            _ = config(validation=bad).validation


def test_the_table_of_epochs_has_three_means_and_their_gains():
    (table,) = published.load("ldc/4")
    found = []
    for cell in cells.filled(table, {}).cells:
        gain = {"mb0": 0.0, "LDC3": 1.0}.get(cell.row)
        if cell.column != "cifar10_top1" or gain is None:
            found.append(cell)
            continue
        run = SimpleNamespace(
            result=SimpleNamespace(final=1, best=1, held_out=1, precision="fp32"),
            data=Images(digest="d"),
            encoded_elsewhere=None,
            value=lambda kind, choice, gain=gain: 60 + gain + {"best": 2 * gain}.get(choice, 0),
        )
        found.append(replace(cell, runs=(run,)))
    layout = epoch_choice.of_table(cells.FilledTable(table, found))
    (first, second) = [[str(e) for e in row[4:7]] for row in layout.rows]
    assert first == ["60.00", "60.00", "60.00"]
    assert second == ["61.00 (+1.00)", "63.00 (+3.00)", "61.00 (+1.00)"]
