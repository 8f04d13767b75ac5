"""Networks from a Python file of the user's: read without being run, digested, stored, trusted."""

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from lwbench.cli import main
from lwbench.commands._config_dir import using_config_dir
from lwbench.config import expanded, train_config
from lwbench.errors import UsageError
from lwbench.runs import sources as sources_module
from lwbench.runs.directory import Run
from lwbench.runs.network_file import signature
from lwbench.runs.records import archive, records
from lwbench.runs.sources import read_sources

MY_NET = textwrap.dedent("""
    from torch import nn
    from layers.head import Head


    def my_net(num_classes: int, *, width: float = 1.0, act: str = "relu"):
        channels = int(4 * width)
        return nn.Sequential(nn.Conv2d(3, channels, 3, 4), nn.ReLU(), Head(channels, num_classes))
""")
HEAD = textwrap.dedent("""
    from torch import nn


    class Head(nn.Linear):
        def forward(self, x):
            return super().forward(x.mean((2, 3)))
""")
KEYS = ["model=file", "model.path=my_net.py", "model.function=my_net"]


def write(folder, **files):
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/', 1)}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources_module, "_allowed", set())
    write(tmp_path, my_net=MY_NET, layers__head=HEAD)
    return tmp_path


def test_arguments_are_read_and_validated_without_running_the_file(folder):
    (folder / "my_net.py").write_text("raise SystemExit\n" + MY_NET)
    config = train_config([*KEYS, "model.width=0.5"])
    assert config.model_name == "my_net"
    assert config.model.spec["width"] == 0.5 and config.model.spec["act"] == "relu"
    for wrong, message in [
        ("model.width=wide", "model.width='wide': input should be a valid number"),
        ("model.widht=1", "unknown key 'model.widht'; nearest: width"),
        ("model.act=null", "model.act=None"),
        ("model.digest=0123", "is not the code of this run"),
    ]:
        with pytest.raises(UsageError, match=message):
            train_config([*KEYS, wrong])
    with pytest.raises(UsageError, match=r"unknown key 'model\.widht'"):
        train_config(["model=mb0", "model.widht=1"])


