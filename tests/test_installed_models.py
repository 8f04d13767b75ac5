"""Networks of installed packages, by the entry-point group `lwbench.models`."""

import sys
from pathlib import Path

import pytest

from lwbench.cli import main
from lwbench.config import specs, train_config
from lwbench.errors import UsageError
from lwbench.registry import MODELS
from lwbench.runs.records import records

CODE = """
from torch import nn


def acme_net(num_classes: int, *, width: float = 1.0) -> nn.Module:
    channels = int(4 * width)
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(channels, num_classes),
    )
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A distribution `acme-nets` with one good network and one that cannot be imported."""
    info = tmp_path / "acme_nets-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-nets\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[lwbench.models]\nacme_net = acme_nets:acme_net\nbroken = acme_missing:net\n"
    )
    (tmp_path / "acme_nets.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("acme_nets", None)


def test_it_is_listed_and_planned_without_being_imported(package, capsys):
    assert main(["list", "model", "data"]) == 0  # without counts
    assert "acme_net  " in (out := capsys.readouterr().out)
    assert "of the installed package acme-nets 1.2" in out
    config = train_config(["model=acme_net", "model.width=2.0"])
    assert config.model_name == "acme_net" and config.model.spec["width"] == 2.0
    assert "acme_nets" not in sys.modules
    assert "acme_net" in MODELS.names() and MODELS.packages() == ["acme-nets"]


def test_it_is_trained_with_its_arguments_checked(package, capsys):
    keys = ["train", "model=acme_net", "epochs=1", "threads=1"]
    assert main([*keys, "model.width=wide"]) == 2
    assert "model.width='wide': input should be a valid number" in capsys.readouterr().err
    assert main([*keys, "model.width=0.5"]) == 0
    (record,) = records(Path("outputs"))
    assert record.result.model == "acme_net"
    assert record.starts[0].versions["acme-nets"] == "1.2"


def test_a_package_that_cannot_be_imported_is_a_line(package):
    with pytest.raises(UsageError, match=r"'broken' of the installed package acme-nets 1\.2: Mod"):
        specs(train_config(["model=broken"]))
    assert MODELS.spec({"builder": "acme_net"}).arguments == {"width": 1.0}
