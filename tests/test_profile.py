"""`lwbench profile`: the deploy form, the picture of stages, and headers that say MACs."""

import contextlib
import csv
import io
import json

import pytest

from lwbench.cli import main
from lwbench.measure.picture import draw, stages

SMALL = ["model=mb0", "image_size=32", "num_classes=10"]


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """The profile of a network with its layers and deploy form, and its picture."""
    path = tmp_path_factory.mktemp("pictures") / "new" / "mb0.svg"
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        options = ["deploy=true", "layers=true", f"picture={path}", "format=json"]
        assert main(["profile", *SMALL, *options]) == 0
    return json.loads(out.getvalue()), path


def test_the_deploy_form_is_counted_beside_the_network(profiled):
    found, _ = profiled
    form = found["deploy"]
    assert form["params"] < found["params"]
    assert form["macs"]["plain"] == found["macs"]["plain"]
    assert form["macs"]["fvcore"] < found["macs"]["fvcore"]  # which counts norms
    assert 0 <= form["largest_difference"] < 1e-3 * form["largest_output"]
    assert (form["images"], form["images_from"]) == (16, "generated")


def test_stages_add_up_to_the_network(profiled):
    found, _ = profiled
    bars = stages(found["layers"])
    assert sum(bar["macs"] for bar in bars) == found["macs"]["plain"]
    assert sum(bar["params"] for bar in bars) == found["params"]
    assert 5 < len(bars) < len(found["layers"])


def test_the_picture_shows_the_cost_per_stage(profiled, tmp_path):
    found, path = profiled
    assert path.read_bytes().startswith(b"<?xml")
    draw(found, tmp_path / "mb0.png")
    assert (tmp_path / "mb0.png").read_bytes().startswith(b"\x89PNG")


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


@pytest.mark.parametrize("value", ["a.pdf", "a"])
def test_another_picture_format_is_refused(value, capsys):
    assert main(["profile", *SMALL, f"picture={value}"]) == 2
    assert "expected a file that ends in .png or .svg" in capsys.readouterr().err
