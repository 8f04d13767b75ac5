"""`model.stem_stride=1` gives at 32 px the feature maps that 64 px give at stride 2."""

import pytest
import torch

from lwbench.config import train_config
from lwbench.errors import UsageError
from lwbench.measure.complexity import count
from lwbench.registry import MODELS

FAMILIES = ["mb0", "ldc3", "mobilenetv1_025", "shufflenetv2_05", "hsnet"]
MORE = ["dc0", "mobilenetv2", "mobilenetv3_small", "ghostnet_05", "shufflenetv1_g3"]


def spec(*overrides):
    return MODELS.spec(train_config(overrides).model.spec)


@pytest.mark.parametrize(
    "model", [*FAMILIES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)
def test_counts_at_32_px_are_those_of_64_px(model):
    with torch.device("meta"):
        changed = count(spec(f"model={model}", "model.stem_stride=1").build(10), image_size=32)
        own = count(spec(f"model={model}").build(10), image_size=64)
    assert (changed.params, changed.macs) == (own.params, own.macs)
    shapes = [[layer.out_shape for layer in cost.layers] for cost in (changed, own)]
    assert shapes[0] == shapes[1]


def test_weights_are_those_of_the_unchanged_network():
    torch.manual_seed(0)
    own = spec("model=ldc3").build(10)
    torch.manual_seed(0)
    changed = spec("model=ldc3", "model.stem_stride=1").build(10)
    torch.testing.assert_close(changed.state_dict(), own.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("model", ["cifar_vgg16", "vgg11"])
def test_a_stem_without_stride_2_is_refused(model):
    with pytest.raises(UsageError, match=r"this network's first convolution has stride \(1, 1\)"):
        spec(f"model={model}", "model.stem_stride=1").build(10)


def test_the_stride_is_part_of_the_identity_unless_it_is_the_networks_own():
    own, named, changed = (
        train_config(["model=mb0", *more]).identity
        for more in ([], ["model.stem_stride=null"], ["model.stem_stride=1"])
    )
    assert own == named != changed
