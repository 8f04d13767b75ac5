"""Claims about every network of conf/model: its YAML, its gradients, its state; and counts."""

import inspect
import re
from pathlib import Path

import pytest
import torch
import yaml

from lwbench.errors import UsageError
from lwbench.measure.complexity import count
from lwbench.registry import MODELS

CONF = Path(__file__).parents[1] / "conf" / "model"
NAMES = sorted(p.stem for p in CONF.glob("*.yaml") if p.stem != "file")  # of the user's
# above 1 GMAC at 224 px: their gradients take seconds to minutes on a CPU core
HEAVY = re.compile(r"cifar|vgg|resnet|resnext|googlenet|torchvision|timm|width16")


def config(name: str) -> dict:
    """What Hydra makes of conf/model/<name>.yaml; a recipe's dropout becomes 0.1."""
    own = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    merged: dict = {}
    for parent in own.pop("defaults", ["_self_"]):
        merged |= own if parent == "_self_" else config(parent)
    interpolated = [k for k, v in merged.items() if isinstance(v, str) and v.startswith("${")]
    return merged | dict.fromkeys(interpolated, 0.1)


def build(name: str, num_classes: int = 10, **changes: object) -> torch.nn.Module:
    arguments = config(name) | changes
    if arguments["builder"] == "timm":
        pytest.importorskip("timm")
    torch.manual_seed(0)
    return MODELS.build(arguments, num_classes)