def test_planning_loads_no_torch(folder):
    code = (
        "import sys; from lwbench.cli import main; code = main(sys.argv[1:]); "
        "sys.exit(3 if 'torch' in sys.modules else code)"
    )
    words = [sys.executable, "-c", code, "train", "-m", *KEYS, "model.width=1,2", "--cfg"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "width: 2" in done.stdout


def identity(*more):
    return train_config([*KEYS, *more]).identity


def test_an_edited_file_or_module_is_another_run_and_a_moved_one_is_the_same(folder):
    first = identity()
    assert identity("model.width=1.0") == first  # the default, given
    assert identity("model.width=2.0") != first
    (folder / "unrelated.py").write_text("x = 1\n")
    assert identity() == first
    write(folder, layers__head=HEAD + "\n# changed\n")
    assert identity() != first
    write(folder, layers__head=HEAD)
    moved = folder / "elsewhere"
    moved.mkdir()
    for name in ("my_net.py", "layers"):
        (folder / name).rename(moved / name)
    assert identity("model.path=elsewhere/my_net.py") == first


def test_imports_are_followed_within_the_folder(folder):
    write(
        folder,
        my_net="def f():\n    import a.b\n    from . import outside\n    import json, torch, none",
        a____init__="from . import c",
        a__b="from .c import x\nfrom ..d import y\nimport e as f",
        a__c="x = 1",
        d="y = 2",
        e="import my_net",
        json="never loaded",
        unused="",
    )
    found = read_sources(folder / "my_net.py")
    assert sorted(found.files) == ["a/__init__.py", "a/b.py", "a/c.py", "e.py", "my_net.py"]


SIGNATURES = textwrap.dedent("""
    from typing import Annotated, Literal, Optional
    from torch import nn
    import torch
    from layers.head import Head as Renamed

    def kinds(n, /, a: int, b: "float", *, c: Optional[int] = None, d: Literal["x", "y"] = "x",
              e: tuple[int, ...] = (1, 2), f=True, g=nn.ReLU, h: torch.dtype = torch.float32,
              i: Annotated[int, "even"] = 2, j: str | None = None, **rest): ...

    class Base(nn.Module):
        def __init__(self, num_classes, depth: int = 3): ...

    class Net(Base):
        pass

    if True:
        def nested(path): ...
    made = kinds
""")


def test_signatures_of_functions_and_classes(folder):
    write(folder, my_net=SIGNATURES)
    found = read_sources(folder / "my_net.py")
    kinds = signature(found, "kinds")
    assert kinds.is_open and kinds.takes_num_classes and kinds.tuples == {"e"}
    assert {k: v[1] for k, v in kinds.fields.items() if k not in "gh"} == {
        "a": ..., "b": ..., "c": None, "d": "x", "e": [1, 2], "f": True, "i": 2, "j": None,
    }  # fmt: skip
    assert [kinds.fields[k][0] for k in "abefi"] == [int, float, list[int], bool, int]
    net = signature(found, "Net")
    assert net.takes_num_classes and list(net.fields) == ["depth"] and not net.is_open
    assert not signature(found, "Renamed").fields
    for name, message in [
        ("nested", "my_net.py:18: the argument 'path' needs another name"),
        ("made", "my_net.py:19: made is not defined by def or class"),
        ("nn", "my_net.py:3: nn is not defined"),
        ("kindz", "no function or class 'kindz'; nearest: kinds"),
    ]:
        with pytest.raises(UsageError, match=message):
            signature(found, name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def my_net(:", "my_net.py:1: SyntaxError: invalid syntax"),
        ("def other(): ...", "my_net.py: no function or class 'my_net'; there is: other"),
        ("import nothing\ndef my_net(): ...", "my_net.py:1: ModuleNotFoundError: No module"),
        ("def my_net():\n    return undefined", "my_net.py:2: NameError: name 'undefined'"),
        ("def my_net():\n    exit(3)", "my_net.py:2: SystemExit: 3"),
        ("def my_net():\n    return 3", "my_net returns int, not a torch.nn.Module"),
        (
            "from torch import nn\ndef my_net():\n"
            "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 7))",
            "my_net returns a tensor of shape (1, 7) for one image; a classifier of 10 classes",
        ),
        (
            "from torch import nn\nclass my_net(nn.Module):\n    def forward(self, x):\n"
            "        return x.nothing",
            "my_net.py:4: AttributeError: 'Tensor' object has no attribute 'nothing'",
        ),
        (
            "import importlib\ndef my_net():\n    return importlib.import_module('layers.head')",
            "modules of the file's folder are imported by import statements alone",
        ),
    ],
)
def test_faults_of_the_code_are_a_line_with_file_and_line(folder, text, message, capsys):
    (folder / "my_net.py").write_text(text + "\n")
    assert main(["train", *KEYS, "epochs=1", "threads=1"]) == 2
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown and shown.count("\n") <= 2
    assert not (folder / "outputs").exists()


def test_missing_files_names_of_ours_and_globs(folder, capsys):
    for keys, message in [
        (["model=file"], "model.path is needed and not given"),
        (KEYS[:2], "model.function is needed and not given"),
        ([*KEYS, "model.path=no.py"], "no Python file"),
        ([*KEYS, "model.function=ldc3"], "lwbench has a network of this name"),
    ]:
        with pytest.raises(UsageError, match=message):
            train_config(keys)
    assert ("model=file",) not in expanded(["model=glob(*)"])


@pytest.fixture
def trained(folder, capsys):
    """The directory of a run of my_net, made by the command."""
    assert main(["train", *KEYS, "epochs=1", "threads=1", "model.width=0.5"]) == 0
    sources_module._allowed.clear()  # as in the next command's process
    (record,) = records(Path("outputs"))
    assert record.result.model == "my_net"
    capsys.readouterr()
    return record


def test_a_run_keeps_its_sources_and_is_evaluated_from_them_with_trust_alone(trained, capsys):
    run = trained.run
    assert run.path.parent == Path("outputs/digits/my_net")
    kept = {p.relative_to(run.path / "sources").as_posix() for p in run.path.rglob("*.py")}
    assert kept == {"my_net.py", "layers/head.py"}
    Path("my_net.py").unlink()
    assert main(["eval", f"run={run.path}"]) == 2
    assert "trust_code=true runs it" in capsys.readouterr().err
    assert main(["eval", f"run={run.path}", "trust_code=true"]) == 0
    assert capsys.readouterr().out.count("as recorded") == 2
    copy = archive(trained, Path("outputs"))
    assert (copy / "sources" / "layers" / "head.py").exists()
    with open(run.path / "sources" / "layers" / "head.py", "a") as file:
        file.write("print('another code')\n")
    assert main(["eval", f"run={run.path}", "trust_code=true"]) == 2
    assert "is not the code of this run" in (found := capsys.readouterr()).err
    assert "another code" not in found.out


def params(capsys):
    assert main(["table", "table=mine.yaml", "trust_code=true", "format=json"]) == 0
    text = capsys.readouterr().out
    return json.loads(text[text.index("[\n") :])[0]["measured"]


def test_tables_run_no_code_without_trust(folder, capsys):
    row = f'  - {{label: one, run: "{" ".join(KEYS)} epochs=1"}}\n'
    Path("mine.yaml").write_text(
        "count: {num_classes: 10, image_size: 32}\ncolumns:\n  params: {kind: params}\n"
        "  digits_top1: {kind: top1, data: digits}\nrows:\n" + row
    )
    write(folder, my_net="print('code ran')\n" + MY_NET)
    assert main(["reproduce", "table=mine.yaml", "seeds=1", "dry_run=true"]) == 0
    assert main(["table", "table=mine.yaml"]) == 0
    assert main(["reproduce", "table=mine.yaml", "seeds=1"]) == 2
    found = capsys.readouterr()
    assert "code ran" not in found.out and "trust_code=true runs it" in found.err
    assert params(capsys) == 162  # and prints what the code prints
    write(folder, my_net=MY_NET.replace("4 * width", "8 * width"))
    assert params(capsys) == 314  # counted again


def test_a_variant_in_a_folder_of_the_user_s(folder):
    variant = folder / "conf" / "model" / "half.yaml"
    variant.parent.mkdir(parents=True)
    variant.write_text("builder: file\npath: my_net.py\nfunction: my_net\nwidth: 0.5\n")
    with using_config_dir(folder / "conf"):
        config = train_config(["model=half", "model.act=gelu"])
    assert config.model_name == "half"
    assert (config.model.spec["width"], config.model.spec["act"]) == (0.5, "gelu")


def test_the_order_of_loading_leaves_no_module_of_another_folder(folder):
    from lwbench.registry import MODELS

    models = []
    for name, size in (("one", 3), ("two", 5)):
        write(folder / name, my_net=MY_NET.replace("layers.head", "blocks"), blocks=HEAD)
        if size == 5:
            write(folder / name, blocks=HEAD + "SIZE = 5\n")
        config = train_config([*KEYS, f"model.path={name}/my_net.py"])
        sources_module.allow(config.model.spec)
        models.append(MODELS.build(config.model.spec, 10))
    first, second = (sys.modules and type(model[2]).__module__ for model in models)
    assert first == second == "blocks" and type(models[0][2]) is not type(models[1][2])
    assert Run.first(train_config(KEYS)).path.parent.name == "my_net"


@pytest.mark.slow
def test_an_interrupted_run_is_resumed_to_the_last_bit(folder):
    keys = ["train", *KEYS, "epochs=20", "threads=1", "checkpoint.every=0.2"]
    assert main([*keys, "out=whole"]) == 0
    process = subprocess.Popen([sys.executable, "-m", "lwbench", *keys, "out=parts"])
    metrics = None
    while process.poll() is None and not metrics:
        time.sleep(0.05)
        written = Path("parts").glob("*/*/*/metrics.csv")
        metrics = [path for path in written if path.read_text().count("\n") > 3]
    process.terminate()
    assert process.wait() == 143
    assert main([*keys, "out=parts"]) == 0
    (whole,), (parts,) = records(Path("whole")), records(Path("parts"))
    assert whole.result.final == parts.result.final


@pytest.mark.slow
def test_a_sweep_over_an_argument_trains_in_processes(folder, capfd):
    assert main(["train", "-m", *KEYS, "model.width=0.5,1", "epochs=1", "jobs=2"]) == 0
    widths = sorted(r.config.model.spec["width"] for r in records(Path("outputs")))
    assert widths == [0.5, 1]
    assert main(["table", "runs=outputs"]) == 0
    assert "my_net width=0.5" in capfd.readouterr().out
