"""The deploy form computes what the network computes, with fewer layers."""

import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import DeformConv2d as TorchvisionDeformConv2d

import lwbench
from lwbench.commands._counting import counted
from lwbench.deploy.fuse import difference, fuse, set_statistics
from lwbench.errors import UsageError
from lwbench.layers.deform import DeformConv2d
from lwbench.measure.complexity import count
from lwbench.tables import published
from lwbench.tables.cells import filled, requirements

NORMS = nn.modules.batchnorm._BatchNorm
BOUND = 1e-9  # relative, in float64


def fused(model: nn.Module, image_size: int = 16, batch: int = 4) -> nn.Module:
    """The deploy form in float64, after its outputs were found to be those of the network."""
    generator = torch.Generator().manual_seed(1)
    shape = (batch, 3, image_size, image_size)
    images = torch.randn(shape, generator=generator, dtype=torch.float64)
    model = model.double()
    for parameter in model.parameters():  # norms' scales and shifts are not 1 and 0
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator).double()
    set_statistics(model, images)
    before = copy.deepcopy(model.state_dict())
    form = fuse(model, image_size=image_size)
    apart = difference(model, form, images)
    assert apart.scale > 0
    assert apart.relative < BOUND
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    return form


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, NORMS) for module in model.modules())


class Branching(nn.Module):
    """Uses the convolution's output a second time, in one of several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv, self.norm = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)
        self.other = nn.BatchNorm2d(4)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = self.conv(x)
        if self.how == "shortcut":
            return self.head(self.norm(y) + y)
        if self.how == "two norms":
            return self.head(self.norm(y) + self.other(y))
        if self.how == "a view":
            return self.head(self.norm(y)) + y.flatten(2).mean()
        if self.how == "a second call":
            return self.head(self.norm(y)) + self.conv(x).mean()
        if self.how == "one norm for two":
            return (
                self.head(self.norm(y))
                + self.norm(self.head.weight.mean() * x[:, :1].expand(-1, 4, -1, -1)).mean()
            )
        if self.how == "in front of an activation":
            return self.head(self.norm(y.relu()))
        raise AssertionError(self.how)


@pytest.mark.parametrize(
    "how",
    ["shortcut", "two norms", "a view", "a second call", "one norm for two",
     "in front of an activation"],
)  # fmt: skip
def test_a_convolution_whose_output_is_used_otherwise_keeps_its_norm(how):
    assert isinstance(fused(Branching(how)).norm, nn.BatchNorm2d)


LAYERS = {
    "conv": lambda: [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)],
    "conv without bias": lambda: [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)],
    "grouped conv": lambda: [nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)],
    "a norm without weights": lambda: [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)],
    "transposed conv": lambda: [nn.ConvTranspose2d(3, 4, 3, 2), nn.BatchNorm2d(4)],
    "transposed conv in groups": lambda: [
        nn.ConvTranspose2d(3, 6, 3, 2, groups=3, bias=False), nn.BatchNorm2d(6)],
    "linear": lambda: [nn.Flatten(), nn.Linear(768, 5), nn.BatchNorm1d(5)],
    "conv on a line": lambda: [nn.Flatten(2), nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)],
    "deformable": lambda: [DeformConv2d(3, 4, branch="ldc"), nn.BatchNorm2d(4)],
    "dropout": lambda: [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)],
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_a_norm_is_folded_into_the_layer_in_front(name):
    form = fused(nn.Sequential(*LAYERS[name]()))
    assert norms(form) == 0
    assert not any(isinstance(module, nn.Dropout) for module in form.modules())


def test_a_norm_of_tokens_is_not_folded_into_a_linear_layer():
    """Its channels are the tokens."""
    model = nn.Sequential(nn.Flatten(2), nn.Linear(256, 5), nn.BatchNorm1d(3))
    assert norms(fused(model)) == 1


def test_a_norm_that_uses_the_batch_stays():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    assert norms(fused(model)) == 1


def test_a_weight_that_the_layer_changes_first_is_not_folded():
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return self._conv_forward(x, self.weight / self.weight.std(), self.bias)

    assert norms(fused(nn.Sequential(Standardised(3, 4, 3), nn.BatchNorm2d(4)))) == 1


def test_torchvisions_deformable_layer_takes_the_norm_behind_it():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset = nn.Conv2d(3, 18, 3, padding=1)
            self.conv = TorchvisionDeformConv2d(3, 4, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x, self.offset(x)))

    assert norms(fused(Net())) == 0


@pytest.mark.parametrize("hook", ["reparameterize", "switch_to_deploy", "fuse"])
def test_branches_are_merged_by_the_networks_own_method(hook):
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) if self.b is None else self.a(x) + self.b(x)

        def merge(self) -> nn.Module | None:
            self.a.weight.data += self.b.weight
            self.a.bias.data += self.b.bias
            self.b = None
            return self.a if hook == "fuse" else None

    setattr(Branches, hook, Branches.merge)
    form = fused(nn.Sequential(Branches(), nn.BatchNorm2d(4)))
    assert sum(isinstance(module, nn.Conv2d) for module in form.modules()) == 1
    assert norms(form) == 0


def test_a_method_that_fails_is_named():
    class Failing(nn.Conv2d):
        def reparameterize(self) -> None:
            raise ValueError("not now")

    with pytest.raises(UsageError, match=r"Failing.reparameterize\(\) failed: ValueError: not now"):
        fuse(nn.Sequential(Failing(3, 4, 3)), image_size=8)


def test_heads_of_training_are_gone():
    model = torchvision.models.googlenet(num_classes=3, aux_logits=True, init_weights=False)
    form = fuse(model, image_size=64)
    assert norms(form) == 0
    assert not any(name.startswith("aux") for name, _ in form.named_parameters())
    assert form(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize("name", ["ldc3", "shufflenetv2", "ghostnet", "mobilenetv3_small"])
def test_a_network_keeps_its_outputs(name):
    if name not in lwbench.list_models():
        pytest.skip(f"no network {name}")
    model = lwbench.create_model(name, num_classes=5)
    assert norms(fused(model, 32)) < norms(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", lwbench.list_models())
def test_every_network_keeps_its_outputs(name):
    if name in ("torchvision", "timm"):
        pytest.skip("not a network of its own")
    form = fused(lwbench.create_model(name, num_classes=10), 64, batch=2)
    assert norms(form) < 30


@pytest.mark.slow
@pytest.mark.parametrize(
    "arch, size",
    [("mobileone_s0", 64), ("repvgg_a0", 64), ("repvit_m0_9", 64), ("fastvit_t8", 64),
     ("repghostnet_050", 64), ("ghostnetv2_100", 64), ("levit_128s", 224), ("tiny_vit_5m_224", 224),
     ("efficientnet_b0", 64), ("tf_efficientnet_b0", 64), ("shvit_s1", 224), ("nextvit_small", 64),
     ("mobilenetv4_conv_small", 64), ("resnet18", 64), ("vit_tiny_patch16_224", 224)],
)  # fmt: skip
def test_networks_of_timm_keep_their_outputs(arch, size):
    timm = pytest.importorskip("timm")
    fused(timm.create_model(arch, num_classes=10), size, batch=2)


def test_a_table_has_columns_of_the_deploy_form(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("""
source: an example
count: {rule: fvcore, num_classes: 10, image_size: 32}
columns:
  macs: {kind: macs}
  deploy_macs: {kind: deploy_macs}
  deploy_params: {kind: deploy_params}
rows:
  - {label: one, run: model=mb0}
""")
    (table,) = published.load(str(path))
    form = count(fuse(lwbench.create_model("mb0", num_classes=10), image_size=32), image_size=32)
    cells = filled(table, counted(requirements(table))).cells
    train, deployed, params = (cell.measured for cell in cells)
    assert (deployed, params) == (form.macs["fvcore"], form.params)
    assert deployed < train
    assert [cell.command.endswith("deploy=true") for cell in cells] == [False, True, True]
