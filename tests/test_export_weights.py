"""Weights that others published: their export, and the two networks whose input is converted."""

import hashlib
import json

import pytest
import torch
from test_eval_weights import folder  # noqa: F401  (a fixture)
from torchvision import models

from lwbench.cli import main
from lwbench.commands._eval_weights import network_of_weights
from lwbench.commands._weights import read_weights
from lwbench.models.public import published_digests
from lwbench.registry import MODELS

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.mark.slow
def test_public_weights_are_quantised_and_take_bytes(
    folder,  # noqa: F811
    tmp_path,
    monkeypatch,
) -> None:
    name = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    torch.manual_seed(0)
    model = models.squeezenet1_1()
    torch.nn.init.normal_(model.classifier[1].weight, 0.0, 0.1)
    place = tmp_path / "hub" / "checkpoints"
    place.mkdir(parents=True)
    torch.save(model.state_dict(), place / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("lwbench.models.public._verify", lambda *_: None)
    words = ["weights=torchvision:SqueezeNet1_1_Weights.IMAGENET1K_V1", "data=imagenet"]
    words += ["model=squeezenet_11", f"data.root={folder}", f"out={tmp_path}", "preprocess=true"]
    assert main(["export", *words]) == 0
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["comparison"]["images"] == 20
    assert card["comparison"]["changed_answers"] == 0
    assert card["comparison"]["largest_difference"] < 1e-4 * card["comparison"]["largest_logit"]
    assert card["input"]["shape"] == ["batch", 224, 224, 3]
    assert "prepared by Pillow (resize 256, bilinear, crop 224)" in card["input"]["preprocessing"]
    assert main(["export", *words, "quantize=int8", "batch=4"]) == 0
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["quantization"]["calibration_images"] == 10
    assert card["quantization"]["int8"]["bytes"] < card["quantization"]["float32"]["bytes"] / 3


def test_the_digests_of_published_files_are_known() -> None:
    assert published_digests("googlenet") == {"1378be20"}
    assert published_digests("inception_v3") == {"0cc3c7bd"}


@pytest.fixture(scope="module")
def googlenet(tmp_path_factory):
    """A network of torchvision's with the conversion, and the file of its weights."""
    torch.manual_seed(0)
    model = models.googlenet(num_classes=3, aux_logits=False, init_weights=False)
    model.transform_input = True
    path = tmp_path_factory.mktemp("weights") / "googlenet.pth"
    torch.save(model.state_dict(), path)
    return model.eval(), path


@pytest.mark.parametrize("is_published", [True, False])
def test_a_published_file_is_used_as_its_tag(is_published, googlenet, monkeypatch, caplog) -> None:
    theirs, path = googlenet
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if is_published else "0" * 64
    monkeypatch.setattr("lwbench.models.public.published_digests", lambda arch: {digest[:8]})
    spec = MODELS.spec({"builder": "torchvision", "arch": "googlenet"})
    ours, _ = network_of_weights(spec, read_weights(str(path)), ["a", "b", "c"])
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        apart = float((ours.eval()(images) - theirs(images)).abs().max())
    assert (apart == 0) == is_published
    # in the other case the reader is told, and how to convert
    assert ("preprocess.mean=[0.5,0.5,0.5]" in caplog.text) != is_published
