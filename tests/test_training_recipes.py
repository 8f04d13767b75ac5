"""Moving average, distillation, accumulation, eval_every: what they compute, and R1 with each."""

import os
import signal

import numpy as np
import pytest
import torch
from test_interruption import KillInEvaluation, assert_equal_runs, plain
from test_train import CPU, Blobs, Kill, Silent, network, without_times
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lwbench.config import specs, train_config
from lwbench.engine import checkpoint
from lwbench.engine.accumulation import Cycles
from lwbench.engine.averaging import WeightAverage, delivered
from lwbench.engine.distill import Teacher
from lwbench.engine.inputs import Settings
from lwbench.engine.optimizers import sgd
from lwbench.engine.precision import autocast
from lwbench.engine.signals import Interrupted
from lwbench.engine.train import Training
from lwbench.engine.weights import load_weights
from lwbench.errors import NonFiniteError, UsageError
from lwbench.runs.directory import Run
from lwbench.runs.resume import extended
from lwbench.runs.schema import Images


class Five(Blobs):
    """Blobs with an epoch of five batches, the last of a single cycle of its own."""

    train_size, steps_per_epoch = 40, 5
    validation_size = 0


def teacher():
    torch.manual_seed(1)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    return Teacher(net, temperature=2.0, weight=0.7)


def training(folder, data=None, epochs=3, model=None, distilled=False, lr=0.05, **settings):
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    model = model or network()
    return Training(
        model,
        data or Five(),
        sgd(model, lr=lr, momentum=0.9),
        lambda progress: lr / (1 + progress),
        run=Run(folder),
        settings=Settings(epochs=epochs, **settings),
        device=CPU,
        teacher=teacher() if distilled else None,
    )


# resuming

RECIPES = {
    "ema": {"ema": 0.9},
    "accumulate": {"accumulate": 2, "clip_grad_norm": 1.0},
    "eval_every": {"eval_every": 2},
    "teacher": {"distilled": True},
    "all": {"ema": 0.9, "accumulate": 3, "eval_every": 2, "distilled": True},
}


@pytest.fixture(scope="module", params=RECIPES.values(), ids=RECIPES)
def recipe(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return request.param, folder, plain(training(folder, **request.param)(Silent()))


# 7: within a cycle of two and of three batches, in the second epoch
@pytest.mark.parametrize("batch", [1, 5, 7, 15])
def test_a_run_interrupted_at_a_batch_equals_an_uninterrupted_one(recipe, tmp_path, batch):
    settings, whole, result = recipe
    with pytest.raises(Interrupted) as interruption:
        training(tmp_path, **settings)(Kill(signal.SIGTERM, batch))
    assert interruption.value.saved
    assert plain(training(tmp_path, **settings)(Silent())) == result
    assert_equal_runs(whole, tmp_path)


# the second evaluation of a run with a moving average is that of the raw weights
def test_a_run_interrupted_in_an_evaluation_equals_an_uninterrupted_one(recipe, tmp_path):
    settings, whole, result = recipe
    cut = training(tmp_path, **settings)
    cut.data = KillInEvaluation(signal.SIGTERM, 2 if "ema" in settings else 1)
    cut.data.train_size, cut.data.steps_per_epoch = Five.train_size, Five.steps_per_epoch
    with pytest.raises(Interrupted):
        cut(Silent())
    assert plain(training(tmp_path, **settings)(Silent())) == result
    assert_equal_runs(whole, tmp_path)


def test_gradients_are_saved_within_a_cycle_alone(tmp_path):
    for batch, within in ((1, True), (2, False), (5, False)):
        folder = tmp_path / str(batch)
        with pytest.raises(Interrupted):
            training(folder, accumulate=2)(Kill(signal.SIGTERM, batch))
        assert ("gradients" in checkpoint.load(folder / "checkpoints" / "last.pt")) == within


# moving average


def test_the_average_is_torchs_where_the_warm_up_is_over():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    ours = WeightAverage(model, 0.8)
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=True)
    theirs.update_parameters(model)  # its first update copies
    for step in range(5):
        model(torch.randn(2, 3, 8, 8)).sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad
        ours.update(1000 + step)
        theirs.update_parameters(model)
    found, expected = ours.network.state_dict(), theirs.module.state_dict()
    assert found["1.num_batches_tracked"] == 5
    for name in found:
        if found[name].is_floating_point():
            torch.testing.assert_close(found[name], expected[name])


def test_the_decay_grows_to_its_limit():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, 0.5)
    value = 0.0
    for step in range(12):
        nn.init.constant_(model.weight, float(step + 1))
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        value = decay * value + (1 - decay) * (step + 1)
        assert average.network.weight.item() == pytest.approx(value)
    assert decay == 0.5


def test_the_average_changes_neither_the_training_nor_the_raw_figures(tmp_path):
    with_average = training(tmp_path / "a", ema=0.9)(Silent())
    without = training(tmp_path / "b")(Silent())
    assert with_average["raw"] == without["final"] and "raw" not in without
    rows = [Run(tmp_path / name).metrics() for name in "ab"]
    for averaged, plain_row in zip(*rows, strict=True):
        assert averaged["train_loss"] == plain_row["train_loss"]
        for name in ("test_loss", "test_top1", "test_top5"):
            assert averaged[f"raw_{name}"] == plain_row[name]
        assert averaged["test_loss"] != plain_row["test_loss"]


def test_the_figures_of_a_run_are_those_of_its_averaged_weights(tmp_path):
    result = training(tmp_path, ema=0.9)(Silent())
    for name, which in (("last.pt", "final"), ("best.pt", "best")):
        path = tmp_path / "checkpoints" / name
        model = network()
        load_weights(model, delivered(checkpoint.load(path)), path)
        task = training(tmp_path / which, model=model)
        assert task._evaluate("test").loss == result[which]["test_loss"]
    assert np.trace(np.load(tmp_path / "confusion.npz")["test"]) / 24 * 100 == pytest.approx(
        result["final"]["test_top1"]
    )


