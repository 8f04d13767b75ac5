"""`lwbench export`: what the files compute, what the card says, and when it is refused."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import lwbench
from lwbench.cli import main
from lwbench.commands import _exporting
from lwbench.deploy.export import program, write
from lwbench.deploy.preprocess import Pixels
from lwbench.deploy.verify import Comparison, compare
from lwbench.errors import LwbenchError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

# small enough to be exported in a second: a deformable stem, a norm, a depthwise layer
TINY = """
from torch import nn
from lwbench.layers.deform import stem_conv

def tiny(num_classes, *, stem: str = "ldc"):
    return nn.Sequential(
        stem_conv(3, 8, stem=stem), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 32, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, num_classes),
    )
"""
# a dozen would take a minute; the slow test has them all
QUICK = (
    "dc0", "ghostnet_05", "ldc0", "ldc3", "mb0", "mobilenetv1_025", "mobilenetv1_05",
    "mobilenetv2", "mobilenetv3_small", "shufflenetv1_05_g8", "shufflenetv2_05", "squeezenet_11",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network of two epochs on digits at 16 px."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.py").write_text(TINY)
    words = [f"model.path={folder / 'tiny.py'}", "model.function=tiny", "image_size=16"]
    record = lwbench.train(*words, model="file", data="digits", epochs=2, out=str(folder / "runs"))
    return record.run.path


def exported(run: Path, folder: Path, *words: str) -> tuple[int, dict]:
    """Export into a folder; the exit code and the card."""
    code = main(["export", f"run={run}", f"out={folder}", "trust_code=true", *words])
    return code, json.loads((folder / "card.json").read_text())


@pytest.fixture(scope="module")
def first(run, tmp_path_factory) -> tuple[Path, int, dict]:
    """The folder, exit code and card of an export with nothing but defaults."""
    folder = tmp_path_factory.mktemp("export")
    return folder, *exported(run, folder)


def operators(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def test_a_run_is_exported_with_its_proof(run, first) -> None:
    folder, code, card = first
    assert code == 0
    found, result = card["comparison"], json.loads((run / "result.json").read_text())
    assert found["images"] == card["data"]["test_size"] == 355
    assert found["torch_top1"] == pytest.approx(result["final"]["test_top1"], abs=0.3)
    assert found["runtime_top1"] == found["torch_top1"]
    assert found["mcnemar_p"] == 1.0
    assert 0 < found["largest_difference"] < 1e-4 * found["largest_logit"]
    assert card["verdict"] == "top-1 is within 0.1 points of PyTorch's"
    assert card["files"][0]["bytes"] == (folder / "model.onnx").stat().st_size
    assert card["recipe"]["epochs"] == 2
    assert "DeformConv" in operators(folder / "model.onnx")
    assert sorted(p.name for p in folder.iterdir()) == ["card.json", "card.md", "model.onnx"]
    page = (folder / "card.md").read_text()
    assert f"{found['runtime_top1']:.2f} %" in page
    assert "| license | not stated |" in page


def test_the_graph_takes_bytes_and_any_batch(run, tmp_path) -> None:
    code, card = exported(run, tmp_path, "preprocess=true", "deploy=true", "license=CC0-1.0")
    assert code == 0
    assert card["comparison"]["changed_answers"] == 0
    assert card["input"]["shape"] == ["batch", 32, 32, 3]
    assert card["input"]["type"] == "uint8"
    assert card["license"] == "CC0-1.0"
    assert "resized to 16 px" in card["input"]["preprocessing"]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert session.get_inputs()[0].shape == ["batch", 32, 32, 3]
    for count in (1, 3):
        images = np.zeros((count, 32, 32, 3), np.uint8)
        assert session.run(None, {"images": images})[0].shape == (count, 10)


def test_deformable_convolutions_are_decomposed_and_batches_fixed(run, tmp_path) -> None:
    # 355 images are no multiple of 50: the last batch is filled up
    code, card = exported(run, tmp_path, "deform=decompose", "batch=50")
    assert code == 0
    assert card["comparison"]["images"] == 355
    assert card["comparison"]["changed_answers"] == 0
    assert "DeformConv" not in operators(tmp_path / "model.onnx")
    assert card["input"]["shape"] == [50, 3, 16, 16]
    # the training's recipe, not the comparison's
    assert card["recipe"]["batch_size"] == 128


@pytest.mark.slow
def test_an_exported_program_answers_alike(run, tmp_path) -> None:
    code, card = exported(run, tmp_path, "format=torch_export")
    assert code == 0
    assert card["comparison"]["changed_answers"] == 0
    assert card["files"][0]["name"] == "model.pt2"


def test_int8_is_smaller_and_states_what_it_costs(run, tmp_path) -> None:
    code, card = exported(run, tmp_path, "quantize=int8", "calibration_images=64")
    assert code == 0
    found = card["quantization"]
    assert found["calibration_images"] == 64
    assert found["int8"]["bytes"] == (tmp_path / "model.onnx").stat().st_size
    assert found["int8"]["top1"] == card["comparison"]["runtime_top1"]
    assert found["int8"]["top1"] > found["float32"]["top1"] - 5
    assert min(found["int8"]["latency_ms"], found["float32"]["latency_ms"]) > 0
    assert "QuantizeLinear" in operators(tmp_path / "model.onnx")
    # a real comparison: rounding to 8 bits shows
    assert card["comparison"]["largest_difference"] > 1e-3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["card.json", "card.md", "model.onnx"]


@pytest.mark.slow
def test_sensitivity_lists_every_layer_with_weights(run, tmp_path) -> None:
    words = ("quantize=int8", "sensitivity=true", "sensitivity_images=100")
    _, card = exported(run, tmp_path, *words)
    rows = card["quantization"]["sensitivity"]
    # depthwise, pointwise and the classifier, and the branches of offsets and masks
    assert len(rows) == 7
    assert all(0 <= row["top1"] <= 100 for row in rows)


def test_an_export_beyond_the_tolerance_exits_with_1_and_says_so(
    run, tmp_path, monkeypatch, capsys
) -> None:
    from lwbench.deploy import runtime

    load = runtime.runtime
    # a runtime that mixes up two classes
    wrong = lambda *given: lambda x: load(*given)(x)[:, [1, 0, *range(2, 10)]]  # noqa: E731
    monkeypatch.setattr(runtime, "runtime", wrong)
    code, card = exported(run, tmp_path)
    assert code == 1
    assert card["verdict"].startswith("refused: top-1 differs by")
    assert card["comparison"]["changed_answers"] > 30
    assert card["comparison"]["mcnemar_p"] < 0.01
    assert "more than tolerance=0.1" in capsys.readouterr().err


def test_without_images_the_accuracy_is_unproven(run, tmp_path, capsys) -> None:
    network = ["model=file", f"model.path={run / 'sources' / 'tiny.py'}", "model.function=tiny"]
    words = [*network, "image_size=16", "num_classes=7", f"out={tmp_path}"]
    assert main(["export", *words]) == 0
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["verdict"] == "accuracy unproven: only generated images were compared"
    assert card["comparison"]["torch_top1"] is None
    assert card["weights"] == "random"
    assert card["num_classes"] == 7
    assert "accuracy is unproven" in capsys.readouterr().err


def test_a_file_of_weights_is_compared_on_the_images_that_are_named(run, tmp_path) -> None:
    state = torch.load(run / "checkpoints" / "last.pt", weights_only=True)["model"]
    torch.save({"state_dict": state}, tmp_path / "net.pth")
    network = ["model=file", f"model.path={run / 'sources' / 'tiny.py'}", "model.function=tiny"]
    words = [*network, "data=digits", "image_size=16", "preprocess=true", f"out={tmp_path}"]
    assert main(["export", *words, f"weights={tmp_path / 'net.pth'}"]) == 0
    card = json.loads((tmp_path / "card.json").read_text())
    final = json.loads((run / "result.json").read_text())["final"]
    assert card["comparison"]["images"] == 355
    assert card["comparison"]["runtime_top1"] == pytest.approx(final["test_top1"], abs=0.3)
    assert card["comparison"]["changed_answers"] == 0
    assert card["input"]["shape"] == ["batch", 32, 32, 3]
    assert card["weights"].startswith(f"{tmp_path / 'net.pth'} (sha256:")
    words += [f"weights={tmp_path / 'net.pth'}", "quantize=int8", "calibration_images=64"]
    assert main(["export", *words]) == 0
    card = json.loads((tmp_path / "card.json").read_text())
    found = card["quantization"]
    assert found["calibration_images"] == 64
    assert found["float32"]["top1"] == pytest.approx(final["test_top1"], abs=0.3)
    assert found["int8"]["top1"] > found["float32"]["top1"] - 5
    assert found["int8"]["bytes"] == (tmp_path / "model.onnx").stat().st_size


def test_normalised_images_give_their_bytes_back_exactly() -> None:
    from torchvision.transforms.functional import normalize

    every = torch.arange(256, dtype=torch.uint8).expand(3, -1).reshape(1, 3, 16, 16)
    pixels = Pixels(16, 16, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    images = normalize(every / 255, pixels.mean, pixels.std)
    assert pixels.bytes_of(images).permute(0, 3, 1, 2).equal(every)


def test_a_failed_export_leaves_the_earlier_one(run, first, monkeypatch) -> None:
    folder = first[0]
    before = {path: path.read_bytes() for path in folder.iterdir()}

    def fail(subject: object, options: object, partial: Path) -> str:
        (partial / "model.onnx").write_bytes(b"half")
        raise LwbenchError("the runtime fails")

    monkeypatch.setattr(_exporting, "export", fail)
    assert main(["export", f"run={run}", f"out={folder}", "trust_code=true"]) == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["quantize=int8", "format=torch_export"], "quantize=int8 is for format=onnx"),
        (["sensitivity=true"], "needs quantize=int8"),
        (["batch=0"], "expected dynamic or a number"),
        (["preprocess=true", "model=mobilenetv1_025", "image_size=32"], "needs the data set"),
        (["quantize=int8", "model=mobilenetv1_025", "image_size=32"], "on training images: it"),
        (["run=nowhere"], "not a run directory"),
        (["run=nowhere", "model=ldc0"], "'model' belongs to the run"),
    ],
)
def test_wrong_requests_are_refused(words, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", *words]) == 2
    assert message in capsys.readouterr().err


def test_mcnemars_p_is_the_exact_binomial_one() -> None:
    found = Comparison(images=1000, labelled=True, only_torch=8, only_runtime=1)
    # both tails of 9 fair coins with at most one head: 2 * (1 + 9) / 512
    assert found.p == pytest.approx(20 / 512)
    assert "0.70 points" in found.failure(0.1)
    assert found.failure(0.7) == ""
    assert found.failure(None) == ""


def test_logits_that_are_not_finite_are_an_error() -> None:
    network = torch.nn.Flatten()
    images = torch.ones(2, 3, 1, 1)
    nan = lambda x: np.full((2, 3), np.nan, np.float32)  # noqa: E731
    with pytest.raises(LwbenchError, match="of the runtime are not comparable"):
        compare(network, nan, [(images.numpy(), images, None)])


def test_a_network_that_branches_on_its_values_is_an_error_with_a_reason(tmp_path) -> None:
    class Branching(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1) if bool(x.sum() > 0) else -x.flatten(1)

    with pytest.raises(LwbenchError, match="cannot be exported"):
        write(program(Branching(), torch.ones(3, 4, 4), batch=None), "onnx", tmp_path)


@pytest.fixture(scope="module")
def zoo():
    path = Path(__file__).parent.parent / "scripts" / "check_exports.py"
    spec = importlib.util.spec_from_file_location("check_exports", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", QUICK)
def test_a_network_of_the_zoo_agrees_in_onnxruntime(zoo, name) -> None:
    found = zoo.check(name)
    assert found.spread >= zoo.SPREAD
    assert found.relative <= zoo.BOUND


@pytest.fixture
def measured() -> Path:
    folder = Path(__file__).parent.parent / "outputs" / "measured"
    if not folder.exists():
        pytest.skip("not in a checkout")
    return folder


def test_the_recorded_exports_are_of_every_network_and_within_the_bounds(zoo, measured) -> None:
    rows = zoo.recorded()
    assert [row["name"] for row in rows] == sorted(zoo.names())
    for row in rows:
        assert 0 < float(row["relative_difference"]) <= zoo.BOUND, row["name"]
        assert float(row["spread"]) >= zoo.SPREAD, row["name"]


def test_the_table_of_int8_is_that_of_the_records(measured) -> None:
    with open(measured / "int8.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    page = (measured.parent.parent / "docs" / "deployment.md").read_text(encoding="utf-8")
    assert len({row["network"] for row in rows}) >= 6
    for row in rows:
        assert row["images"] == "10000"
        figures = [f"{float(row[f'{form}_top1']):.2f} %" for form in ("float32", "int8")]
        figures += [f"{int(row[f'{form}_bytes']) / 1e6:.2f}" for form in ("float32", "int8")]
        figures += [f"{float(row[f'{form}_latency_ms']):.2f}" for form in ("float32", "int8")]
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{row['network']}` |")]
        assert all(f"| {figure} |" in line for figure in figures), row["network"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_network_of_the_zoo_agrees_in_onnxruntime(zoo) -> None:
    failed = [found for name in zoo.names() if not (found := zoo.check(name)).passes]
    assert not failed


@pytest.mark.slow
def test_openvino_answers_alike(run, tmp_path) -> None:
    pytest.importorskip("openvino")
    code, card = exported(run, tmp_path, "format=openvino")
    assert code == 0
    assert card["comparison"]["changed_answers"] == 0
    assert [one["name"] for one in card["files"]] == ["model.xml", "model.bin"]
