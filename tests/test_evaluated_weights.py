"""Weights trained elsewhere in published cells: records of `eval weights=`, tables, the report."""

import json
from pathlib import Path

import pytest
import torch
from test_eval_weights import KEYS, folder  # noqa: F401  (a fixture)
from torchvision import models

from lwbench.cli import main
from lwbench.data.wnids import imagenet_wnids
from lwbench.runs import images
from lwbench.runs.evaluations import evaluations

TABLE = """
columns:
  params: {kind: params}
  imagenet_top1: {kind: top1, data: imagenet}
  imagenet_top5_error: {kind: top5_error, data: imagenet}
rows:
  - {label: net, run: "model=squeezenet_11 image_size=64", imagenet_top1: "10.0"}
  - {label: larger, run: "model=squeezenet_11", imagenet_top1: "10.0"}
  - {label: other, run: "model=squeezenet_10 image_size=64", imagenet_top1: "10.0"}
"""


@pytest.fixture
def published(folder, monkeypatch, tmp_path):  # noqa: F811
    """The small folder as if it were ImageNet as published, and a table with a cell for it."""
    wnids = sorted(imagenet_wnids()[number] for number in (900, 3, 17, 500, 1))
    known = images.PublishedSet(30, 5, 10, images.digest_of_names(wnids))
    monkeypatch.setitem(images.PUBLISHED, "imagenet", known)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = models.squeezenet1_1()
    with torch.no_grad():
        model.classifier[1].bias[3] = 100.0  # always the same class: a fifth is right
    torch.save(model.state_dict(), tmp_path / "squeezenet.pth")
    (tmp_path / "mine.yaml").write_text(TABLE)
    return folder


def evaluate(folder, *arguments):  # noqa: F811
    keys = ["data=imagenet", f"data.root={folder}", "image_size=64", "device=cpu", *KEYS]
    weights = "weights=squeezenet.pth"
    return main(["eval", "model=squeezenet_11", weights, *keys, *arguments])


def cells(capsys, *arguments):
    capsys.readouterr()
    assert main(["table", "table=mine.yaml", "format=json", *arguments]) == 0
    return {(c["row"], c["column"]): c for c in json.loads(capsys.readouterr().out)}


def test_weights_fill_the_cell_of_their_network_and_reproduce_nothing(
    published,
    capsys,
):
    assert evaluate(published) == 0
    assert "record       outputs/imagenet/squeezenet_11/evaluated-" in capsys.readouterr().out
    (one,) = evaluations(Path("outputs"))
    found = cells(capsys)
    top1, error = found["net", "imagenet_top1"], found["net", "imagenet_top5_error"]
    assert (top1["verdict"], top1["measured"], top1["n"]) == ("open", None, None)
    assert [e["value"] for e in top1["evaluated"]] == [one.test_top1] == [20.0]
    assert [e["value"] for e in error["evaluated"]] == [100 - one.test_top5]
    assert top1["evaluated"][0]["weights"].startswith("sha256:")
    assert not top1["evaluated"][0]["is_public"]
    # neither another input size nor another network
    assert {row for (row, _), cell in found.items() if cell["evaluated"]} == {"net"}
    # a reduced study is another recipe
    assert not any(c["evaluated"] for c in cells(capsys, "epochs=1").values())
    main(["table", "table=mine.yaml"])
    out = " ".join(capsys.readouterr().out.split())  # lines are broken at the terminal's width
    assert f"net, imagenet_top1: evaluated, weights of squeezenet.pth ({one.weights}):" in out
    assert f"{one.test_top1:.2f} ◇" in out and "· open: not run yet" in out
    # the same command again replaces its record
    assert evaluate(published) == 0 and len(evaluations(Path("outputs"))) == 1


def test_a_part_of_a_set_and_weights_in_part_leave_no_record(
    published,
    monkeypatch,
    capsys,
):
    assert evaluate(published, "weights_partial=true") == 0
    assert "record       none" in capsys.readouterr().out
    assert evaluate(published, "out=null") == 0
    assert "record" not in capsys.readouterr().out
    monkeypatch.setitem(images.PUBLISHED, "imagenet", images.PublishedSet(31, 5, 10))
    assert evaluate(published) == 0
    assert "shows it: 20 test images instead of 21" in capsys.readouterr().out
    assert not Path("outputs").exists()


def test_a_record_is_validated_before_a_table_shows_it(published, capsys, caplog):
    assert evaluate(published) == 0
    (path,) = Path("outputs").glob("*/*/evaluated-*.json")
    good = json.loads(path.read_text())
    for change, message in (
        ({"test_top1": 101.0}, "is damaged and left out"),
        ({"images": good["images"] | {"test_size": 19}}, "19 test images instead of 20"),
        ({"images": {}}, "are not recorded"),
        ({"network": {"builder": 3}}, None),
    ):
        path.write_text(json.dumps(good | change))
        found = cells(capsys)
        assert not any(cell["evaluated"] for cell in found.values())
        assert message is None or message in caplog.text


def test_public_weights_are_named_by_their_tag(published, monkeypatch, capsys):
    weights = models.SqueezeNet1_1_Weights.IMAGENET1K_V1
    monkeypatch.setenv("TORCH_HOME", str(published))
    torch.manual_seed(0)
    place = published / "hub" / "checkpoints"
    place.mkdir(parents=True, exist_ok=True)
    torch.save(models.squeezenet1_1().state_dict(), place / weights.url.rpartition("/")[2])
    monkeypatch.setattr("lwbench.models.public._verify", lambda *_: None)
    tag = "torchvision:SqueezeNet1_1_Weights.IMAGENET1K_V1"
    keys = ["data=imagenet", f"data.root={published}", "device=cpu", f"weights={tag}"]
    assert main(["eval", "model=squeezenet_11", *keys]) == 0
    cell = cells(capsys)["larger", "imagenet_top1"]  # at 224 px, as its authors did
    assert cell["evaluated"][0]["weights"] == tag and cell["evaluated"][0]["is_public"]
    assert cell["evaluated"][0]["image_size"] == 224 and cell["verdict"] == "open"
    main(["table", "table=mine.yaml", "format=markdown"])
    assert "evaluated, public weights torchvision:SqueezeNet1\\_1" in capsys.readouterr().out
