"""The training loop on a small made-up problem: records, resumption, divergence, signals."""

import os

import numpy as np
import pytest
import torch
from torch import nn

from lwbench.engine.evaluate import evaluate
from lwbench.engine.inputs import Settings
from lwbench.engine.optimizers import sgd
from lwbench.engine.precision import autocast, resolved_precision
from lwbench.engine.train import Training
from lwbench.engine.weights import load_weights
from lwbench.errors import NonFiniteError, UsageError
from lwbench.layers.deform import DeformConv2d
from lwbench.runs.directory import Run

CPU = torch.device("cpu")


class Blobs:
    """Images whose class is written in their mean; batches are a function of (epoch, step)."""

    num_classes, batch_size, train_size, steps_per_epoch = 3, 8, 32, 4
    validation_size = 0
    class_names = ("low", "middle", "high")

    def _batch(self, seed):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(3, (8,), generator=generator)
        images = torch.randn(8, 3, 8, 8, generator=generator) + labels.view(-1, 1, 1, 1)
        return images, labels

    def train_batches(self, epoch, start=0):
        for step in range(start, self.steps_per_epoch):
            yield self._batch(1000 * epoch + step)

    def eval_batches(self, split, most=None):
        for step in range(3):
            yield self._batch(10**6 + step)


class Silent:
    def epoch_starts(self, epoch, images_done): ...

    def images_done(self, images): ...

    def epoch_ends(self, row): ...


class Kill(Silent):
    """Sends this process a signal at one optimizer step."""

    def __init__(self, signum, at_step):
        self.signum, self.at_step, self.steps = signum, at_step, 0

    def images_done(self, images):
        self.steps += 1
        if self.steps == self.at_step:
            os.kill(os.getpid(), self.signum)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        DeformConv2d(3, 8, stride=2, branch="ldc"),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(8, 3),
    )


def training(folder, epochs=3, lr=0.05, save_every=300.0, **settings):
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    model = network()
    return Training(
        model,
        Blobs(),
        sgd(model, lr=lr, momentum=0.9),
        lambda progress: lr / (1 + progress),
        run=Run(folder),
        settings=Settings(epochs=epochs, **settings),
        device=CPU,
        save_every=save_every,
    )


def without_times(rows):
    return [{k: v for k, v in r.items() if k not in ("images_per_s", "seconds")} for r in rows]


def test_a_run_leaves_metrics_checkpoints_matrices_and_offsets(tmp_path):
    result = training(tmp_path)(Silent())
    rows = Run(tmp_path).metrics()
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert result["final"]["test_top1"] == float(rows[-1]["test_top1"])
    assert result["best"]["test_top1"] == max(float(row["test_top1"]) for row in rows)
    confusion = np.load(tmp_path / "confusion.npz")
    assert confusion["class_names"].tolist() == ["low", "middle", "high"]
    assert confusion["test"].sum() == 24 and confusion["train"].sum() == 24
    assert 100 * np.trace(confusion["test"]) / 24 == pytest.approx(result["final"]["test_top1"])
    offsets = np.load(tmp_path / "offsets.npz")
    assert offsets["0.offset"].shape == (8, 18, 4, 4) and offsets["0.mask"].shape == (8, 9, 4, 4)
    assert float(rows[-1]["offset_max"]) >= float(rows[-1]["offset_mean"]) > 0


def test_offsets_that_leave_the_image_are_reported_once(tmp_path, caplog):
    caplog.set_level("WARNING", logger="lwbench")
    training(tmp_path / "good")(Silent())
    assert not caplog.records
    task = training(tmp_path / "lost")
    for parameter in task.model[0].offset_parameters():
        if parameter.ndim == 1:
            nn.init.constant_(parameter, 20.0)
    task(Silent())
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("offsets are 20 px on average in images of 8 px")
    assert "lower optimizer.offset_lr_factor" in message


def test_a_finished_training_resumes_to_the_same_result(tmp_path):
    first = training(tmp_path)(Silent())
    again = training(tmp_path)(Silent())
    assert again["final"] == first["final"]
    assert len(Run(tmp_path).metrics()) == 3


def test_the_rate_follows_the_schedule_and_the_offset_factor(tmp_path):
    task = training(tmp_path, epochs=1)
    task.step.optimizer = sgd(task.model, lr=0.05, offset_lr_factor=0.1)
    task(Silent())
    rate = 0.05 / (1 + 3 / 4)
    rates = {group["lr_factor"]: group["lr"] for group in task.step.optimizer.param_groups}
    assert rates == pytest.approx({1.0: rate, 0.1: 0.1 * rate})
    assert float(Run(tmp_path).metrics()[0]["lr"]) == pytest.approx(rate)


