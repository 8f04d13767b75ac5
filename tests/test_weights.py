"""Weights in files of other tools: which are taken, what is refused, and what is said of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lwbench.cli import main
from lwbench.config import train_config
from lwbench.engine import checkpoint
from lwbench.engine.weights import load_weights, weights
from lwbench.errors import UsageError
from lwbench.registry import MODELS


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "model."]
)
@pytest.mark.parametrize("key", [None, "model", "state_dict", "model_state_dict", "net", "ema"])
def test_usual_wrappers_and_prefixes_are_removed(prefix, key, tmp_path):
    source, target = network(), network()
    state = prefixed(prefix, source.state_dict())
    torch.save({key: state, "epoch": 3} if key else state, tmp_path / "x.pt")
    load_weights(target, checkpoint.load(tmp_path / "x.pt"), tmp_path / "x.pt")
    assert target[0].weight.equal(source[0].weight)


def test_a_prefix_that_the_network_has_stays():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = network()

    source, target = Wrapped(), Wrapped()
    load_weights(target, {"state_dict": source.state_dict()}, Path("x.pt"))
    assert target.model[0].weight.equal(source.model[0].weight)


def test_of_raw_and_averaged_weights_the_raw_are_taken_and_it_is_said():
    raw, averaged, target = network(), network(), network()
    state = {"state_dict": raw.state_dict(), "state_dict_ema": averaged.state_dict()}
    remark = load_weights(target, state, Path("x.pt"))
    assert target[0].weight.equal(raw[0].weight)
    assert remark == "weights under 'state_dict'; not used: 'state_dict_ema'"


def test_averaged_weights_alone_are_taken_and_it_is_said():
    averaged = network()
    found, remark = weights({"state_dict_ema": averaged.state_dict()}, averaged.state_dict())
    assert found.keys() == averaged.state_dict().keys()
    assert remark == "averaged weights, under 'state_dict_ema'"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(value):
    broken = network()
    with torch.no_grad():
        broken[1].weight[2] = value
    with pytest.raises(UsageError, match=r"not finite, first in '1\.weight'"):
        load_weights(network(), broken.state_dict(), Path("x.pt"))


@pytest.mark.parametrize("number", [np.float64(71.5), np.float32(2), np.int64(3), np.bool_(True)])
def test_a_numpy_number_beside_the_weights_is_read(number, tmp_path):
    torch.save({"state_dict": network().state_dict(), "top1": number}, tmp_path / "x.pt")
    assert checkpoint.load(tmp_path / "x.pt")["top1"] == number.item()


class Recorder:
    """An object of a class, as tools pickle their settings."""


@pytest.mark.parametrize("thing", [Recorder(), Path("x"), np.random.default_rng(0)])
def test_other_objects_are_named_with_what_to_save_instead(thing, tmp_path):
    torch.save({"state_dict": network().state_dict(), "extra": thing}, tmp_path / "x.pt")
    with pytest.raises(UsageError) as found:
        checkpoint.load(tmp_path / "x.pt")
    message = str(found.value)
    assert "holds an object of type" in message and "torch.save(model.state_dict()" in message
    assert "\x1b" not in message


def test_a_numpy_object_scalar_runs_nothing(tmp_path):
    torch.save({"x": np.array([Recorder()], dtype=object)}, tmp_path / "x.pt")
    with pytest.raises(UsageError):
        checkpoint.load(tmp_path / "x.pt")


def evaluated(state, tmp_path):
    torch.save(state, tmp_path / "weights.pt")
    return main(["eval", "model=mb0", f"checkpoint={tmp_path / 'weights.pt'}", "device=cpu"])


def test_eval_says_which_weights_it_took_and_refuses_broken_ones(tmp_path, capsys):
    model = MODELS.build(train_config(["model=mb0"]).model.spec, 10)
    state = model.state_dict()
    assert evaluated({"state_dict": state, "state_dict_ema": state}, tmp_path) == 0
    assert "not used: 'state_dict_ema'" in capsys.readouterr().out
    name = next(name for name, value in state.items() if value.is_floating_point())
    state[name] = torch.full_like(state[name], float("nan"))
    assert evaluated(state, tmp_path) == 2
    assert "not finite" in capsys.readouterr().err


def test_a_figure_that_is_not_finite_is_no_success(tmp_path, capsys):
    state = MODELS.build(train_config(["model=mb0"]).model.spec, 10).state_dict()
    state["classifier.bias"][:2] = torch.tensor([3e38, -3e38])  # finite; their difference is not
    assert evaluated(state, tmp_path) == 1
    assert "means nothing" in capsys.readouterr().err


@pytest.mark.parametrize("label", ["no", "on", "1", "2.50", "true"])
def test_a_label_that_yaml_takes_for_a_value_is_to_be_quoted(label, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(f"rows:\n  - {{label: {label}, run: model=mb0}}\n")
    assert main(["table", f"table={tmp_path / 'mine.yaml'}"]) == 2
    message = capsys.readouterr().err
    assert "put it in quotes" in message and "label" in message
