"""Keys that hold paths and names: their values are text, whatever characters are in it."""

import csv
import html
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lwbench.cli import main
from lwbench.config import TEXT_KEYS, expanded, train_config, train_configs
from lwbench.errors import UsageError
from lwbench.paths import conf_folder
from lwbench.sweeps.plan import PlannedRun

NAMES = [
    "Köln (2)", "a,b", "a=b", "x & y", "#1", "it's", "50 %", "$HOME", "${data.root}", "[new] owls",
    "{set}", "2024", "2024_06", "1e3", "no", "null2", "画像", "naïve", "a:b", "back\\slash",
    "~tilde", 'say "hi"', "tab\tbed", "-m", "*", "a;b", "`date`", "true",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_text_keys_take_their_values_as_typed(name):
    if name.startswith("~"):
        name = f"./{name}"  # a leading ~ is a home directory
    keys = ("data.root", "data.cache", "data.name", "out")
    config = train_config(["data=folder", *(f"{key}={name}" for key in keys)])
    assert config.data_root == os.path.abspath(name)
    assert [config.data_name, config.out, config.values["data"]["cache"]] == [name] * 3


@pytest.mark.parametrize("typed, meant", [("'a b'", "a b"), ('"a,b"', "a,b"), ("'it''s'", "it''s")])
def test_one_pair_of_quotes_around_a_value_is_removed(typed, meant):
    assert train_config([f"out={typed}"]).out == meant


def test_null_is_no_value_and_a_leading_tilde_is_the_users_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert train_config(["out=~/runs"]).out == "/home/ada/runs"
    assert train_config(["data=folder", "data.root=~/pics"]).data_root == "/home/ada/pics"
    assert train_config(["data=cifar10", "data.root=null"]).data_root is None


def test_a_sweep_separates_text_at_commas_that_are_not_quoted():
    assert expanded(["out=a,b", "seed=0,1"]) == [
        ("out=a", "seed=0"), ("out=a", "seed=1"), ("out=b", "seed=0"), ("out=b", "seed=1"),
    ]  # fmt: skip
    assert expanded(["out='a,b',c"]) == [("out='a,b'",), ("out=c",)]
    assert train_config(expanded(["out='a,b',c"])[0]).out == "a,b"


def test_a_text_key_that_a_data_set_does_not_have_is_an_error():
    with pytest.raises(UsageError, match=r"unknown key 'data\.root'"):
        train_config(["data=digits", "data.root=/x"])


def test_every_text_key_is_known_to_some_command():
    data = ["data=folder", "data.root=/x"]
    configs = {"train": data, "eval": data, "bench": []}
    # a network's file is needed to compose model=file
    known = {
        f"model.{key}" for key in yaml.safe_load((conf_folder() / "model/file.yaml").read_text())
    }
    from lwbench.config import command_values
    from lwbench.config.overrides import dotted

    for verb, overrides in configs.items():
        ((values, _),) = command_values(verb, [overrides])
        known |= set(dotted(values))
    assert set(TEXT_KEYS) <= known


def test_printed_commands_pasted_into_a_shell_mean_the_same():
    config, printing = train_config([]), "'import json, sys; print(json.dumps(sys.argv[1:]))'"
    requests = [("data=folder", f"data.root=/x/{name}", f"out=o/{name}") for name in NAMES]
    lines = [PlannedRun(overrides, config).command for overrides in requests]
    script = [line.replace("lwbench train", f"{sys.executable} -S -c {printing}", 1)
              for line in lines]  # fmt: skip
    echo = subprocess.run(
        ["sh", "-c", "\n".join(script)], capture_output=True, text=True, check=True
    )
    assert [tuple(json.loads(line)) for line in echo.stdout.splitlines()] == requests
    assert [tuple(shlex.split(line)[2:]) for line in lines] == requests


def test_two_working_folders_with_the_same_relative_root_share_no_configuration(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    request = ("data=folder", "data.root=.")
    names = []
    for folder in ("ferns", "mosses"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        names.append(train_configs([request])[request].data_name)
    assert names == ["ferns", "mosses"]


# keys that have no effect


@pytest.mark.parametrize(
    "words, message",
    [
        ("train hydra.run.dir=there", "hydra.run.dir has no effect"),
        ("train hydra/job_logging=none", "hydra/job_logging has no effect"),
        ("profile hydra.job.chdir=true", "hydra.job.chdir has no effect"),
        ("train optimizer=adamw data.recipe.lr=0.2", "data.recipe.lr has no effect"),
        ("train scheduler=cosine data.recipe.restart_epochs=3", "restart_epochs has no effect"),
        ("train epochs=2 data.recipe.epochs=3", "data.recipe.epochs has no effect"),
        ("train optimizer=rmsprop data.recipe.momentum=0.5", "momentum has no effect"),
        ("train jobs=2", "jobs= has no effect on a single run"),
        ("table table=ldc/4 -m", "lwbench table has no option '-m'"),
        ("eval --cfg", "lwbench eval has no option '--cfg'"),
        ("check -m", "lwbench check has no option '-m'"),
    ],
)
def test_what_has_no_effect_is_an_error(words, message, capsys):
    assert main(words.split()) == 2
    assert message in capsys.readouterr().err


def test_a_recipe_key_that_is_read_may_be_set():
    assert train_config(["data.recipe.lr=0.2"]).lr == 0.2
    assert train_config(["optimizer=adamw", "optimizer.lr=0.2"]).lr == 0.2


def test_cfg_with_a_sweep_prints_the_configuration_of_each_job(capsys):
    import yaml

    assert main(["train", "-m", "--cfg", "seed=0,1", "model=mb0,ldc3"]) == 0
    found = list(yaml.safe_load_all(capsys.readouterr().out))
    assert [(one["seed"], one["model"]["stem"]) for one in found] == [
        (0, "conv"), (0, "ldc"), (1, "conv"), (1, "ldc"),
    ]  # fmt: skip


def test_text_of_users_is_never_markup_on_the_screen(capsys):
    from lwbench.logs import console, result_table

    figures = {"test_top1": 1.0, "test_top5": 1.0, "test_loss": 1.0, "epoch": 1}
    result = {"model": "mb0", "data": "[new] owls :smile:", "seed": 0, "epochs": 1,
              "final": figures, "best": figures, "seconds": 1.0}  # fmt: skip
    console().print(result_table([result]))
    console().print("[bold]plain[/bold]")
    out = capsys.readouterr().out
    assert "[new] owls :smile:" in out and "[bold]plain[/bold]" in out


# names that no example thought of

TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\0"),
    min_size=1,
    max_size=20,
).filter(lambda text: not text.startswith(("~", ".")) and text.strip() and text != "null")


def _meant(text):
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if is_quoted else text


@pytest.mark.parametrize("examples", [5, pytest.param(400, marks=pytest.mark.slow)])
def test_any_name_survives_the_configuration_and_a_pasted_command(examples):
    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(TEXT, TEXT)
    def check(root, out):
        overrides = ("data=folder", f"data.root=/x/{root}", f"out={out}")
        config = train_config(overrides)
        assert config.data_root == os.path.realpath(f"/x/{root}")
        assert (config.data_name, config.out) == (os.path.basename(f"/x/{root}"), _meant(out))
        line = PlannedRun(overrides, config).command
        assert tuple(shlex.split(line)[2:]) == overrides
        assert train_config(shlex.split(line)[2:]).values == config.values
        # a list of one in a sweep, quoted, is the same text
        (job,) = expanded(["data=folder", f"data.root='/x/{root}'"])
        if "'" not in root:
            assert train_config(job).data_root == config.data_root

    check()


STRANGE = "[new] owls & 50 % of #1, $x$ _y_ <b>|c| \\d ~e^f {g} \"h\" 'i' é*"


@pytest.fixture(scope="module")
def strange_run(tmp_path_factory):
    """A folder with the run of a data set of a strange name."""
    from test_interruption import image_tree

    folder = tmp_path_factory.mktemp("strange")
    image_tree(folder / STRANGE)
    words = ["train", "model=mb0", "data=folder", f"data.root={folder / STRANGE}", "epochs=1",
             "image_size=32", "batch_size=12", "device=cpu", f"out={folder / 'out'}"]  # fmt: skip
    assert main(words) == 0
    return folder / "out"


def _unlatex(text):
    words = {r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^",
             r"\textless{}": "<", r"\textgreater{}": ">", "{[}": "[", "{]}": "]", "{*}": "*",
             r"\textbar{}": "|", r"\textquotedbl{}": '"'}  # fmt: skip
    for word, sign in words.items():
        text = text.replace(word, f"\0{ord(sign)}\0")
    text = re.sub(r"\\([&%$#_{}])", r"\1", text)
    return re.sub("\0(\\d+)\0", lambda found: chr(int(found[1])), text)


@pytest.mark.parametrize(
    "format, plain",
    [
        ("markdown", lambda text: re.sub(r"\\(.)", r"\1", html.unescape(text))),
        ("latex", _unlatex),
        ("html", html.unescape),
        (
            "csv",
            lambda text: " ".join(cell for row in csv.reader(text.splitlines()) for cell in row),
        ),
        ("json", lambda text: " ".join(str(cell["table"]) for cell in json.loads(text))),
        ("terminal", lambda text: text),
    ],
)
def test_a_strange_name_is_shown_as_it_is_in_every_format(format, plain, strange_run, capsys):
    assert main(["table", f"runs={strange_run}", f"format={format}"]) == 0
    shown = " ".join(plain(capsys.readouterr().out).split())
    assert STRANGE in shown


def test_a_run_of_a_strange_name_is_evaluated_by_the_printed_path(strange_run, capsys):
    (path,) = strange_run.glob("*/*/*/")
    assert main(["eval", f"run={path}"]) == 0
    assert "as recorded" in capsys.readouterr().out
