"""Same weights, same output: our networks against torchvision's, or the difference by name."""

import pytest
import torch
import torchvision.models as peers
from torch import nn
from torchvision.ops import SqueezeExcitation

from lwbench.layers.attention import SqueezeExcite
from lwbench.registry import MODELS


def weighted(model: nn.Module) -> nn.Module:
    """The model with random norms whose running statistics are those of a batch.

    With statistics of 0 and 1 the signal would die on its way, and any output equal any other.
    """
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
            module.bias.data.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 96, 96, generator=generator))
    return model.eval()


def carry(peer: nn.Module, ours: nn.Module) -> None:
    """Copy a state dict by order: both list their layers in the order of the paper's table."""
    theirs = list(peer.state_dict().items())
    names = list(ours.state_dict())
    assert len(theirs) == len(names)
    state = {}
    for name, (their_name, tensor) in zip(names, theirs, strict=True):
        assert name.rpartition(".")[2] == their_name.rpartition(".")[2]
        state[name] = tensor.view_as(ours.state_dict()[name])
    ours.load_state_dict(state)


def assert_equal_output(peer: nn.Module, ours: nn.Module) -> None:
    torch.manual_seed(1)
    carry(weighted(peer), ours.eval())
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        expected = peer(x)
        scale = expected.abs().max()
        assert expected.std(0).max() > 1e-3 * scale  # the output depends on the image
        torch.testing.assert_close(ours(x) / scale, expected / scale, rtol=0, atol=1e-5)


def ours(builder: str, **arguments: object) -> nn.Module:
    return MODELS.build({"builder": builder, **arguments}, 10)


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_mobilenetv2_equals_torchvisions(width):
    peer = peers.mobilenet_v2(weights=None, num_classes=10, width_mult=width)
    assert_equal_output(peer, ours("mobilenetv2", width=width))


@pytest.mark.parametrize(
    "width, name", [(0.5, "x0_5"), (1.0, "x1_0"), (1.5, "x1_5"), (2.0, "x2_0")]
)
def test_shufflenetv2_with_equal_halves_equals_torchvisions(width, name):
    peer = peers.get_model(f"shufflenet_v2_{name}", weights=None, num_classes=10)
    assert_equal_output(peer, ours("shufflenetv2", width=width, halving="equal"))


@pytest.mark.parametrize("version, name", [("1.0", "1_0"), ("1.1", "1_1")])
def test_squeezenet_equals_torchvisions(version, name):
    peer = peers.get_model(f"squeezenet{name}", weights=None, num_classes=10)
    # the last convolution's tiny start weights would leave little to compare
    nn.init.normal_(peer.classifier[1].weight, 0.0, 0.1)
    assert_equal_output(peer, ours("squeezenet", version=version))


@pytest.mark.parametrize("size", ["large", "small"])
def test_mobilenetv3_equals_torchvisions_but_for_named_differences(size):
    """The listing's SE (no bias, before the activation, c // 4), expansion of 16 to 16 channels in
    the first block, norms' eps and 1280 in Small are taken away; the rest is the same network."""
    peer = peers.get_model(f"mobilenet_v3_{size}", weights=None, num_classes=10)
    mine = ours("mobilenetv3", size=size)
    differing = [m for m in mine.modules() if isinstance(m, SqueezeExcite)]
    assert len(differing) == sum(isinstance(m, SqueezeExcitation) for m in peer.modules()) > 0
    assert all(m.reduce.bias is None for m in differing)
    mine.blocks[0].expand = nn.Identity()
    if size == "small":  # the listing's hidden layer has 1280 channels, the paper's 1024
        peer.classifier[0], peer.classifier[3] = nn.Linear(576, 1280), nn.Linear(1280, 10)
    for network, kind in ((mine, SqueezeExcite), (peer, SqueezeExcitation)):
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, kind):
                    setattr(module, name, nn.Identity())
    for module in mine.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.001  # the paper's; the listing keeps PyTorch's 1e-5
    assert_equal_output(peer, mine)


def test_authors_shufflenetv2_differs_from_torchvisions_in_its_first_unit_only():
    authors = ours("shufflenetv2")
    equal = ours("shufflenetv2", halving="equal")
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (authors, equal)]
    differing = {n.split(".")[1] for n in shapes[0] if shapes[0][n] != shapes[1][n]}
    # later stages double their channels, so that there both rules give one half to either branch
    assert differing == {"0"}
