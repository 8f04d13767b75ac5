"""`weights=`: files, runs and public tags; whose names fit; what fine-tuning trains."""

import hashlib
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_interruption import assert_equal_runs
from test_models_peers import weighted
from torch import nn
from torchvision import models as peers

from lwbench.cli import main
from lwbench.commands._weights import GivenWeights, read_weights
from lwbench.config import train_config, train_configs
from lwbench.engine.freezing import freeze, last_layer, scale_last_layer, train_mode
from lwbench.engine.weights import read
from lwbench.errors import DamagedError, LwbenchError, UsageError
from lwbench.logs import EpochProgress
from lwbench.models.public import public_weights
from lwbench.registry import MODELS, OPTIMIZERS

timm = pytest.importorskip("timm")


def spec(builder, **arguments):
    return MODELS.spec({"builder": builder, **arguments})


def timms(arch):
    return lambda: timm.create_model(arch, num_classes=10)


def torchvisions(arch):
    return lambda: peers.get_model(arch, weights=None, num_classes=10)


# names of torchvision and timm

PAIRS = {
    "V2 of torchvision": (spec("mobilenetv2"), torchvisions("mobilenet_v2")),
    "V2 of timm": (spec("mobilenetv2"), timms("mobilenetv2_100")),
    "ShuffleNetV2": (spec("shufflenetv2", halving="equal"), torchvisions("shufflenet_v2_x1_0")),
    "SqueezeNet 1.0": (spec("squeezenet", version="1.0"), torchvisions("squeezenet1_0")),
    "SqueezeNet 1.1": (spec("squeezenet", version="1.1"), torchvisions("squeezenet1_1")),
    "GhostNet": (spec("ghostnet", release="official"), timms("ghostnet_100")),
    "ResNet": (spec("torchvision", arch="resnet18"), timms("resnet18")),
}


def assert_same_logits(ours_spec, peer, path, size=96):
    torch.save({"state_dict": peer.state_dict(), "epoch": 3}, path)
    ours = ours_spec.build(10).eval()
    read_weights(str(path)).load(ours, ours_spec)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = peer(x)
        assert expected.std(0).max() > 1e-3 * expected.abs().max()  # it depends on the image
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_a_peers_weights_give_its_logits_in_ours(pair, tmp_path):
    torch.manual_seed(0)
    assert_same_logits(pair[0], weighted(pair[1]()), tmp_path / "x.pth")


@pytest.mark.slow
@pytest.mark.parametrize("library", [timms, torchvisions])
def test_vgg_of_both_libraries_gives_its_logits_in_ours(library, tmp_path):
    torch.manual_seed(0)
    peer = library("vgg11")().eval()
    assert_same_logits(spec("torchvision", arch="vgg11"), peer, tmp_path / "x.pth", 224)


@pytest.mark.parametrize(
    "ours, peer, advice",
    [
        (spec("shufflenetv2"), torchvisions("shufflenet_v2_x1_0"), "model.halving=equal"),
        (spec("ghostnet"), timms("ghostnet_100"), "model.release=official"),
        (spec("squeezenet"), torchvisions("squeezenet1_0"), 'model.version="1.0"'),
        (spec("mobilenetv3"), torchvisions("mobilenet_v3_large"), "model=torchvision model.arch"),
        (spec("mobilenetv3"), timms("mobilenetv3_small_100"), "model=timm model.arch"),
        (spec("mobilenet_ldc"), torchvisions("mobilenet_v3_small"), "model=torchvision model.a"),
    ],
)
def test_weights_of_a_network_that_differs_are_refused_with_advice(ours, peer, advice):
    with torch.device("meta"):
        state, model = peer().state_dict(), ours.build(10)
    with pytest.raises(UsageError, match=advice):
        GivenWeights("x.pth", state).load(model, ours)


# files


def linear(*, classes=3):
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, classes))


SPEC = spec("mobilenetv1")  # has no peers: names have to be equal


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_all_kinds_of_files_are_read_and_half_precision_is_converted(suffix, dtype, tmp_path):
    source, target, path = linear(), linear(), tmp_path / f"x{suffix}"
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in source.state_dict().items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    assert read_weights(str(path)).load(target, SPEC) == ""
    assert target[0].weight.dtype == torch.float32
    assert target[0].weight.equal(source[0].weight.to(dtype).float())


