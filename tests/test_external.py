"""Networks of other libraries: any of them can be counted, trained and evaluated."""

import json
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lwbench.cli import main
from lwbench.engine.weights import load_weights
from lwbench.errors import UsageError
from lwbench.measure.complexity import count
from lwbench.measure.data_free import DataNeededError, built, measured, outline
from lwbench.models.external import classifier
from lwbench.registry import MODELS

LOGITS, OTHER = torch.zeros(2, 5), torch.ones(2, 7)
Outputs = namedtuple("Outputs", ["logits", "aux_logits"])
# fmt: off
OUTPUTS = {  # what a network returns; the logits are always LOGITS
    "a tensor": LOGITS,
    "a tuple": (LOGITS, OTHER),
    "a list": [LOGITS, OTHER, OTHER],
    "a named tuple, as GoogLeNet's": Outputs(LOGITS, OTHER),
    "a named tuple without an auxiliary output": Outputs(LOGITS, None),
    "a mapping": {"features": OTHER, "logits": LOGITS},
    "a mapping with other keys": {"out": LOGITS, "aux": OTHER},
    "an object with logits": SimpleNamespace(loss=None, logits=LOGITS, hidden_states=(OTHER,)),
    "nested": [(LOGITS, OTHER), OTHER],
    "nothing in front": (None, LOGITS),
}
# fmt: on


class Returning(nn.Module):
    """A network that returns what it is given."""

    def __init__(self, output: object) -> None:
        super().__init__()
        self.output, self.layer = output, nn.Linear(1, 1)

    def forward(self, x: Tensor) -> object:
        return self.output


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_network_returns_its_main_logits(name):
    model = classifier(Returning(OUTPUTS[name]))
    assert torch.equal(model(torch.zeros(2, 1)), LOGITS)
    assert set(model.state_dict()) == {"layer.weight", "layer.bias"}


def test_a_network_without_any_tensor_is_left_as_it_is():
    assert classifier(Returning(None))(torch.zeros(2, 1)) is None


