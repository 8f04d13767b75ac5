"""A rule that bears a tool's name equals that tool: counts recorded by scripts/golden_rules.py."""

import json
from importlib import metadata
from pathlib import Path

import golden_networks
import pytest
from packaging.version import Version
from torch import nn

from lwbench.measure.complexity import count
from lwbench.measure.counters import thop_macs, thop_not_covered
from lwbench.measure.data_free import outline
from lwbench.measure.fvcore import NOT_COVERED
from lwbench.measure.rules import TOOLS
from lwbench.measure.walk import walked

GOLDEN = json.loads((Path(__file__).parent / "golden" / "rules.json").read_text(encoding="utf-8"))
CASES = GOLDEN["cases"]
# Classes that tools name as not known although they compute nothing, or only hold others.
SILENT = {
    "Sequential",
    "Flatten",
    "Identity",
    "Rows",
    "Volume",
    "First",
    "Parent",
    "Deformed",
    "Attention",
}
SILENT |= {"Dropout", "Dropout2d", "PixelShuffle", "ChannelShuffle", "ReflectionPad2d"}
SILENT |= {"ZeroPad2d", "TransformerEncoder", "TransformerEncoderLayer", "ModuleList"}
# not called: MultiheadAttention uses the weights of its last layer in a function
SILENT |= {"NonDynamicallyQuantizableLinear"}


def build(name: str) -> nn.Module:
    if name in golden_networks.LAYERS:
        return golden_networks.build(name)
    return outline(lambda: golden_networks.build(name))


@pytest.fixture(scope="module")
def costs():
    """Each case's counts, computed once for all rules."""
    found = {}

    def cost(name):
        if name not in found:
            found[name] = count(build(name), image_size=golden_networks.image_size(name))
        return found[name]

    return cost


def test_every_case_has_golden_values():
    names = [*golden_networks.LAYERS, *golden_networks.TORCHVISION, *golden_networks.OURS]
    assert list(CASES) == names
    assert all(set(case) == {*TOOLS, "thop", "fvcore"} for case in CASES.values())


@pytest.mark.parametrize("rule", [*TOOLS, "fvcore"])
@pytest.mark.parametrize("name", CASES)
def test_a_rule_counts_what_its_tool_counts(name, rule, costs):
    expected = CASES[name][rule]["macs"]
    cost = costs(name)
    if expected is None:  # the tool fails on this network: a layer is named that it stops at
        assert cost.not_covered[rule]
    else:
        assert cost.macs[rule] == expected


@pytest.mark.parametrize("rule", TOOLS)
@pytest.mark.parametrize("name", golden_networks.LAYERS)
def test_what_a_tool_does_not_know_is_named(name, rule, costs):
    named = set(costs(name).not_covered[rule])
    golden = CASES[name][rule]
    if golden["macs"] is None:
        assert named
    elif rule == "torchstat":
        # it does not name classes that are called with several arguments, or have children
        assert set(golden["ignored"]) - SILENT <= named
    else:
        assert named == set(golden["ignored"]) - SILENT | mode_not_known(name, rule)


@pytest.mark.parametrize("name", golden_networks.LAYERS)
def test_what_fvcore_does_not_know_is_named(name, costs):
    named = set(costs(name).not_covered["fvcore"])
    golden = CASES[name]["fvcore"]
    if golden["macs"] is None:
        assert named
    else:
        # it lists additions and activations too, which no rule that looks at functions names
        ignored = {"conv2d" if f == "_convolution_mode" else f for f in golden["ignored"]}
        computing = {f.partition(".")[2] for f in NOT_COVERED} | {"conv2d"}
        assert named == ignored & computing


def mode_not_known(name: str, rule: str) -> set[str]:
    """thop warns of modes that it does not know in the log, not on its output."""
    unknown = ("Upsample, nearest-exact", "Upsample, trilinear")
    return {"Upsample"} if rule == "thop2020" and name in unknown else set()


def installed_thop_is_recorded() -> bool:
    recorded = GOLDEN["tools"]["thop"].partition("==")[2]
    return Version(metadata.version("thop")) == Version(recorded)


@pytest.mark.skipif(not installed_thop_is_recorded(), reason="another thop is installed")
@pytest.mark.parametrize("name", CASES)
def test_the_installed_thop_counts_as_on_its_own(name):
    macs, _ = thop_macs(build(name), golden_networks.image_size(name))
    assert macs == CASES[name]["thop"]["macs"]


@pytest.mark.skipif(not installed_thop_is_recorded(), reason="another thop is installed")
@pytest.mark.parametrize("name", golden_networks.LAYERS)
def test_what_the_installed_thop_does_not_know_is_named(name):
    walk = walked(build(name), (3, 8, 8))
    assert set(thop_not_covered(walk)) == set(CASES[name]["thop"]["ignored"]) - SILENT