def test_a_damaged_safetensors_file_is_refused_with_its_name(tmp_path):
    save_file(linear().state_dict(), tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").read_bytes()
    for content in (b"", whole[:-9], b"\xff" * 64):
        (tmp_path / "x.safetensors").write_bytes(content)
        with pytest.raises(DamagedError, match=r"x\.safetensors is not a readable safetensors"):
            read(tmp_path / "x.safetensors")


def test_what_does_not_fit_is_named_by_kind_and_the_rest_loads_where_asked():
    source, target = linear(), linear()
    state = source.state_dict()
    state |= {"0.weight": torch.zeros(5, 3), "more": torch.zeros(1)}
    del state["1.bias"]
    given = GivenWeights("x.pt", state)
    with pytest.raises(UsageError) as found:
        given.load(target, SPEC)
    message = str(found.value)
    assert (
        "1 missing (1.bias), 1 unexpected (more), 1 of another shape (0.weight: [5, 3]" in message
    )
    assert "weights_partial=true" in message
    before = target[0].weight.clone()
    assert "1.bias" in given.load(target, SPEC, partial=True)
    assert target[0].weight.equal(before) and target[2].weight.equal(source[2].weight)


def test_where_nothing_fits_partial_loading_is_refused_too():
    with pytest.raises(UsageError, match="of another network"):
        GivenWeights("x.pt", {"other": torch.zeros(1)}).load(linear(), SPEC, partial=True)


def test_another_class_count_replaces_the_head_where_asked_alone():
    source, target = linear(classes=7), linear()
    given, before = GivenWeights("x.pt", source.state_dict()), target[2].weight.clone()
    assert given.check(target, SPEC) == 7
    with pytest.raises(UsageError, match=r"7 classes .* 3"):
        given.load(target, SPEC)
    assert given.load(target, SPEC, new_head=True) == (
        "2.weight, 2.bias new: the file's network has 7 classes"
    )
    assert target[2].weight.equal(before) and target[0].weight.equal(source[0].weight)


def test_counters_that_old_files_lack_are_not_missing():
    state = {k: v for k, v in linear().state_dict().items() if "num_batches" not in k}
    assert GivenWeights("x.pt", state).load(linear(), SPEC) == ""


def test_auxiliary_classifiers_and_counters_of_tools_are_left_out():
    state = linear().state_dict() | {"aux1.fc.weight": torch.zeros(2), "0.total_ops": torch.ones(1)}
    assert GivenWeights("x.pt", state).load(linear(), SPEC) == ""


# identity


def test_weights_are_identified_by_content_wherever_the_file_is(tmp_path):
    paths = [tmp_path / name for name in ("a.pt", "b.pt", "c.pt")]
    for path, value in zip(paths, (1, 1, 2), strict=True):
        path.write_bytes(bytes([value]) * 100)
    requests = [("model=mb0", f"weights={path}") for path in paths]
    one, same, other = train_configs(requests).values()
    assert one.identity == same.identity != other.identity
    assert one.identity != train_config(["model=mb0"]).identity
    paths[0].write_bytes(b"changed")
    assert train_configs(requests[:1])[requests[0]].identity != one.identity
    with pytest.raises(UsageError, match=r"a\.pt has changed since"):
        read_weights(str(paths[0]), one.weights_id)


def test_public_weights_are_identified_by_their_tag():
    config = train_config(["model=mb0", "weights=timm:resnet18.a1_in1k"])
    assert config.weights_id == "timm:resnet18.a1_in1k"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["weights=/no/such"], "no checkpoint at /no/such"),
        (["weights=."], "a run directory"),
        (["weights_partial=true"], "has no effect without weights="),
        (["weights_id=x"], "unknown key 'weights_id'"),
    ],
)
def test_wrong_weights_end_with_a_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 2
    assert message in capsys.readouterr().err


# public weights: files are where the libraries' caches have them


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    return tmp_path / "hub/checkpoints"


def test_torchvisions_file_is_compared_with_the_digest_in_its_name(torch_home, monkeypatch):
    entry = peers.SqueezeNet1_1_Weights.IMAGENET1K_V1
    name = "SqueezeNet1_1_Weights.IMAGENET1K_V1"
    model = peers.squeezenet1_1()
    torch.save(model.state_dict(), torch_home / "x.pth")
    digest = hashlib.sha256((torch_home / "x.pth").read_bytes()).hexdigest()
    # another file under the published name
    (torch_home / Path(entry.url).name).write_bytes((torch_home / "x.pth").read_bytes())
    with pytest.raises(DamagedError, match="is not the published file"):
        public_weights("torchvision", name, read)
    url = entry.value.url
    object.__setattr__(entry.value, "url", f"https://x.invalid/squeezenet-{digest[:8]}.pth")
    try:
        (torch_home / "x.pth").rename(torch_home / f"squeezenet-{digest[:8]}.pth")
        found = public_weights("torchvision", name, read)
    finally:
        object.__setattr__(entry.value, "url", url)
    assert found.arch == "squeezenet1_1" and found.size == 224
    assert found.state["classifier.1.weight"].equal(model.classifier[1].weight)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of Hugging Face's hub, and no network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    def put(repository, content):
        folder = tmp_path / f"models--{repository.replace('/', '--')}"
        blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
        snapshot = folder / "snapshots" / ("0" * 40)
        for each in (blob.parent, snapshot, folder / "refs"):
            each.mkdir(parents=True)
        blob.write_bytes(content)
        (snapshot / "model.safetensors").symlink_to(blob)
        (folder / "refs" / "main").write_text("0" * 40)
        return blob

    return put


