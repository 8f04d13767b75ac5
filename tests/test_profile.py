"""`lwbench profile`: the deploy form, the picture of stages, and headers that say MACs."""

import csv
import io
import json

import pytest

from lwbench.cli import main
from lwbench.measure.picture import stages

SMALL = ["model=mb0", "image_size=32", "num_classes=10"]


def test_the_deploy_form_is_counted_beside_the_network(capsys):
    assert main(["profile", *SMALL, "deploy=true", "format=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    form = found["deploy"]
    assert form["params"] < found["params"]
    assert form["macs"]["plain"] == found["macs"]["plain"]
    assert form["macs"]["fvcore"] < found["macs"]["fvcore"]  # which counts norms
    assert 0 <= form["largest_difference"] < 1e-3 * form["largest_output"]
    assert (form["images"], form["images_from"]) == (16, "generated")


def test_the_deploy_form_is_compared_on_real_images(capsys):
    assert main(["profile", *SMALL, "deploy=true", "data=digits"]) == 0
    out = capsys.readouterr().out
    assert "largest difference of the outputs, float32, 16 images (test images of digits)" in out
    assert "MACs of the deploy form by rule" in out


def test_every_header_of_a_count_says_macs(capsys):
    assert main(["profile", *SMALL, "format=csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert {"macs_plain", "macs_fvcore", "macs_flop_counter"} <= set(row)
    assert "plain" not in row


@pytest.mark.parametrize("suffix, start", [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_the_picture_shows_the_cost_per_stage(suffix, start, tmp_path, capsys):
    path = tmp_path / "pictures" / f"mb0.{suffix}"
    assert main(["profile", *SMALL, f"picture={path}"]) == 0
    assert path.read_bytes().startswith(start)


def test_stages_add_up_to_the_network(capsys):
    assert main(["profile", *SMALL, "layers=true", "format=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    bars = stages(found["layers"])
    assert sum(bar["macs"] for bar in bars) == found["macs"]["plain"]
    assert sum(bar["params"] for bar in bars) == found["params"]
    assert 5 < len(bars) < len(found["layers"])


@pytest.mark.parametrize("value", ["a.pdf", "a"])
def test_another_picture_format_is_refused(value, capsys):
    assert main(["profile", *SMALL, f"picture={value}"]) == 2
    assert "expected a file that ends in .png or .svg" in capsys.readouterr().err
