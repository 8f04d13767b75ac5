"""The networks of hsnet's tables 3 and 4: their counts, and what HSNet's arguments do.

Parameters and MACs (torchstat's rule, 224 x 224) are printed with two digits after the point.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lwbench.errors import UsageError
from lwbench.layers.attention import EfficientChannelAttention
from lwbench.layers.ghost import GhostModule
from lwbench.layers.hetconv import HetConv
from lwbench.measure.complexity import count
from lwbench.registry import MODELS

W16 = {"stem_channels": 16}
GHOST_VGG = {"norm": False, "ghost_stages": [4, 5], "hidden": []}
# fmt: off
PRINTED = [  # builder, arguments, classes, GMACs of tables 3 and 4
    ("cifar_mobilenet",    {},                              100, "2.34"),
    ("cifar_mobilenetv2",  {},                              100, "2.42"),
    ("cifar_squeezenet",   {},                              100, "2.69"),
    ("cifar_shufflenet",   {},                              100, "2.22"),
    ("cifar_shufflenetv2", {},                              100, "2.23"),
    ("cifar_resnet",       {},                              100, "63.99"),
    ("cifar_resnext",      {},                              100, "37.34"),
    ("cifar_resnext",      {"depths": [3, 4, 23, 3]},       100, "70.36"),
    ("cifar_resnet",       W16,                              10, "4.09"),
    ("cifar_resnet",       {**W16, "ghost_stages": [4]},     10, "3.92"),
    ("cifar_vgg16",        GHOST_VGG,                        10, "12.38"),
]
PARAMS = [  # builder, arguments, millions as table 4 (or the text: 1.53) prints them, how
    ("cifar_mobilenet",    {},                        "3.3",  "rounded"),
    ("cifar_mobilenetv2",  {},                        "2.36", "cut"),
    ("cifar_squeezenet",   {},                        "0.78", "rounded"),
    ("cifar_shufflenet",   {},                        "1.0",  "rounded"),
    ("cifar_shufflenetv2", {},                        "1.3",  "cut"),
    ("cifar_vgg16",        {},                        "34.0", "rounded"),
    ("cifar_resnet",       {},                        "23.7", "rounded"),
    ("cifar_resnet",       W16,                       "1.53", "rounded"),
    ("cifar_resnext",      {},                        "14.8", "rounded"),
    # table 4 prints 42.9, which is another network's row in the source of that column
    ("cifar_resnext",      {"depths": [3, 4, 23, 3]}, "25.3", "rounded"),
]
# fmt: on


def build(builder, num_classes=100, **arguments):
    return MODELS.build({"builder": builder, **arguments}, num_classes)


@pytest.mark.parametrize("builder, arguments, num_classes, printed", PRINTED)
def test_macs_round_to_the_printed_digits(builder, arguments, num_classes, printed):
    with torch.device("meta"):
        cost = count(build(builder, num_classes, **arguments))
    assert f"{cost.macs['torchstat'] / 1e9:.2f}" == printed
    assert not cost.unknown


@pytest.mark.parametrize("builder, arguments, printed, how", PARAMS)
def test_params_equal_the_printed_digits(builder, arguments, printed, how):
    with torch.device("meta"):
        millions = sum(p.numel() for p in build(builder, **arguments).parameters()) / 1e6
    digits = len(printed.partition(".")[2])
    if how == "cut":
        millions = int(millions * 10**digits) / 10**digits
    assert f"{millions:.{digits}f}" == printed


def test_hsnet_fit_is_within_one_percent_of_both_published_totals():
    cost = count(build("hsnet"))
    assert cost.params == pytest.approx(3.00e6, rel=0.01)
    assert cost.macs["torchstat"] == pytest.approx(231.87e6, rel=0.001)


def eca_channels(model):
    """Channels of the blocks with ECA."""
    blocks = [block for stage in model.stages for block in stage]
    attended = [b for b in blocks if isinstance(b.eca, EfficientChannelAttention)]
    return [block.ghost.out_channels for block in attended]


@pytest.mark.parametrize("stages", [[], [1], [2], [3], [4], [1, 2, 3], [1, 2, 3, 4]])
def test_eca_sits_in_every_block_a_of_the_stages_named(stages):
    expected = [[32] * 2, [64] * 3, [128] * 3, [512] * 3]
    model = build("hsnet", 10, eca_stages=stages)
    assert eca_channels(model) == [c for stage in stages for c in expected[stage - 1]]


def test_eca_adds_one_kernel_a_block_and_no_counted_operation():
    plain, attended = count(build("hsnet", eca_stages=[])), count(build("hsnet"))
    assert attended.params - plain.params == 8 * 3
    assert attended.macs["torchstat"] == plain.macs["torchstat"]


def test_widths_depths_and_parts_shape_the_network():
    model = build("hsnet", 10, widths=[16, 32], depths=[1, 2], eca_stages=[2], parts=4)
    assert [len(stage) for stage in model.stages] == [1, 2]
    assert [stage[-1].ghost.out_channels for stage in model.stages] == [16, 32]
    assert model.stages[0][0].het.conv.groupwise.groups == 4
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    "arguments, key",
    [
        ({"eca_stages": [0]}, "eca_stages"),
        ({"eca_stages": [5]}, "eca_stages"),
        ({"depths": [1, 2]}, "depths"),
        ({"parts": 7}, "parts"),
        ({"eca_kernel": 4}, "eca_kernel"),
        ({"widths": [0, 64, 128, 512]}, "widths"),
    ],
)
def test_values_that_do_not_go_together_are_named(arguments, key):
    with pytest.raises(UsageError, match=rf"model\.{key}"):
        build("hsnet", 10, **arguments)


@pytest.mark.parametrize("builder, stage", [("cifar_resnet", 5), ("cifar_vgg16", 1)])
def test_a_ghost_stage_that_is_not_there_is_named(builder, stage):
    with pytest.raises(UsageError, match=r"model\.ghost_stages"):
        build(builder, 10, ghost_stages=[stage])


def test_groups_that_do_not_divide_the_channels_are_named():
    with pytest.raises(UsageError, match=r"model\.groups=5"):
        build("cifar_resnext", 10, groups=5)


FAMILIES = sorted({"hsnet", "ghostnet", *(row[0] for row in PRINTED)})


@pytest.mark.parametrize(
    "stem, offsets", [("dc", "separate"), ("ldc", "separate"), ("ldc", "shared")]
)
@pytest.mark.parametrize("builder", FAMILIES)
def test_every_family_takes_a_deformable_stem(builder, stem, offsets):
    plain = build(builder, 10)
    deformable = build(builder, 10, stem=stem, offsets=offsets)
    extra = set(deformable.state_dict()) - set(plain.state_dict())
    assert any("offset" in name for name in extra)
    shapes = [model.eval()(torch.zeros(1, 3, 32, 32)).shape for model in (plain, deformable)]
    assert shapes == [(1, 10), (1, 10)]


@pytest.mark.parametrize("builder", ["cifar_mobilenetv2", "cifar_squeezenet"])
def test_a_classifying_convolution_starts_as_small_as_a_linear_layer(builder):
    torch.manual_seed(0)
    assert build(builder, 10)(torch.randn(4, 3, 32, 32)).std() < 1


def test_cifar_vgg16_runs_at_224_pixels_with_the_same_parameters():
    cost = count(build("cifar_vgg16"), image_size=224)
    assert cost.params == count(build("cifar_vgg16"), image_size=32).params


def test_hetconv_equals_one_dense_convolution_of_mixed_kernels():
    torch.manual_seed(0)
    layer, x = HetConv(8, 16, stride=2, parts=4), torch.randn(2, 8, 9, 9)
    dense = torch.zeros(16, 8, 3, 3)
    dense[:, :, 1, 1] = layer.pointwise.weight[:, :, 0, 0]
    for group in range(4):  # 1 of 4 kernels of each filter is 3 x 3
        filters, channels = slice(4 * group, 4 * group + 4), slice(2 * group, 2 * group + 2)
        dense[filters, channels] += layer.groupwise.weight[filters]
    torch.testing.assert_close(layer(x), F.conv2d(x, dense, None, 2, 1))


def test_hetconv_refuses_channels_that_parts_does_not_divide():
    with pytest.raises(ValueError, match="multiples of 4"):
        HetConv(6, 8, parts=4)


@pytest.mark.parametrize("channels, size", [(32, 3), (64, 3), (128, 5), (512, 5)])
def test_eca_takes_the_papers_kernel_size(channels, size):
    assert EfficientChannelAttention(channels).conv.kernel_size == (size,)


def test_eca_weighs_each_channel_by_its_neighbours_means():
    eca, x = EfficientChannelAttention(4, kernel=3), torch.randn(2, 4, 5, 5)
    nn.init.constant_(eca.conv.weight, 1.0)
    means = F.pad(x.mean((2, 3)), (1, 1))
    gate = (means[:, :-2] + means[:, 1:-1] + means[:, 2:]).sigmoid()
    torch.testing.assert_close(eca(x), x * gate[:, :, None, None])


@pytest.mark.parametrize("ratio, out", [(2, 6), (2, 7), (3, 8), (4, 10)])
def test_ghost_module_yields_the_channels_asked_for(ratio, out):
    ghost = GhostModule(3, out, 3, stride=2, ratio=ratio, dw_kernel=5)
    y = ghost(torch.randn(2, 3, 9, 9))
    assert y.shape == (2, out, 5, 5)
    assert ghost.cheap.conv.groups == ghost.primary.conv.out_channels == -(-out // ratio)


def test_ghost_module_needs_ghosts():
    with pytest.raises(ValueError, match="ratio=1"):
        GhostModule(3, 6, ratio=1)