@pytest.mark.parametrize("arch", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_heads_are_built_without(arch):
    size = 75 if arch == "inception_v3" else 32
    model = MODELS.build({"builder": "torchvision", "arch": arch}, 3).train()
    assert model(torch.zeros(2, 3, size, size)).shape == (2, 3)
    assert not any("aux" in name.lower() for name, _ in model.named_parameters())


# building without data


class Computing(nn.Module):
    """Computes with tensors while it is built, or while it runs."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = at
        self.layer = nn.Conv2d(3, 4, 3, bias=False)
        widths = torch.linspace(4, 8, 3)
        if at == "item":
            self.width = int(widths[1].item())
        elif at == "numpy":
            self.width = int(np.sum(widths.numpy()))
        elif at == "branch":
            self.width = 3 if widths[0] > 2 else 4

    def forward(self, x: Tensor) -> Tensor:
        if self.at == "forward":
            x = x * float(self.layer.weight.sum() * 0 + 1)
        elif self.at == "mask":
            x = x[x.sum((1, 2, 3)) < torch.inf]
        return self.layer(x)


@pytest.mark.parametrize("at", ["item", "numpy", "branch"])
def test_a_network_that_computes_while_it_is_built_is_built_with_data(at):
    model = outline(lambda: Computing(at))
    assert not model.layer.weight.is_meta
    assert count(model, image_size=8).macs["plain"] == 36 * 4 * 27


@pytest.mark.parametrize("at", ["forward", "mask"])
def test_a_network_that_needs_data_to_run_is_built_with_data(at):
    with pytest.raises(DataNeededError):
        count(outline(lambda: Computing(at)), image_size=8)
    cost = measured(lambda: Computing(at), lambda model: count(model, image_size=8))
    assert cost.macs["plain"] == 36 * 4 * 27


def test_a_network_that_needs_no_data_is_built_once():
    devices = []

    def build() -> nn.Module:
        model = Computing("nowhere")
        devices.append(model.layer.weight.device.type)
        return model

    measured(build, lambda model: count(model, image_size=8))
    assert devices == ["meta"]


class Demanding(nn.Module):
    """Refuses an image size in a way of its own."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.layer = how, nn.Conv2d(3, 4, 9)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "assertion":
            assert x.shape[-1] == 224, "Input height (8) doesn't match model (224)."
        if self.how == "torch._assert":
            torch._assert(x.shape[-1] == 224, "Wrong image height! Expected 224 but got 8!")
        if self.how == "reads a value first":
            x = x + float(x.sum())
            raise ValueError("expected 224 pixels")
        return self.layer(x)


@pytest.mark.parametrize(
    "how, reason",
    [
        ("assertion", "doesn't match model"),
        ("torch._assert", "Expected 224 but got 8!"),
        ("reads a value first", "expected 224 pixels"),
        ("the kernel is larger", "Kernel size can't be greater than actual input size"),
    ],
)
@pytest.mark.parametrize("with_data", [True, False])
def test_the_first_cause_is_the_one_that_is_named(how, reason, with_data):
    figure = lambda model: count(model, image_size=8)  # noqa: E731
    with pytest.raises(UsageError) as error:
        if with_data:
            figure(Demanding(how))
        else:
            measured(lambda: Demanding(how), figure)
    assert reason in str(error.value)
    assert "meta" not in str(error.value)


@pytest.mark.parametrize("build", [built, outline])
def test_a_network_that_cannot_be_built_is_a_usage_error(build):
    with pytest.raises(UsageError, match="the network cannot be built: "):
        build(lambda: nn.Conv2d(3, -4, 3))


# profile


@pytest.mark.parametrize("arch", ["regnet_y_400mf", "regnet_x_400mf", "regnet_y_1_6gf"])
def test_profile_counts_a_network_that_computes_while_it_is_built(arch, capsys):
    from torchvision.models import get_model_weights

    assert main(["profile", "model=torchvision", f"model.arch={arch}", "format=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    published = get_model_weights(arch).DEFAULT.meta
    assert found["model"] == f"torchvision {arch}"
    assert found["params"] == published["num_params"]
    assert round(found["macs"]["plain"] / 1e9, 3) == published["_ops"]
    assert found["macs"]["flop_counter"] == found["macs"]["plain"]


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["image_size=[192,256]"], "image_size=[192, 256]: input should be a valid integer"),
        (["image_size=0"], "image_size=0: input should be greater than 0"),
        (["image_size=-8"], "image_size=-8: input should be greater than 0"),
        (["image_size=99999"], "image_size=99999: input should be less than or equal to 8192"),
        (["image_size=32.5"], "image_size=32.5: input should be a valid integer"),
        (["num_classes=-3"], "num_classes=-3: input should be greater than 0"),
        (["num_classes=0"], "num_classes=0: input should be greater than 0"),
        (["num_classes=ten"], "num_classes='ten': input should be a valid integer"),
        (["num_classes=1000000000000"], "num_classes=1000000000000: input should be less than"),
        (["layers=3"], "layers=3: input should be a valid boolean"),
        (["format=xml"], "format='xml': input should be 'terminal', 'markdown', 'csv' or 'json'"),
        (["model=torchvision", "model.arch=vit_b_16", "image_size=160"],
         "does not run on a 3 x 160 x 160 image: Wrong image height! Expected 224 but got 160!"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_profile_refuses_wrong_values_in_one_line(arguments, reason, capsys):
    assert main(["profile", *arguments]) == 2
    out, error = capsys.readouterr()
    assert not out
    assert reason in error
    assert len(error.splitlines()) == 1


def test_one_of_several_networks_that_fails_leaves_the_others(capsys):
    several = "model.arch=vit_b_32,squeezenet1_1,mnasnet0_5"
    assert main(["profile", "-m", "model=torchvision", several, "image_size=64", "format=csv"]) == 2
    out, error = capsys.readouterr()
    assert [line.split(",")[0] for line in out.splitlines()[1:]] == [
        "torchvision squeezenet1_1",
        "torchvision mnasnet0_5",
    ]
    assert "torchvision vit_b_32: the network does not run on a 3 x 64 x 64 image" in error


TABLE = """
source: baselines
count: {rule: plain, num_classes: 1000, image_size: 64}
columns: {params: {kind: params}, macs: {kind: macs}}
rows:
  - {label: regnet, run: model=torchvision model.arch=regnet_y_400mf}
  - {label: vit, run: model=torchvision model.arch=vit_b_32}
  - {label: typo, run: model=torchvision model.arch=resnet5}
  - {label: squeezenet, run: model=torchvision model.arch=squeezenet1_1}
"""


def test_a_network_that_cannot_be_counted_costs_a_table_its_own_cells(
    tmp_path, monkeypatch, capsys, caplog
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "mine.yaml").write_text(TABLE)
    assert main(["table", "table=mine.yaml", "format=json"]) == 0
    cells = {(c["row"], c["column"]): c["measured"] for c in json.loads(capsys.readouterr().out)}
    assert cells["regnet", "params"] == 4_344_144
    assert cells["squeezenet", "macs"] > 0
    assert cells["vit", "macs"] is cells["typo", "params"] is None
    assert (
        "no count of model=torchvision model.arch=vit_b_32: the network does not run on"
        in caplog.text
    )
    assert "torchvision has no such network; nearest:" in caplog.text


# weights


class Versioned(nn.Linear):
    """Refuses weights of an unknown or older format, as MNASNet does."""

    _version = 2

    def _load_from_state_dict(self, state, prefix, metadata, *arguments):
        if metadata.get("version") != 2:
            raise ValueError("version should be 2")
        super()._load_from_state_dict(state, prefix, metadata, *arguments)


def mnasnet() -> nn.Module:
    return MODELS.build({"builder": "torchvision", "arch": "mnasnet0_5"}, 3)


@pytest.mark.parametrize(
    "build",
    [mnasnet, lambda: Versioned(2, 3), lambda: nn.Sequential(Versioned(2, 3), nn.BatchNorm1d(3))],
    ids=["mnasnet", "a layer", "a layer inside"],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_weights_are_loaded_into_networks_that_ask_for_a_version(build, compiled, tmp_path):
    ours, theirs = build(), build()
    prefix = "_orig_mod." * compiled
    state = {"model": {prefix + key: value for key, value in theirs.state_dict().items()}}
    load_weights(ours, state, tmp_path / "last.pt")
    assert all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))


# training and evaluation

FAMILIES = {  # the smallest network of each family of torchvision, and a size that it takes
    "alexnet": 64, "convnext_tiny": 32, "densenet121": 32, "efficientnet_b0": 32,
    "efficientnet_v2_s": 32, "googlenet": 32, "inception_v3": 75, "maxvit_t": 224,
    "mnasnet0_5": 32, "mobilenet_v2": 32, "mobilenet_v3_small": 32, "regnet_x_400mf": 32,
    "regnet_y_400mf": 32, "resnet18": 32, "resnext50_32x4d": 32, "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32, "swin_t": 32, "swin_v2_t": 32, "vgg11": 32, "vit_b_32": 224,
    "wide_resnet50_2": 32,
}  # fmt: skip


@pytest.fixture
def photographs(tmp_path):
    """A folder of two classes with a few images each."""
    random = np.random.default_rng(0)
    for split, count_ in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for index in range(count_):
                pixels = random.integers(0, 255, (40, 40, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "pets"


def trained_and_evaluated(arch, size, photographs, capsys):
    keys = [f"model.arch={arch}", f"image_size={size}", "epochs=1", "batch_size=3", "device=cpu"]
    keys += ["data=folder", f"data.root={photographs}", "optimizer.lr=0.001"]
    code = main(["train", "model=torchvision", *keys, "out=runs"])
    assert code == 0, capsys.readouterr()
    (run,) = photographs.parent.glob("runs/pets/torchvision/*/")
    capsys.readouterr()
    assert main(["eval", f"run={run}"]) == 0
    out, _ = capsys.readouterr()
    assert "final:" in out and "best:" in out


@pytest.mark.slow
@pytest.mark.parametrize("arch", FAMILIES)
def test_a_network_of_each_family_is_trained_and_evaluated(arch, photographs, capsys, monkeypatch):
    monkeypatch.chdir(photographs.parent)
    trained_and_evaluated(arch, FAMILIES[arch], photographs, capsys)


def test_every_family_of_torchvision_has_its_test():
    from torchvision import models

    names = models.list_models(module=models)
    modules = {models.get_model_builder(name).__module__ for name in names}
    tested = {models.get_model_builder(name).__module__ for name in FAMILIES}
    assert modules == tested


def test_a_network_that_computes_while_it_is_built_is_trained_and_evaluated(
    photographs, capsys, monkeypatch
):
    monkeypatch.chdir(photographs.parent)
    trained_and_evaluated("regnet_x_400mf", 32, photographs, capsys)


def test_a_network_that_returns_no_logits_is_refused_before_a_run_is_written(
    photographs, capsys, monkeypatch
):
    from lwbench.models import external

    monkeypatch.chdir(photographs.parent)
    monkeypatch.setattr(
        external, "classifier", lambda model: nn.Sequential(model, nn.Unflatten(1, (1, 2)))
    )
    keys = ["model.arch=squeezenet1_1", "image_size=32", "epochs=1", "batch_size=3", "device=cpu"]
    code = main(["train", "model=torchvision", *keys, "data=folder", f"data.root={photographs}"])
    assert code == 2
    assert "returns a tensor of shape (1, 1, 2)" in capsys.readouterr().err
    assert not (photographs.parent / "outputs").exists()
