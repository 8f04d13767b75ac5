"""The commands as a user types them: exit codes, messages, what is answered without torch."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from lwbench.cli import main
from lwbench.commands import _eval_run
from lwbench.paths import conf_folder

QUICK = ["epochs=1", "batch_size=512", "image_size=8", "data.augment.rotation=0"]


def lwbench(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "lwbench", *arguments],
        cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}, timeout=280,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with one finished run of one epoch on digits, and what the command said."""
    folder = tmp_path_factory.mktemp("user")
    done = lwbench("train", *QUICK, cwd=folder)
    assert done.returncode == 0, done.stderr
    (result,) = folder.glob("outputs/digits/ldc3/*/result.json")
    return folder, result.parent, done


# answers without torch


def test_these_are_answered_without_torch(tmp_path):
    lines = ["--help", "train --help", "eval --help", "list", "train --cfg", "--version",
             "train modle=ldc3", "train epochs=abc", "-sc install=bash"]  # fmt: skip
    code = (
        "import sys\nfrom lwbench.cli import main\nfor line in sys.argv[1:]:\n"
        "    main(line.split())\n    if 'torch' in sys.modules:\n        sys.exit(line)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *lines], cwd=tmp_path, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_list_shows_every_option_with_a_line_of_its_own(capsys):
    assert main(["list"]) == 0
    parts = re.split(r"^(\w+):\n", capsys.readouterr().out, flags=re.MULTILINE)[1:]
    listed = dict(zip(parts[::2], parts[1::2], strict=True))
    for group in ("model", "data", "optimizer", "scheduler", "experiment"):
        lines = listed[group].splitlines()
        for path in (conf_folder() / group).glob("*.yaml"):
            (line,) = [row for row in lines if row.split()[:1] == [path.stem]]
            assert len(line.split()) > 2, f"{path} has no comment"


@pytest.mark.parametrize(
    ("line", "expected"),
    [("lwbench ", "train"), ("lwbench tr", "train"), ("lwbench train ", "model="),
     ("lwbench train model=ldc", "model=ldc3"), ("lwbench train optimizer.", "optimizer.lr="),
     ("lwbench train model=ldc3 ep", "epochs="), ("lwbench eval ", "run="),
     ("lwbench ch", "check"), ("lwbench check ", "data="),
     ("lwbench train -m data=", "data=cifar10")],
)  # fmt: skip
def test_completion_knows_verbs_groups_and_keys(line, expected, monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    assert main(["-sc", "query=bash"]) == 0
    assert expected in capsys.readouterr().out.split()


# wrong input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "no command 'trian'; nearest: train"),
        (["train", "modle=ldc3"], "unknown key 'modle'; nearest: model"),
        (["train", "model=ldc33"], "no model 'ldc33'; nearest: ldc3"),
        (["train", "optimizer.lrr=1"], "unknown key 'optimizer.lrr'; nearest: optimizer.lr"),
        (["train", "+optimizer.foo=1"], "unknown key 'optimizer.foo'"),
        (["train", "+foo=1"], "unknown key 'foo'"),
        (["train", "epochs=abc"], "epochs='abc'"),
        (["train", "epochs=0"], "epochs=0"),
        (["train", "optimizer.lr=-1"], "optimizer.lr=-1"),
        (["train", "model.stem=dcn"], "model.stem='dcn': input should be 'conv', 'dc' or 'ldc'"),
        (["train", "model.drop_layers=[40]"], "layers 2 to 12"),
        (["train", "scheduler.restart_epochs=0"], "scheduler.restart_epochs=0"),
        (["train", "device=cuda:99"], "device=cuda:99 is not available"),
        (["train", "device=abacus"], "device=abacus is not available"),
        (["train", "precision=fp16", "device=cpu"], "fp16 needs a GPU"),
        (["train", "epochs"], "cannot read 'epochs'"),
        (["train", "model=a,b"], "-m"),
        (["train", "--epochs=3"], "no option '--epochs=3'"),
        (["train", "data=cifar10", "data.root=/no/such/folder"], "/no/such/folder"),
        (
            ["train", "data.augment.flipp=true"],
            "unknown key 'data.augment.flipp'; nearest: data.augment.flip",
        ),
        (
            ["train", "experiment=mbv1", "data=cifar100"],
            "unknown key 'data.crop'; nearest: root\n"
            "perhaps experiment=mbv1 sets it; ~data.crop leaves it out",
        ),
        (["eval"], "eval needs run="),
        (["eval", "run=/no/such/run"], "not a run directory"),
        (["eval", "checkpoint=/no/such.pt"], "no checkpoint at /no/such.pt"),
        (["list", "modls"], "nearest: model"),
        (["train", "out=/proc/nothing"], "cannot write to"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_input_is_one_or_two_lines_and_exit_2(
    arguments, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    streams = capsys.readouterr()
    assert words in streams.err
    assert streams.err.count("\n") <= 2 and "Traceback" not in streams.err
    assert list(tmp_path.iterdir()) == [], "something was half-written"


@pytest.mark.parametrize("verb", ["train", "eval", "profile", "bench", "export"])
@pytest.mark.parametrize("group", ["optimizer", "scheduler", "experiment"])
def test_a_group_that_a_command_does_not_have_is_not_among_its_nearest_keys(verb, group, capsys):
    assert main([verb, f"{group}=none-such"]) == 2
    error = capsys.readouterr().err
    has_group = f"no {group} 'none-such'" in error
    assert has_group or f"unknown key '{group}'" in error
    assert has_group or group not in error.partition("nearest")[2]


# one run, end to end


def test_a_run_says_first_what_will_run_and_then_a_line_an_epoch(trained):
    lines = trained[2].stdout.splitlines()
    assert lines[0].startswith("network   ldc3: 1.08 M parameters")
    assert "1,442 images to train on" in lines[1]
    assert "1 epoch, seed 0, fp32 on" in lines[2]
    assert lines[4].startswith("epoch 1/1")
    assert lines[-1] == f"finished: {trained[1].relative_to(trained[0])}"


def test_the_run_directory_holds_what_the_design_promises(trained):
    run = trained[1]
    names = {p.name for p in run.iterdir()} | {p.name for p in (run / "checkpoints").iterdir()}
    assert {"config.yaml", "env.json", "metrics.csv", "train.log", "confusion.npz", "offsets.npz",
            "result.json", "last.pt", "best.pt"} <= names  # fmt: skip
    assert any(name.startswith("events.out.tfevents") for name in names)
    result = json.loads((run / "result.json").read_text())
    assert {"identity", "model", "data", "seed", "epochs", "precision", "device", "seconds",
            "images_per_s", "final", "best"} <= set(result)  # fmt: skip
    assert set(result["final"]) == {"epoch", "test_loss", "test_top1", "test_top5", "train_top1"}
    (start,) = json.loads((run / "env.json").read_text())["starts"]
    assert {"versions", "device", "git_revision", "git_dirty", "command"} <= set(start)
    assert yaml.safe_load((run / "config.yaml").read_text())["optimizer"]["lr"] == 0.05


def test_nothing_but_the_run_appears_in_the_working_folder(trained):
    assert [p.name for p in trained[0].iterdir()] == ["outputs"]
    assert len(list(trained[0].glob("outputs/*/*/*"))) == 1


def test_the_same_command_answers_at_once_with_the_stored_result(trained, monkeypatch, capsys):
    folder, run, _ = trained
    before = (run / "result.json").stat().st_mtime_ns
    monkeypatch.chdir(folder)
    assert main(["train", *QUICK]) == 0
    assert "finished earlier" in capsys.readouterr().out
    assert (run / "result.json").stat().st_mtime_ns == before


def test_eval_gives_the_recorded_figures_to_the_digit(trained, monkeypatch, capsys):
    folder, run, _ = trained
    monkeypatch.chdir(folder)
    assert main(["eval", f"run={run}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["final", "best"]
    assert all(line.endswith("as recorded") for line in lines)


@pytest.fixture
def with_result(trained, monkeypatch):
    """Changes figures of the recorded result, for one test."""
    folder, run, _ = trained
    monkeypatch.chdir(folder)
    path = run / "result.json"
    text = path.read_text()

    def change(**changes):
        result = json.loads(text)
        for key, value in changes.items():
            result["final"][key] += value
        path.write_text(json.dumps(result))
        return f"run={run}"

    yield change
    path.write_text(text)


@pytest.mark.parametrize("changes", [{"test_top1": 0.03}, {"test_loss": 2e-4}])
def test_eval_fails_where_figures_differ_from_the_recorded_ones(with_result, capsys, changes):
    assert main(["eval", with_result(**changes)]) == 1
    said = capsys.readouterr()
    final, best = said.out.splitlines()
    assert "recorded: top-1 " in final and best.endswith("as recorded")
    assert "the final figures differ from the recorded ones by more than 0.02 points" in said.err
    assert said.err.count("\n") == 2 and "Traceback" not in said.err


@pytest.mark.parametrize("changes", [{"test_top1": 0.015}, {"test_loss": -5e-5}])
def test_eval_states_differences_of_rounding(with_result, capsys, changes):
    assert main(["eval", with_result(**changes)]) == 0
    final, best = capsys.readouterr().out.splitlines()
    assert final.endswith("a difference of rounding") and best.endswith("as recorded")


def test_eval_uses_the_recorded_precision_and_compares_no_other(with_result, capsys):
    run = with_result(test_top1=50.0)
    path = Path(run.removeprefix("run=")) / "result.json"
    path.write_text(path.read_text().replace('"fp32"', '"bf16"'))
    assert main(["eval", run]) == 1  # in bf16, without being told
    capsys.readouterr()
    assert main(["eval", run, "precision=fp32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all("evaluated in fp32, recorded in bf16" in line for line in lines)


def test_eval_compares_nothing_on_other_images_and_loads_them_once(
    with_result, capsys, monkeypatch, tmp_path
):
    loaded = []
    build = _eval_run.configured_data
    monkeypatch.setattr(
        _eval_run, "configured_data", lambda *a, **k: loaded.append(a) or build(*a, **k)
    )
    assert main(["eval", with_result()]) == 0 and len(loaded) == 1
    capsys.readouterr()
    for split in ("train", "test"):
        for label in range(10):
            (tmp_path / split / str(label)).mkdir(parents=True)
            pixels = np.full((8, 8, 3), 20 * label, np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / str(label) / "0.png")
    other = ["data=folder", f"data.root={tmp_path}"]
    assert main(["eval", with_result(test_top1=50.0), *other]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all("other images than the run's" in line for line in lines)


def test_eval_of_a_checkpoint_needs_its_network(trained, monkeypatch, capsys):
    folder, run, _ = trained
    monkeypatch.chdir(folder)
    weights = f"checkpoint={run / 'checkpoints' / 'last.pt'}"
    assert main(["eval", weights, "model=ldc3"]) == 0
    assert "top-1" in capsys.readouterr().out
    assert main(["eval", weights, "model=mb0"]) == 2
    assert "of another network" in capsys.readouterr().err


def test_eval_refuses_keys_that_belong_to_the_run(trained, capsys):
    assert main(["eval", f"run={trained[1]}", "model=mb0"]) == 2
    assert "belongs to the run" in capsys.readouterr().err


def test_force_starts_over_beside_the_old_run(trained, monkeypatch):
    folder, run, _ = trained
    monkeypatch.chdir(folder)
    before = (run / "result.json").read_bytes()
    assert main(["train", *QUICK, "force=true", "seed=5"]) == 0
    (first,) = folder.glob("outputs/digits/ldc3/*-s5")
    assert main(["train", *QUICK, "force=true", "seed=5"]) == 0
    assert (first.parent / f"{first.name}-2" / "result.json").exists()
    assert (run / "result.json").read_bytes() == before


def test_a_sweep_runs_each_job_and_a_second_call_does_nothing(trained, monkeypatch, capfd):
    folder = trained[0]
    monkeypatch.chdir(folder)
    jobs = ["train", "-m", "model=mb0,ldc3", "seed=1", *QUICK]
    assert main(jobs) == 0
    results = sorted(folder.glob("outputs/digits/*/*-s1/result.json"))
    assert [path.parts[-3] for path in results] == ["ldc3", "mb0"]
    times = [path.stat().st_mtime_ns for path in results]
    assert "epoch 1/1" in capfd.readouterr().out
    assert main(jobs) == 0 and "epoch 1/1" not in capfd.readouterr().out
    assert [path.stat().st_mtime_ns for path in results] == times


@pytest.mark.parametrize(
    ("signum", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_signal_ends_a_run_with_its_state_saved_and_the_same_command_goes_on(
    signum, code, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    job = ["train", "model=mb0", "epochs=3", "batch_size=64", "image_size=8", "seed=9"]
    command = [sys.executable, "-m", "lwbench", *job]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not process.stdout.readline().startswith("epoch 1/3"):
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signum)
        said = process.communicate()[1]
    assert process.returncode == code and "state saved" in said
    assert not list(tmp_path.glob("outputs/*/*/*/result.json"))
    assert main(job) == 0 and "epoch 1/3" not in capsys.readouterr().out
    (metrics,) = tmp_path.glob("outputs/digits/mb0/*-s9/metrics.csv")
    assert [line.split(",")[0] for line in metrics.read_text().splitlines()[1:]] == ["1", "2", "3"]


def test_tensorboard_shows_the_curves_over_http(trained):
    from tensorboard import program

    board = program.TensorBoard()
    board.configure(
        argv=["tensorboard", "--logdir", str(trained[0] / "outputs"), "--host", "127.0.0.1",
              "--port", "0", "--load_fast", "false"]
    )  # fmt: skip
    url = board.launch()
    tags = {}
    for _ in range(60):
        with urllib.request.urlopen(f"{url}data/plugin/scalars/tags") as answer:
            tags = json.load(answer)
        if tags:
            break
        import time

        time.sleep(0.5)
    found = {tag for run in tags.values() for tag in run}
    assert {"train/loss", "test/loss", "train/top1", "test/top1", "test/top5", "lr",
            "images_per_s", "offset/mean", "offset/max"} <= found  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_default_run_reaches_96_percent_at_the_final_epoch(seed, tmp_path):
    done = lwbench("train", f"seed={seed}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = Path(tmp_path).glob("outputs/digits/ldc3/*/result.json")
    assert json.loads(path.read_text())["final"]["test_top1"] >= 96
