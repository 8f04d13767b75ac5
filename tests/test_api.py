"""The Python interface: lazy, typed, and what the commands use."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import lwbench
from lwbench import api
from lwbench.cli import main
from lwbench.errors import UsageError

ROOT = Path(__file__).parent.parent


def test_importing_lwbench_loads_neither_torch_nor_the_interface():
    code = (
        "import sys, lwbench; assert 'lwbench.api' not in sys.modules;"
        "names = lwbench.list_models('shuffle*');"
        "assert names[0] == 'shufflenetv1_05_g8', names;"
        "sys.exit(bool({'torch', 'pandas'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_name_of_the_package_is_documented_and_typed():
    assert set(lwbench.__all__) - {"__version__"} == set(api.__all__)
    for name in api.__all__:
        assert getattr(lwbench, name) is getattr(api, name) and getattr(api, name).__doc__
    assert set(api.__all__) <= set(dir(lwbench))
    assert (ROOT / "lwbench" / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lwbench.nothing


def test_lists_name_networks_that_can_be_made():
    names = lwbench.list_models()
    assert {"ldc3", "mb0", "timm"} <= set(names) and "file" not in names
    assert lwbench.list_models("nothing*") == []


def test_a_network_is_made_with_the_arguments_of_the_command():
    network = lwbench.create_model("mb0", num_classes=7, stem="ldc")
    assert any("offset" in name for name, _ in network.named_parameters())
    for name, arguments, message in [
        ("mb7", {}, "no model 'mb7'; nearest: mb0"),
        ("mb0", {"stem": "lcd"}, r"model\.stem='lcd'"),
        ("mb0", {"depth": 3}, r"unknown key 'model\.depth'"),
        ("file", {}, "model.path is needed"),
    ]:
        with pytest.raises(UsageError, match=message):
            lwbench.create_model(name, **arguments)


def test_counts_are_those_of_the_command_and_print_a_table(capsys):
    cost = lwbench.count(lwbench.create_model("mb0", num_classes=10), image_size=32)
    keys = ["model=mb0", "image_size=32", "num_classes=10", "layers=true", "format=json"]
    assert main(["profile", *keys]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert cost.params == shown["params"]
    assert cost.macs["thop2020"] == shown["macs"]["thop2020"]
    assert len(cost.layers) == len(shown["layers"])
    lines = str(cost).splitlines()
    assert lines[0].split() == ["parameters", f"{cost.params:,}"]
    assert sum(int(line.split()[2].replace(",", "")) for line in lines[-len(cost.layers) :]) == (
        cost.params
    )
    from torch import nn

    assert lwbench.count(nn.Conv2d(1, 2, 3), image_size=5, in_channels=1).macs["plain"] == 162


def test_runs_of_the_interface_are_those_of_the_command(tmp_path, monkeypatch, capsys):
    pandas = pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "from torch import nn\n\n\ndef net(num_classes, *, width: int = 2):\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3, 8), nn.Flatten(),\n"
        "                         nn.Linear(16 * width, num_classes))\n"
    )
    words = ["model.path=net.py", "model.function=net"]
    run = lwbench.train(
        *words, model="file", epochs=1, threads=1, label_smoothing=0.0, extend=False
    )
    assert run.result.model == "net" and len(run.metrics) == 1
    assert main(["train", "model=file", *words, "epochs=1"]) == 0
    assert f"finished earlier: {run.run.path}" in capsys.readouterr().out
    frame = lwbench.load_runs("outputs")
    assert isinstance(frame, pandas.DataFrame) and len(frame) == 1
    row = frame.iloc[0]
    assert (row["model.width"], row["seed"], row["path"]) == (2, 0, str(run.run.path))
    assert row["test_top1"] == run.result.final.test_top1
    with pytest.raises(UsageError, match="unknown key 'epoch'"):
        lwbench.train(epoch=1)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="load_runs needs pandas"):
        lwbench.load_runs()


def test_the_tutorial_runs_on_digits(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pandas")
    source = (ROOT / "docs" / "tutorial.py").read_text()
    assert source.startswith("# %% [markdown]\n") and source.count("\n# %%") > 8
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "docs" / "tutorial.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert said.count("\nfinished: outputs/digits/tiny_net/") == 4 and "model.width" in said