# accumulation


def test_cycles_cover_every_epoch_and_weigh_images_alike():
    cycles = Cycles(length=2, batches=5, images=37, batch_size=8)
    sizes = [8, 8, 8, 8, 5]
    assert [cycles.first(batch) for batch in range(5)] == [0, 0, 2, 2, 4]
    assert [cycles.ends_with(batch) for batch in range(5)] == [False, True, False, True, True]
    shares = [cycles.share(batch, size) for batch, size in enumerate(sizes)]
    assert shares == [0.5, 0.5, 0.5, 0.5, 1.0]
    assert [cycles.steps(1, batch) for batch in range(6)] == [3, 3, 4, 4, 5, 6]
    # the last batch of one image has joined the batch before it
    joined = Cycles(length=3, batches=2, images=17, batch_size=8)
    assert [joined.share(0, 8), joined.share(1, 9)] == [8 / 17, 9 / 17]


class Joined(Blobs):
    """Blobs in batches of sixteen images."""

    batch_size, steps_per_epoch = 16, 2

    def train_batches(self, epoch, start=0):
        for step in range(start, 2):
            halves = [self._batch(1000 * epoch + 2 * step + half) for half in (0, 1)]
            yield tuple(torch.cat(part) for part in zip(*halves, strict=True))


def test_two_batches_of_eight_are_one_of_sixteen_without_batch_norm(tmp_path):
    def linear():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))

    two, one = linear(), linear()
    training(tmp_path / "two", Blobs(), model=two, accumulate=2)(Silent())
    training(tmp_path / "one", Joined(), model=one)(Silent())
    for ours, theirs in zip(two.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    rates = [[row["lr"] for row in Run(tmp_path / name).metrics()] for name in ("two", "one")]
    assert rates[0] == rates[1]


# eval_every


def test_epochs_between_evaluations_have_no_test_figures_and_the_last_one_has(tmp_path):
    result = training(tmp_path, epochs=5, eval_every=2, ema=0.9)(Silent())
    rows = Run(tmp_path).metrics()
    assert [row["test_top1"] != "" for row in rows] == [False, True, False, True, True]
    assert [row["raw_test_loss"] != "" for row in rows] == [False, True, False, True, True]
    assert all(row["train_loss"] for row in rows)
    assert list(rows[0])[:5] == ["epoch", "lr", "train_loss", "train_top1", "test_loss"]
    assert result["final"]["epoch"] == 5 and result["best"]["epoch"] in (2, 4, 5)
    every = training(tmp_path / "every", epochs=5, ema=0.9)(Silent())
    assert every["final"] == result["final"]


def test_divergence_is_noticed_without_an_evaluation(tmp_path):
    class Late(Kill):
        def images_done(self, images):
            self.steps += 1
            if self.steps == self.at_step:  # after the last loss of the epoch
                nn.init.constant_(task.model[-1].weight, float("nan"))

    task = training(tmp_path, eval_every=3)
    with pytest.raises(NonFiniteError, match="norm of the weights became nan in epoch 1"):
        task(Late(signal.SIGTERM, 5))
    assert not (tmp_path / "checkpoints" / "last.pt").exists()


# distillation


def test_the_blended_loss_is_hintons():
    model, images = teacher(), torch.randn(4, 3, 8, 8)
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    hard = nn.functional.cross_entropy(logits, labels)
    found = model.blended(hard, images, logits, autocast("fp32", CPU))
    p = (model.network(images) / 2).softmax(1)
    q = (logits / 2).softmax(1)
    expected = 0.3 * hard + 0.7 * 4 * (p * (p / q).log()).sum(1).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_network_learns_from_the_teacher_alone_and_the_teacher_stays(tmp_path):
    guide = teacher()
    guide.weight = 1.0
    before = plain(guide.network.state_dict())
    torch.manual_seed(2)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    task = training(tmp_path, model=model, epochs=40, lr=0.5)
    task.step.teacher = guide

    def distance():
        return (model(images).softmax(1) - guide.network(images).softmax(1)).abs().max().item()

    images, _ = Blobs()._batch(5)
    far = distance()
    task(Silent())
    assert distance() < 0.3 * far
    assert plain(guide.network.state_dict()) == before


def test_a_metrics_file_without_averages_has_no_columns_of_them(tmp_path):
    training(tmp_path, epochs=1)(Silent())
    (row,) = without_times(Run(tmp_path).metrics())
    assert not any(key.startswith("raw") for key in row)
    assert os.listdir(tmp_path / "checkpoints")


@pytest.mark.parametrize("epochs", [2, 3])
def test_a_run_is_extended_where_the_longer_one_would_have_been_evaluated(tmp_path, epochs):
    def configured(epochs):
        keys = ["model=mb0", "scheduler=constant", "eval_every=2", f"out={tmp_path}"]
        return train_config([*keys, f"epochs={epochs}"])

    shorter, longer = configured(epochs), configured(8)
    first = Run.first(shorter)
    first.checkpoints.mkdir(parents=True)
    first.write_config(shorter)
    for name in ("checkpoints/last.pt", "checkpoints/best.pt", "env.json"):
        (first.path / name).write_text("{}")
    run = Run.first(longer)
    run.checkpoints.mkdir(parents=True)
    arguments = run, longer, Images(), 2, specs(longer).scheduler
    if epochs == 2:
        extended(*arguments)
        assert (run.checkpoints / "last.pt").exists()
        return
    with pytest.raises(UsageError, match="was evaluated after its 3 epochs"):
        extended(*arguments)
