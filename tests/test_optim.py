"""Which parameters decay, and at which rate they train."""

import pytest
from torch import nn

from lwbench.engine.optimizers import parameter_groups
from lwbench.errors import UsageError
from lwbench.layers.deform import DeformConv2d
from lwbench.registry import OPTIMIZERS


def network():
    return nn.Sequential(
        DeformConv2d(3, 8, stride=2, branch="ldc"),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Linear(8, 2),
    )


def decayed(model, **switches):
    options = {"decay_norm_bias": True, "decay_depthwise": True, "offset_lr_factor": 1.0} | switches
    groups = parameter_groups(model, weight_decay=0.1, **options)
    return {id(p) for group in groups if group["weight_decay"] for p in group["params"]}


def test_every_parameter_is_in_exactly_one_group():
    model = network()
    groups = parameter_groups(
        model, weight_decay=0.1, decay_norm_bias=False, decay_depthwise=False, offset_lr_factor=0.1
    )
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())


def test_norms_and_biases_can_be_left_undecayed():
    model = network()
    ids = decayed(model, decay_norm_bias=False)
    assert id(model[1].weight) not in ids and id(model[3].bias) not in ids
    assert id(model[3].weight) in ids and id(model[2].weight) in ids


def test_depthwise_kernels_can_be_left_undecayed_apart_from_norms():
    model = network()
    ids = decayed(model, decay_depthwise=False)
    assert id(model[2].weight) not in ids
    assert id(model[1].weight) in ids and id(model[2].bias) in ids


def test_offset_and_mask_parameters_train_at_their_own_rate():
    model = network()
    groups = parameter_groups(
        model, weight_decay=0.1, decay_norm_bias=True, decay_depthwise=True, offset_lr_factor=0.1
    )
    slow = {id(p) for group in groups if group["lr_factor"] == 0.1 for p in group["params"]}
    assert slow == {id(p) for p in model[0].offset_parameters()}
    assert id(model[0].conv.weight) not in slow


@pytest.mark.parametrize("builder", ["sgd", "rmsprop", "adamw"])
def test_every_optimizer_makes_a_step(builder):
    model = nn.Linear(3, 2)
    before = model.weight.clone()
    optimizer = OPTIMIZERS.build({"builder": builder, "lr": 0.1}, model)
    model.weight.grad, model.bias.grad = before * 0 + 1, model.bias * 0 + 1
    optimizer.step()
    assert not before.equal(model.weight)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"lr": -1.0}, "optimizer.lr=-1.0: input should be greater than 0"),
        ({"lr": "abc"}, "optimizer.lr='abc'"),
        ({"lr": 0.1, "momentun": 0.9}, "unknown key 'optimizer.momentun'; nearest: momentum"),
        ({"lr": 0.1, "momentum": 0.0, "nesterov": True}, "needs optimizer.momentum above 0"),
        ({"lr": float("nan")}, "optimizer.lr=nan"),
    ],
)
def test_wrong_values_are_named(config, words):
    with pytest.raises(UsageError, match=words):
        OPTIMIZERS.build({"builder": "sgd", **config}, nn.Linear(1, 1))
