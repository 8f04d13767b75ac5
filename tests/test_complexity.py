"""Claims about what a network costs, each against published digits or a closed form."""

import dataclasses
import json
import logging
import sys
from importlib import metadata

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.ops import DeformConv2d as TorchvisionDeformConv2d

from lwbench.errors import UsageError
from lwbench.layers.deform import DeformConv2d
from lwbench.measure import counters
from lwbench.measure.complexity import complexity, count
from lwbench.measure.counters import compared, flop_counter_macs, thop_macs, thop_not_covered
from lwbench.measure.rules import RULES
from lwbench.measure.walk import walked
from lwbench.registry import MODELS

# fmt: off
LDC_TABLE_4 = {  # row: arguments, printed params and MACs, and the MACs to four digits more
    "mb0":  ({},                                         "2.51", "63.4", 63.4181),
    "DC0":  ({"stem": "dc"},                             "2.51", "72.9", 72.9014),
    "LDC0": ({"stem": "ldc"},                            "2.51", "65.5", 65.5255),
    "LDC1": ({"stem": "ldc", "drop_layers": [6]},        "2.48", "60.4", 60.3737),
    "LDC2": ({"stem": "ldc", "drop_layers": [11]},       "2.38", "59.3", 59.2689),
    "LDC3": ({"stem": "ldc", "drop_layers": [6, 11]},    "2.35", "54.1", 54.1171),
}
# fmt: on


def mobilenet_ldc(**arguments: object) -> nn.Module:
    return MODELS.build({"builder": "mobilenet_ldc", **arguments}, 1000)


class Function(nn.Module):
    """A module whose forward is a function, with a weight to give it."""

    def __init__(self, function, *weight: int) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.zeros(weight)) if weight else None

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x) if self.weight is None else self.function(x, self.weight)


@pytest.mark.parametrize("row", LDC_TABLE_4)
def test_ldc_table_4_is_met_to_the_printed_digits(row):
    arguments, params, macs, four_digits = LDC_TABLE_4[row]
    cost = count(mobilenet_ldc(**arguments))
    assert f"{cost.params / 1e6:.2f}" == params
    assert f"{cost.macs['thop2020'] / 1e6:.1f}" == macs
    assert round(cost.macs["thop2020"] / 1e6, 4) == four_digits
    assert not cost.unknown


def test_both_readings_of_the_low_cost_branch_tie_under_thop2020():
    separate, shared = (
        count(mobilenet_ldc(stem="ldc", offsets=offsets)) for offsets in ("separate", "shared")
    )
    assert separate.params == shared.params
    assert separate.macs["thop2020"] == shared.macs["thop2020"]
    assert separate.macs["plain"] != shared.macs["plain"]