def test_timms_file_is_read_from_the_hubs_cache_and_verified(hub, tmp_path):
    model = timm.create_model("mobilenetv3_small_050")
    save_file(model.state_dict(), tmp_path / "x.safetensors")
    blob = hub("timm/mobilenetv3_small_050.lamb_in1k", (tmp_path / "x.safetensors").read_bytes())
    found = public_weights("timm", "mobilenetv3_small_050.lamb_in1k", read)
    assert found.state["classifier.weight"].equal(model.classifier.weight)
    ours = spec("timm", arch="mobilenetv3_small_050")
    assert GivenWeights(found.tag, found.state).load(ours.build(1000), ours) == ""
    blob.write_bytes(blob.read_bytes()[:-1] + b"\7")
    with pytest.raises(DamagedError, match="is not the published file"):
        public_weights("timm", "mobilenetv3_small_050.lamb_in1k", read)


@pytest.mark.parametrize(
    "library, name, message",
    [
        ("torchvision", "MobileNet_V2_Weights.V9", "no weights 'MobileNet_V2_Weights.V9'"),
        ("torchvision", "MobileNetV2.IMAGENET1K_V1", "nearest: MobileNet_V2_Weights"),
        ("timm", "mobilenetv3_small_100", "mobilenetv3_small_100.lamb_in1k"),
        ("timm", "nonet.x", "timm has no network 'nonet'"),
    ],
)
def test_an_unknown_tag_is_answered_with_the_nearest(library, name, message):
    with pytest.raises(UsageError, match=message):
        public_weights(library, name, read)


def test_a_failed_download_is_one_line_and_says_where_to_put_the_file(torch_home, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no route to host\nand more")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(LwbenchError) as found:
        public_weights("torchvision", "MobileNet_V2_Weights.IMAGENET1K_V1", read)
    assert "no route to host\nwithout a network" in str(found.value)
    assert str(torch_home) in str(found.value) and found.value.exit_code == 1


# fine-tuning


def test_frozen_layers_keep_weights_and_statistics_through_training():
    model = linear()
    names = freeze(model, ["0.*", "1.*"])
    assert names == ["0.weight", "0.bias", "1.weight", "1.bias"]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = OPTIMIZERS.build({"builder": "sgd", "lr": 0.1, "weight_decay": 0.1}, model)
    train_mode(model)
    model(torch.randn(8, 4)).square().sum().backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed == {"2.weight", "2.bias"}


def test_a_norm_whose_scale_is_trained_still_takes_statistics_of_the_batch():
    model = linear()
    freeze(model, ["0.*"])
    train_mode(model)
    model(torch.randn(8, 4))
    assert model[1].num_batches_tracked == 1


@pytest.mark.parametrize("patterns, message", [(["3.*"], "no parameter"), (["*"], "left to train")])
def test_patterns_that_freeze_nothing_or_everything_are_refused(patterns, message):
    with pytest.raises(UsageError, match=message):
        freeze(linear(), patterns)


def test_the_last_layer_has_its_own_learning_rate():
    model = linear()
    optimizer = OPTIMIZERS.build({"builder": "sgd", "lr": 0.1}, model)
    scale_last_layer(optimizer, model, 3, 10.0)
    factors = {
        name: next(g["lr_factor"] for g in optimizer.param_groups for p in g["params"] if p is w)
        for name, w in model.named_parameters()
    }
    assert {name for name, factor in factors.items() if factor == 10} == {"2.weight", "2.bias"}
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 6
    with pytest.raises(UsageError, match="no layer with 9 outputs"):
        last_layer(model, 9)


def test_a_fine_tuned_run_starts_from_the_weights_and_leaves_frozen_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    source = spec("mobilenetv2", width=0.1).build(7)
    torch.save(source.state_dict(), "x.pt")
    command = ["train", "model=mobilenetv2", "model.width=0.1", "weights=x.pt", "freeze=stem.*"]
    command += ["head_lr_factor=10", "epochs=1", "image_size=8", "device=cpu", "batch_size=512"]
    assert main(command) == 0
    (last,) = tmp_path.glob("outputs/*/*/*/checkpoints/last.pt")
    state = read(last)["model"]
    kept = {name for name in state if state[name].equal(source.state_dict()[name])
            if not name.startswith("classifier")}  # fmt: skip
    assert {name for name in state if name.startswith("stem.")} <= kept
    assert "blocks.3.project.conv.weight" not in kept


def test_a_fine_tuned_run_that_is_interrupted_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(spec("mobilenetv2", width=0.1).build(7).state_dict(), "x.pt")
    command = ["train", "model=mobilenetv2", "model.width=0.1", "weights=x.pt", "freeze=stem.*"]
    command += ["head_lr_factor=10", "epochs=2", "image_size=8", "device=cpu", "batch_size=512"]
    command += ["threads=1"]
    assert main([*command, "out=whole"]) == 0
    steps = []

    def ends_the_fourth_step(self, images):
        steps.append(images)
        if len(steps) == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(EpochProgress, "images_done", ends_the_fourth_step)
        assert main([*command, "out=cut"]) == 128 + signal.SIGTERM
    assert main([*command, "out=cut"]) == 0
    whole, cut = (
        next(tmp_path.glob(f"{out}/*/*/*/result.json")).parent for out in ("whole", "cut")
    )
    assert len(json.loads((cut / "env.json").read_text())["starts"]) == 2
    assert_equal_runs(whole, cut)
