"""GhostNet: its counts in both releases, and timm's output from the same weights."""

import pytest
import torch
from torch import nn

from lwbench.measure.complexity import count
from lwbench.models.ghostnet import BLOCKS, GhostExcite, ghostnet


def test_early_release_has_the_macs_that_hsnet_prints():
    cost = count(ghostnet(100))
    assert f"{cost.macs['torchstat'] / 1e6:.2f}" == "149.23"
    assert f"{cost.params / 1e6:.1f}" == "4.0"
    assert not cost.unknown


def test_official_release_counts_more_and_so_is_not_the_one_that_hsnet_prints():
    macs = count(ghostnet(100, release="official")).macs["torchstat"]
    assert f"{macs / 1e6:.2f}" == "149.52"


@pytest.mark.parametrize("width, params, macs", [(0.5, "2.6", "42"), (1.0, "5.2", "141")])
def test_paper_figures_of_both_widths(width, params, macs):
    """The GhostNet paper, table 7, with 1000 classes."""
    cost = count(ghostnet(1000, width=width, release="official"))
    assert f"{cost.params / 1e6:.1f}" == params
    assert f"{cost.macs['plain'] / 1e6:.0f}" == macs


def test_early_gates_start_open_for_some_channels():
    torch.manual_seed(0)
    gate = GhostExcite(64, release="early")
    assert 0 < (gate(torch.ones(1, 64, 2, 2)) > 0).float().mean() < 1
    model = ghostnet(10)
    biases = [m.expand.bias for m in model.modules() if isinstance(m, GhostExcite)]
    assert all(bias.abs().max() > 0.01 for bias in biases)


def timm_names() -> list[tuple[str, str]]:
    """(prefix of ours, prefix of timm's), for the official release."""
    names = [("stem.conv", "conv_stem"), ("stem.norm", "bn1")]
    # the blocks of one of the paper's stages are one Sequential, and each stride starts a new one
    places = [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0)]
    places += [(6, i) for i in range(5)] + [(7, 0)] + [(8, i) for i in range(4)]
    halves = [("primary", "primary_conv"), ("cheap", "cheap_operation")]
    inner = [
        (f"{ghost}.{ours}.{part}", f"{ghost}.{theirs}.{index}")
        for ghost in ("ghost1", "ghost2")
        for ours, theirs in halves
        for index, part in enumerate(("conv", "norm"))
    ]
    inner += [("depthwise.conv", "conv_dw"), ("depthwise.norm", "bn_dw")]
    inner += [("se.reduce", "se.conv_reduce"), ("se.expand", "se.conv_expand")]
    shortcut = ("0.conv", "0.norm", "1.conv", "1.norm")
    inner += [(f"shortcut.{ours}", f"shortcut.{index}") for index, ours in enumerate(shortcut)]
    for index, (stage, block) in enumerate(places):
        names += [
            (f"blocks.{index}.{ours}", f"blocks.{stage}.{block}.{theirs}") for ours, theirs in inner
        ]
    names += [("head.conv", "blocks.9.0.conv"), ("head.norm", "blocks.9.0.bn1")]
    return [*names, ("hidden.0", "conv_head"), ("classifier", "classifier")]


@pytest.mark.parametrize("width, name", [(1.0, "ghostnet_100"), (0.5, "ghostnet_050")])
def test_official_release_gives_timms_output_from_the_same_weights(width, name):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=10).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):  # norms that do nothing would hide a swap
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    ours = ghostnet(10, width=width, release="official").eval()
    source, prefixes = theirs.state_dict(), {b: a for a, b in timm_names()}
    mapped = {}
    for key, value in source.items():
        prefix, _, leaf = key.rpartition(".")
        mapped[f"{prefixes[prefix]}.{leaf}"] = value
    ours.load_state_dict(mapped)  # strict: every tensor of both has its counterpart
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(x)
        assert expected.std() > 1e-3
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)


def test_releases_differ_where_the_text_says_and_nowhere_else():
    early, official = ghostnet(10), ghostnet(10, release="official")
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (early, official)]
    parts = {k for k in shapes[0].keys() | shapes[1].keys() if shapes[0].get(k) != shapes[1].get(k)}
    assert parts
    assert all(".se." in k or "shortcut.0.conv" in k or k.startswith("hidden.") for k in parts)
    assert len(early.blocks) == len(BLOCKS) == 16