# A 3 -> 4 convolution with bias on 8 x 8: 256 outputs of 27 products; x itself has 192 elements.
CONV, BIAS, X, Y = 256 * 27, 256, 3 * 64, 256
# fmt: off
CLOSED_FORMS = {  # layers: plain, conv_only, thop2020, torchstat, ptflops
    "conv with bias":    ([nn.Conv2d(3, 4, 3, padding=1)], CONV, CONV, *[CONV + BIAS] * 3),
    "conv without bias": ([nn.Conv2d(3, 4, 3, padding=1, bias=False)], *[CONV] * 5),
    "grouped conv":      ([nn.Conv2d(3, 6, 3, padding=1, groups=3, bias=False)], *[6 * 64 * 9] * 5),
    "linear with bias":  ([nn.Flatten(), nn.Linear(X, 5)], 5 * X, 0, 5 * X, 5 * X, 5 * X + 5),
    "linear, no bias":   ([nn.Flatten(), nn.Linear(X, 5, bias=False)], 5 * X, 0, *[5 * X] * 3),
    # torchstat stops at inputs that are not (N, features); ptflops adds the bias once, not per row
    "linear on rows":    ([nn.Linear(8, 5)], 24 * 40, 0, 24 * 40, 0, 24 * 40 + 5),
    "BatchNorm2d":       ([nn.BatchNorm2d(3)], 0, 0, *[2 * X] * 3),
    "bare BatchNorm2d":  ([nn.BatchNorm2d(3, affine=False)], 0, 0, 2 * X, X, X),
    "BatchNorm1d":       ([nn.Flatten(), nn.BatchNorm1d(X)], 0, 0, 2 * X, 0, 2 * X),
    "ReLU":              ([nn.ReLU()], 0, 0, 0, X, X),
    "ReLU in place":     ([nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.ReLU(True)],
                          CONV, CONV, CONV, CONV + Y, CONV + Y),
    "ReLU6":             ([nn.ReLU6()], 0, 0, 0, X, X),
    "PReLU":             ([nn.PReLU(3)], 0, 0, 0, X, X),
    "Hardswish":         ([nn.Hardswish()], *[0] * 5),
    "Sigmoid":           ([nn.Sigmoid()], *[0] * 5),
    "MaxPool2d":         ([nn.MaxPool2d(2)], 0, 0, 0, X, X),
    "AvgPool2d":         ([nn.AvgPool2d(2)], 0, 0, X // 4, X, X),
    "AdaptiveAvgPool2d": ([nn.AdaptiveAvgPool2d(1)], 0, 0, X + 3, 0, X),
    "adaptive to 2 x 2": ([nn.AdaptiveAvgPool2d(2)], 0, 0, X + 12, 0, X),
    "Conv1d":            ([nn.Flatten(2), nn.Conv1d(3, 4, 1)],
                          256 * 3, 256 * 3, 256 * 4, 0, 256 * 4),
    "F.relu":            ([Function(F.relu)], *[0] * 5),
    "F.avg_pool2d":      ([Function(lambda x: F.avg_pool2d(x, 8))], *[0] * 5),
    "x.mean":            ([Function(lambda x: x.mean((2, 3)))], *[0] * 5),
    "F.conv2d":          ([Function(F.conv2d, 4, 3, 3, 3)], 36 * 4 * 27, 36 * 4 * 27, 0, 0, 0),
    "F.linear":          ([Function(F.linear, 5, 8)], 24 * 40, 0, 0, 0, 0),
    "attention's @":     ([Function(lambda x: x @ x.mT)], X * 8, 0, 0, 0, 0),
    "fused attention":   ([Function(lambda x: F.scaled_dot_product_attention(x, x, x))],
                          2 * X * 8, 0, 0, 0, 0),
    # both tools multiply the kernel with the output's size, and torchstat does not know the layer
    "transposed conv":   ([nn.ConvTranspose2d(3, 4, 2, 2)],
                          X * 16, X * 16, 1024 * 13, 0, 1024 * 13),
}
# fmt: on


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_each_rule_counts_a_layer_by_its_closed_form(name):
    layers, *expected = CLOSED_FORMS[name]
    cost = count(nn.Sequential(*layers), image_size=8)
    rules = ("plain", "conv_only", "thop2020", "torchstat", "ptflops")
    assert {rule: cost.macs[rule] for rule in rules} == dict(zip(rules, expected, strict=True))
    assert not cost.unknown
    assert set(cost.macs) == set(RULES) == {*rules, "fvcore"}  # fvcore: test_golden_rules.py


def test_mbv1_worked_example_is_met():
    ordinary = nn.Conv2d(64, 128, 3, padding=1, bias=False)
    separable = nn.Sequential(
        nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False), nn.Conv2d(64, 128, 1, bias=False)
    )
    counts = [
        count(net, image_size=112, in_channels=64).macs["plain"] for net in (ordinary, separable)
    ]
    assert counts == [924_844_032, 109_985_792]


def test_vgg16_is_met_under_three_rules():
    with torch.device("meta"):
        model = torchvision.models.vgg16()
    cost = count(model)
    assert cost.params == 138_357_544
    assert round(cost.macs["conv_only"] / 1e6, 1) == 15346.6
    assert round(cost.macs["plain"] / 1e6, 1) == 15470.3
    # complexity of hsnet's table 3 less the adaptive pooling, which maps 7 x 7 to itself
    assert round((cost.macs["thop2020"] - 2 * 25088) / 1e9, 6) == 15.483812


def test_mobilenet_v2_is_met_under_four_rules_and_by_both_other_counters():
    model = torchvision.models.mobilenet_v2()
    cost = count(model)
    assert cost.macs["plain"] == flop_counter_macs(model)
    assert round(cost.macs["plain"] / 1e6, 2) == 300.77
    assert round(cost.macs["ptflops"] / 1e6, 2) == 320.24
    assert thop_macs(model)[1] == cost.params == 3_504_872
    assert round(thop_macs(model)[0] / 1e6, 2) == 327.49


def test_the_installed_thop_counts_mb0_otherwise_than_the_paper():
    macs, params = thop_macs(mobilenet_ldc())
    assert round(macs / 1e6, 2) == 66.67
    assert params == 2_509_748


def test_ultralytics_thop_is_refused_with_the_reason(monkeypatch, caplog):
    monkeypatch.setattr(metadata, "distribution", lambda name: name)
    with caplog.at_level(logging.WARNING):
        assert compared(nn.Conv2d(3, 4, 3), 8)["thop"] is None
    assert "ultralytics-thop is installed" in caplog.text