def assert_trains(model: torch.nn.Module, num_classes: int, size: int) -> None:
    """One step's gradients are there and finite, and evaluation survives a state-dict round trip.

    Zero is finite: the depthwise half of a low-cost offset branch gets zero gradient at first, as
    its pointwise half starts at zero.
    """
    torch.manual_seed(0)
    x = torch.randn(2, 3, size, size)
    logits = model.train()(x)
    assert logits.shape == (2, num_classes)
    torch.nn.functional.cross_entropy(logits, torch.tensor([1, 7])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        before = model.eval()(x)
        for parameter in model.parameters():
            parameter.add_(1.0)
        model.load_state_dict(state)
        assert torch.equal(model(x), before)


def marked(names: list[str]) -> list:
    slow = pytest.mark.slow
    return [pytest.param(n, marks=slow) if HEAVY.search(n) else n for n in names]


@pytest.mark.parametrize("name", NAMES)
def test_yaml_names_exactly_the_builders_arguments(name):
    arguments = config(name)
    builder = MODELS.builder(arguments.pop("builder"))
    parameters = inspect.signature(builder).parameters.values()
    assert set(arguments) == {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}


@pytest.mark.parametrize("name", NAMES)
def test_yaml_begins_with_a_line_that_says_what_it_is(name):
    first = (CONF / f"{name}.yaml").read_text().splitlines()[0]
    assert re.match(r"# \S.{10,}", first)
    assert len(first) <= 100


@pytest.mark.parametrize("num_classes", [10, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", marked(NAMES))
def test_gradients_are_finite_and_state_survives_at_32_px(name, num_classes):
    assert_trains(build(name, num_classes), num_classes, 32)


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("name", [n for n in NAMES if not HEAVY.search(n)])
def test_gradients_are_finite_and_state_survives_at_larger_sizes(name, size):
    assert_trains(build(name), 10, size)


@pytest.mark.parametrize(
    "stem, offsets", [("dc", "separate"), ("ldc", "separate"), ("ldc", "shared")]
)
@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv1_025",
        "mobilenetv1_simple_preact",
        "mobilenetv2",
        "mobilenetv3_small",
        "shufflenetv1_g1",
        "shufflenetv2_05",
        "squeezenet_11",
        "torchvision",
    ],
)
def test_a_deformable_stem_replaces_any_stem(name, stem, offsets):
    plain = build(name)
    deformable = build(name, stem=stem, offsets=offsets)
    shape = plain.eval()(torch.zeros(2, 3, 32, 32)).shape
    assert deformable.eval()(torch.zeros(2, 3, 32, 32)).shape == shape
    assert_trains(deformable, 10, 32)


# fmt: off
COUNTS = {  # parameters, rule, MACs in millions at 224 px with 1000 classes
    "mobilenetv1":               (4231976, "plain",     568.740),
    "mobilenetv1_075":           (2585560, "plain",     325.400),
    "mobilenetv1_05":            (1331592, "plain",     149.497),
    "mobilenetv1_025":           ( 470072, "plain",      41.030),
    "mobilenetv1_simple":        (4231976, "plain",     568.740),
    "mobilenetv1_full":          (4934312, "plain",     697.191),
    "mobilenetv1_simple_preact": (4231976, "plain",     568.740),
    "mobilenetv1_full_preact":   (4930344, "plain",     697.191),
    "mobilenetv2":               (3504872, "plain",     300.774),
    "mobilenetv3_large":         (5476416, "plain",     219.799),
    "mobilenetv3_small":         (2938368, "plain",      60.120),
    "shufflenetv1_g1":           (1531936, "conv_only", 142.503),
    "shufflenetv1_g2":           (1733848, "conv_only", 140.037),
    "shufflenetv1_g3":           (1865728, "conv_only", 136.501),
    "shufflenetv1_g4":           (1968344, "conv_only", 133.252),
    "shufflenetv1_g8":           (2434768, "conv_only", 136.830),
    "shufflenetv1_05_g8":        (1011448, "conv_only",  39.702),  # the authors' code: 40 M, 1.0 M
    "shufflenetv2_05":           (1366792, "plain",      40.476),
    "shufflenetv2_1":            (2279760, "plain",     145.814),
    "shufflenetv2_15":           (3507720, "plain",     298.971),
    "shufflenetv2_2":            (7403600, "plain",     590.783),
    "squeezenet_10":             (1248424, "plain",     818.925),
    "squeezenet_11":             (1235496, "plain",     349.152),
    "vgg16":                   (138357544, "plain",   15470.264),
    "vgg11":                   (132863336, "plain",    7609.090),
    "googlenet":                 (6624904, "plain",    1498.376),
    "resnet50":                 (25557032, "plain",    4089.184),
}
# fmt: on


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_those_of_the_published_network(name):
    params, rule, macs = COUNTS[name]
    with torch.device("meta"):
        cost = count(build(name, 1000))
    assert cost.params == params
    assert round(cost.macs[rule] / 1e6, 3) == macs
    assert not cost.unknown


@pytest.mark.parametrize("size, macs", [(192, 418.122), (160, 290.675), (128, 186.401)])
def test_mobilenetv1_costs_less_at_lower_resolutions(size, macs):
    with torch.device("meta"):
        cost = count(build("mobilenetv1", 1000), image_size=size)
    assert round(cost.macs["plain"] / 1e6, 3) == macs


@pytest.mark.parametrize("builder", ["torchvision", "timm"])
def test_an_unknown_external_network_is_answered_with_its_neighbours(builder):
    if builder == "timm":
        pytest.importorskip("timm")
    with pytest.raises(UsageError, match="resnet50"):
        MODELS.build({"builder": builder, "arch": "resnet5o"}, 10)


def test_a_rate_for_a_network_without_dropout_is_refused():
    with pytest.raises(UsageError, match="resnet18 has no dropout"):
        MODELS.build({"builder": "torchvision", "arch": "resnet18", "dropout": 0.3}, 10)


def test_a_dropout_rate_reaches_an_external_network():
    model = build("googlenet", dropout=0.35)
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.35}


def test_a_shufflenetv2_width_that_the_paper_lacks_is_refused():
    with pytest.raises(UsageError, match=r"model\.width=0\.7"):
        MODELS.build({"builder": "shufflenetv2", "width": 0.7}, 10)


def test_a_network_without_a_plain_stem_refuses_a_deformable_one():
    with pytest.raises(UsageError, match="does not begin with a plain convolution"):
        build("timm", arch="tf_efficientnet_b0", stem="dc", dropout=None)