def test_divergence_is_a_named_error_with_the_offset_factor_as_hint(tmp_path):
    with pytest.raises(NonFiniteError, match=r"in epoch \d.*offset_lr_factor"):
        training(tmp_path, lr=1e30)(Silent())
    assert not (tmp_path / "result.json").exists()


def test_non_finite_offsets_end_in_the_named_error_not_in_a_crash(tmp_path):
    task = training(tmp_path)
    task.model[0].offset[1].bias.data.fill_(float("nan"))
    task.model[0].mask[1].bias.data.fill_(float("nan"))
    with pytest.raises(NonFiniteError):
        task(Silent())


def test_clipping_bounds_the_norm_of_all_gradients_together(tmp_path):
    task = training(tmp_path, epochs=1, clip_grad_norm=1e-3)
    task(Silent())
    norms = torch.stack([p.grad.norm() for p in task.model.parameters() if p.grad is not None])
    assert norms.norm() <= 1e-3 * 1.001


def test_bf16_trains_a_deformable_network_on_a_cpu(tmp_path):
    result = training(tmp_path, precision="bf16")(Silent())
    assert result["precision"] == "bf16" and np.isfinite(result["final"]["test_loss"])


def test_precision_auto_is_fp32_on_a_cpu_and_fp16_is_refused_there():
    assert resolved_precision("auto", CPU) == "fp32"
    with pytest.raises(UsageError, match="needs a GPU"):
        resolved_precision("fp16", CPU)


def test_evaluation_equals_a_hand_made_count():
    logits = torch.tensor([[3.0, 2.0, 1.0], [0.0, 5.0, 1.0], [1.0, 2.0, 3.0]])
    labels = torch.tensor([0, 0, 2])
    model = nn.Identity()
    found = evaluate(model, [(logits, labels)], 3, autocast=autocast("fp32", CPU))
    assert found.top1 == pytest.approx(200 / 3) and found.top5 == 100
    assert found.confusion.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert found.loss == pytest.approx(nn.functional.cross_entropy(logits, labels).item())


def test_evaluation_does_not_depend_on_the_batch_size():
    images = torch.randn(23, 7)
    labels = torch.randint(7, (23,))
    model = nn.Identity()
    found = [
        evaluate(
            model,
            zip(images.split(size), labels.split(size), strict=True),
            7,
            autocast=autocast("fp32", CPU),
        )
        for size in (1, 5, 23)
    ]
    assert len({(e.top1, e.top5) for e in found}) == 1
    assert found[0].loss == pytest.approx(found[2].loss, rel=1e-6)


def test_a_checkpoint_of_another_class_count_names_both(tmp_path):
    state = nn.Linear(8, 5).state_dict()
    with pytest.raises(UsageError, match=r"5 classes .* 3"):
        load_weights(nn.Linear(8, 3), {"model": state}, tmp_path / "x.pt")


def test_a_checkpoint_of_another_network_names_a_key(tmp_path):
    with pytest.raises(UsageError, match=r"2 missing \(weight, bias\)"):
        load_weights(nn.Linear(8, 3), {"model": {}}, tmp_path / "x.pt")


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
@pytest.mark.parametrize("key", ["model", "state_dict", None])
def test_weights_of_other_tools_load(prefix, key, tmp_path):
    source, target = nn.Linear(4, 2), nn.Linear(4, 2)
    state = {prefix + k: v for k, v in source.state_dict().items()}
    load_weights(target, {key: state} if key else state, tmp_path / "x.pt")
    assert target.weight.equal(source.weight)


@pytest.mark.parametrize(("most", "evaluated"), [(None, 32), (100, 32), (7, 7), (0, 0)])
def test_the_result_says_how_many_training_images_the_last_weights_saw(tmp_path, most, evaluated):
    run = training(tmp_path, epochs=1, train_evaluated=most)
    asked = []
    batches = run.data.eval_batches
    run.data.eval_batches = lambda split, most=None: asked.append((split, most)) or batches(split)
    result = run(Silent())
    assert result["train_evaluated"] == evaluated
    assert [most for split, most in asked if split == "train"] == [evaluated] * bool(evaluated)
    assert ("train" in np.load(tmp_path / "confusion.npz").files) == bool(evaluated)