def test_a_failing_thop_blanks_its_figure_alone(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "thop", None)
    with caplog.at_level(logging.WARNING):
        assert compared(nn.Conv2d(3, 4, 3), 8) == {"thop": None, "flop_counter": 36 * 4 * 27}
    assert "no count by thop" in caplog.text


@pytest.mark.parametrize("counter", ["thop", "flop_counter"])
def test_a_failing_counter_blanks_its_figure_alone(counter, monkeypatch, caplog):
    def fails(*arguments):
        raise AssertionError("this counter\nis broken")

    monkeypatch.setattr(counters, f"{counter}_macs", fails)
    with caplog.at_level(logging.WARNING):
        found = compared(nn.Sequential(nn.Conv2d(3, 4, 3)), 8)
    assert f"no count by {counter}: AssertionError: this counter" in caplog.text
    other = "flop_counter" if counter == "thop" else "thop"
    assert found == {counter: None, other: 36 * 4 * 27}


@pytest.mark.parametrize("branch", ["dc", "ldc"])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_deformable_layer_counts_as_its_convolution_and_branches(branch, stride):
    layer = DeformConv2d(4, 6, 3, stride=stride, groups=2, branch=branch)
    cost = count(layer, image_size=8, in_channels=4)
    positions = (8 // stride) ** 2
    main = positions * 6 * 2 * 9
    separable = 2 * 4 * 9 + 4 * 27
    branches = positions * (4 * 27 * 9 if branch == "dc" else separable)
    biases = positions * (27 if branch == "dc" else 27 + 2 * 4)
    assert cost.macs["plain"] == cost.macs["conv_only"] == main + branches
    assert cost.macs["thop2020"] == cost.macs["torchstat"] == main + branches + biases
    assert cost.deform_sampling == positions * 9 * 4 * 5
    assert flop_counter_macs(layer, 8, 4) == main + branches
    assert sum(record.params for record in cost.layers) == cost.params


@pytest.mark.parametrize("masked", [True, False])
def test_torchvisions_deformable_operator_is_counted_under_plain(masked):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset = nn.Conv2d(3, 18, 3, padding=1)
            self.conv = TorchvisionDeformConv2d(3, 16, 3, padding=1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            mask = x.mean(1, keepdim=True).expand(-1, 9, -1, -1) if masked else None
            return self.conv(x, self.offset(x), mask)

    cost = count(Net(), image_size=8)
    assert cost.macs["plain"] == 64 * 27 * (18 + 16)
    # the tools do not know torchvision's layer: they count the offsets' convolution, and we say so
    for rule in ("thop2020", "torchstat", "ptflops"):
        assert cost.macs[rule] == 64 * 27 * 18 + 64 * 18
        assert cost.not_covered[rule]["DeformConv2d"] == 1
    assert cost.deform_sampling == 64 * 9 * 3 * (5 if masked else 4)
    assert flop_counter_macs(Net(), 8) == cost.macs["plain"]
    assert not cost.unknown


def test_our_deformable_layer_is_named_where_only_the_installed_thop_misses_it():
    pytest.importorskip("thop")
    walk = walked(mobilenet_ldc(stem="ldc"), (3, 64, 64))
    assert thop_not_covered(walk)["DeformConv2d"] == 1
    assert not any("DeformConv2d" in classes for classes in complexity(walk).not_covered.values())


def test_an_operator_that_no_rule_knows_is_reported():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), Function(lambda x: torch.fft.rfft2(x).real))
    cost = count(net, image_size=8)
    assert cost.unknown == {"aten._fft_r2c": 1}
    assert cost.macs["plain"] == 36 * 4 * 27
    assert cost.macs["fvcore"] == 36 * 4 * 27


def test_a_custom_operator_without_a_meta_kernel_runs_on_the_cpu_and_is_reported():
    @torch.library.custom_op("lwbench_test::doubled", mutates_args=())
    def doubled(x: Tensor) -> Tensor:
        return 2 * x

    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), Function(lambda x: doubled(x)))
    cost = count(net, image_size=8)
    assert cost.unknown == {"lwbench_test.doubled": 1}
    assert cost.macs["plain"] == 36 * 4 * 27


def test_a_tensor_outside_the_state_does_not_hinder_the_count():
    net = Function(F.conv2d, 4, 3, 3, 3)
    scale = torch.ones(3, 1, 1)
    both = nn.Sequential(Function(lambda x: x * scale + float(scale.sum())), net)
    assert count(both, image_size=8).macs["plain"] == 36 * 4 * 27


def test_train_and_eval_mode_count_the_same_and_the_mode_stays():
    model = mobilenet_ldc(stem="ldc", dropout=0.2)
    in_training = count(model.train(), image_size=64)
    assert all(module.training for module in model.modules())
    assert in_training == count(model.eval(), image_size=64)
    assert not any(module.training for module in model.modules())


def test_counting_leaves_the_network_and_the_random_stream_alone():
    model = mobilenet_ldc(stem="dc").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()
    count(model, image_size=64)
    thop_macs(model, 64)
    flop_counter_macs(model, 64)
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(p.grad is None and p.device.type == "cpu" for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any("forward" in vars(module) for module in model.modules())
    assert torch.equal(random, torch.get_rng_state())


def test_layers_add_up_to_the_totals():
    cost = count(mobilenet_ldc(stem="ldc"), image_size=64)
    assert sum(layer.params for layer in cost.layers) == cost.params
    for rule, total in cost.macs.items():
        assert sum(layer.macs[rule] for layer in cost.layers) == total
    first = cost.layers[0]
    assert (first.name, first.in_shape) == ("stem.conv.offset.0", [1, 3, 64, 64])
    stem = next(layer for layer in cost.layers if layer.type == "DeformConv2d")
    assert (stem.params, stem.out_shape) == (16 * 27, [1, 16, 32, 32])


def test_a_module_called_twice_counts_twice_and_its_parameters_once():
    shared = nn.Conv2d(3, 3, 1, bias=False)
    cost = count(nn.Sequential(shared, nn.ReLU(), shared), image_size=8)
    assert (cost.params, cost.macs["plain"]) == (9, 2 * 64 * 9)


def test_parameters_that_no_call_reaches_are_listed():
    net = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False))
    net.add_module("spare", Function(lambda x, weight: x, 7))
    net[1].unused = nn.Linear(2, 3)
    cost = count(net, image_size=8)
    assert sum(layer.params for layer in cost.layers) == cost.params == 12 + 7 + 9


def test_activations_are_the_outputs_of_convolutions_and_linear_layers():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    assert count(net, image_size=8).activations == 144 + 5


def test_the_peak_is_the_largest_sum_of_living_tensors():
    net = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU(True), nn.Conv2d(4, 2, 1))
    cost = count(net, image_size=8)
    # weights, and in the first convolution input and output; the second keeps 4 + 2 maps only
    assert cost.peak_bytes == 4 * (12 + 8 + 2) + 4 * 64 * (3 + 4)
    # ReLU in place keeps its output, which is the second convolution's input; the first's is x
    assert cost.saved_bytes == 4 * 64 * (3 + 4)


def test_a_shortcut_keeps_its_tensor_alive():
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv(self.conv(x))

    assert count(Residual(), image_size=8, in_channels=4).peak_bytes == 64 + 3 * 4 * 4 * 64


def test_training_memory_grows_with_the_batch_and_the_optimizer():
    model = mobilenet_ldc(stem="ldc", drop_layers=[6, 11])
    at_224, at_32 = count(model), count(model, image_size=32)
    one, two = at_224.training_bytes(64), at_224.training_bytes(128)
    fixed = 4 * (3 * at_224.params + at_224.buffers)
    assert two - one == one - fixed > 0
    adam = at_32.training_bytes(128, optimizer_states_per_param=2)
    assert adam - at_32.training_bytes(128) == 4 * at_32.params
    # peaks measured on a CPU, 0.75 GiB of interpreter and libraries taken off: within a quarter at
    # 224 px, where tensors dominate
    assert two / 2**30 == pytest.approx(3.7 - 0.75, rel=0.25)


def test_counts_are_plain_numbers_for_json():
    cost = count(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1)), image_size=8)
    assert json.loads(json.dumps(dataclasses.asdict(cost))) == dataclasses.asdict(cost)


def test_an_image_that_the_network_cannot_take_is_a_usage_error():
    with pytest.raises(UsageError, match="does not run on a 3 x 8 x 8 image"):
        count(nn.Sequential(nn.Conv2d(3, 4, 9)), image_size=8)
    with pytest.raises(UsageError, match="1 x 32 x 32"):
        flop_counter_macs(mobilenet_ldc(), 32, 1)


def test_a_network_without_data_is_counted():
    with torch.device("meta"):
        model = mobilenet_ldc()
    assert count(model) == count(mobilenet_ldc())


def test_attention_and_norms_of_transformers_leave_nothing_unknown():
    with torch.device("meta"):
        models = [torchvision.models.vit_b_32(), torchvision.models.swin_t()]
    for model in models:
        cost = count(model)
        assert not cost.unknown
        assert cost.macs["plain"] == flop_counter_macs(model)
