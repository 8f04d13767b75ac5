"""Interrupted anywhere and resumed, a run equals the uninterrupted one; signals end it in order."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from test_train import Blobs, Kill, Silent, training, without_times

from lwbench.cli import main
from lwbench.engine import checkpoint
from lwbench.engine.signals import Interrupted, Signals
from lwbench.runs.directory import Run

TIMES = {"seconds", "train_seconds", "images_per_s"}


def plain(value):
    """A checkpoint's content, so that == compares every bit of its tensors; without times."""
    if isinstance(value, torch.Tensor):
        bits = value.contiguous().reshape(-1).view(torch.uint8)
        return str(value.dtype), tuple(value.shape), bits.numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in TIMES}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def assert_equal_runs(one, other):
    """Weights, optimizer, scaler, random numbers, position, best, metrics, matrices, offsets."""
    for name in ("last.pt", "best.pt"):
        states = [checkpoint.load(run / "checkpoints" / name) for run in (one, other)]
        assert plain(states[0]) == plain(states[1]), name
    rows = [without_times(Run(run).metrics()) for run in (one, other)]
    assert rows[0] == rows[1] and len(rows[0]) > 1
    for name in ("confusion.npz", "offsets.npz"):
        if (one / name).exists():
            arrays = [np.load(run / name) for run in (one, other)]
            assert all(np.array_equal(arrays[0][k], arrays[1][k]) for k in arrays[0].files)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, plain(training(folder)(Silent()))


def resumed_equals(whole, folder):
    assert plain(training(folder)(Silent())) == whole[1]
    assert_equal_runs(whole[0], folder)


# signals, at every kind of place

STEPS = {"the first step": 1, "mid-epoch": 6, "the last step of an epoch": 8, "the last step": 12}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_told_to_end_at_a_step_and_resumed_equals_uninterrupted(whole, tmp_path, step, signum):
    with pytest.raises(Interrupted) as interruption:
        training(tmp_path)(Kill(signum, step))
    assert interruption.value.saved and interruption.value.signum == signum
    resumed_equals(whole, tmp_path)


def test_a_resumed_run_keeps_its_number_of_threads(whole, tmp_path):
    own = torch.get_num_threads()
    with pytest.raises(Interrupted):
        training(tmp_path)(Kill(signal.SIGTERM, STEPS["the first step"]))
    torch.set_num_threads(own + 1)
    try:
        resumed_equals(whole, tmp_path)
        assert torch.get_num_threads() == own
    finally:
        torch.set_num_threads(own)


class KillInEvaluation(Blobs):
    """Sends this process a signal in its n-th evaluation; the last two are of the final weights."""

    def __init__(self, signum, at):
        self.signum, self.at, self.count = signum, at, 0

    def eval_batches(self, split, most=None):
        self.count += 1
        for number, batch in enumerate(super().eval_batches(split, most)):
            if (self.count, number) == (self.at, 1):
                os.kill(os.getpid(), self.signum)
            yield batch


# odd ones are whole evaluations, even ones the images whose offsets are recorded
@pytest.mark.parametrize("evaluation", [1, 3, 7, 8])
def test_told_to_end_in_an_evaluation_and_resumed_equals_uninterrupted(whole, tmp_path, evaluation):
    cut = training(tmp_path)
    cut.data = cut._whole = KillInEvaluation(signal.SIGTERM, evaluation)
    with pytest.raises(Interrupted) as interruption:
        cut(Silent())
    assert interruption.value.saved
    resumed_equals(whole, tmp_path)


def test_told_to_end_between_two_epochs_and_resumed_equals_uninterrupted(whole, tmp_path):
    class Between(Silent):
        def epoch_ends(self, row):
            if row["epoch"] == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        training(tmp_path)(Between())
    resumed_equals(whole, tmp_path)


def test_a_step_that_does_not_end_is_abandoned_and_the_state_before_it_stands(whole, tmp_path):
    cut = training(tmp_path, epochs=3, save_every=1e-6)
    cut._signals = Signals(patience_s=0.2)
    steps = []

    def hanging(images):
        steps.append(1)
        if len(steps) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        return cut.model(images)

    cut.step.forward = hanging
    begin = time.monotonic()
    with pytest.raises(Interrupted) as interruption:
        cut(Silent())
    assert time.monotonic() - begin < 30 and not interruption.value.saved
    resumed_equals(whole, tmp_path)


def test_a_second_ctrl_c_leaves_at_once():
    with pytest.raises(KeyboardInterrupt), Signals():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)


def test_sigterm_twice_waits_for_the_step():
    with Signals() as signals, pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        signals.raise_if_received()


def test_the_state_is_saved_in_mid_epoch_when_its_time_has_come(tmp_path, monkeypatch):
    now = iter(range(0, 10**6, 4))
    clock = SimpleNamespace(monotonic=lambda: next(now))
    monkeypatch.setattr("lwbench.engine.train.time", clock)
    cut = training(tmp_path, epochs=1, save_every=1e6)
    saved = []
    cut._save = lambda: saved.append(cut.at.step) or True
    cut(Silent())
    often = training(tmp_path / "often", epochs=1, save_every=1)
    save, steps = often._save, []
    often._save = lambda: steps.append(often.at.step) or save()
    often(Silent())
    assert saved == [0]  # after the epoch alone
    assert steps[:4] == [1, 2, 3, 4]


# kill -9

# a process for each place, forked from one that has loaded torch and computed nothing
KILLED = """
import os, pathlib, signal, sys
from test_interruption import KillInEvaluation
from test_train import Kill, Silent, training

def trained(where, folder):
    task, progress = training(folder, save_every=1e-6 if "saved" in where else 300), Silent()
    if "step" in where:
        progress = Kill(signal.SIGKILL, int(where.split()[-1]))
    elif "evaluation" in where:
        task.data = KillInEvaluation(signal.SIGKILL, 3)
    else:  # in the write of the second epoch's checkpoint, before its first or its second rename
        count, at, replace = 0, int(where.split()[-1]), os.replace

        def deadly(source, target):
            nonlocal count
            count += "last.pt" in str(source)
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = deadly
    task(progress)

for where in sys.argv[2:]:
    if not (child := os.fork()):
        trained(where, pathlib.Path(sys.argv[1]) / where)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
PLACES = ["step 1", "saved, step 7", "evaluation", "write, rename 2", "write, rename 3"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder with a run for each of PLACES, and how their processes ended."""
    folder = tmp_path_factory.mktemp("killed")
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), *PLACES], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path}, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, dict(zip(PLACES, map(int, done.stdout.split()), strict=True))


@pytest.mark.parametrize("where", PLACES)
def test_killed_and_resumed_equals_uninterrupted(whole, killed, where):
    folder, codes = killed
    assert codes[where] == -signal.SIGKILL
    assert not (folder / where / "result.json").exists()
    resumed_equals(whole, folder / where)


def lwbench(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "lwbench", *arguments],
        cwd=cwd, capture_output=True, text=True, env={**os.environ, **environment}, timeout=280,
    )  # fmt: skip


def image_tree(root, count=8):
    """`count` images a class to train on, as PNG files."""
    random = np.random.default_rng(0)
    for split, size in (("train", count), ("test", 4)):
        for label in range(3):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(size):
                pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8) // (label + 1)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def test_kill_9_costs_less_than_an_epoch_and_resumes_with_other_workers(tmp_path, monkeypatch):
    """Images stream from files; the resumed run decodes them with another number of threads."""
    monkeypatch.chdir(tmp_path)
    root = image_tree(tmp_path / "images", count=24)
    job = ["train", "model=mobilenetv1_025", "data=folder", f"data.root={root}", "epochs=2",
           "batch_size=4", "image_size=16", "threads=1"]  # fmt: skip
    options = ["workers=2", "out=cut", "checkpoint.every=0.01"]
    command = [sys.executable, "-m", "lwbench", *job, *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while not list(tmp_path.glob("cut/*/*/*/checkpoints/previous.pt")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    (cut,) = tmp_path.glob("cut/*/*/*")
    position = checkpoint.load_newest(
        cut / "checkpoints" / "last.pt", cut / "checkpoints" / "previous.pt"
    )["position"]
    assert (position["epoch"], position["step"]) >= (0, 1)
    for out, workers in (("cut", 0), ("whole", 1)):
        assert main([*job, f"workers={workers}", f"out={out}"]) == 0
    assert f"and {position['step']} step" in (cut / "train.log").read_text()
    (whole,) = tmp_path.glob("whole/*/*/*")
    assert_equal_runs(whole, cut)


# before the first step, and in eval: Python itself sends the signal where it opens or imports what

SENDER = """
import os, sys

def send(event, arguments):
    if event == {event!r} and {what!r} in str(arguments[0]) and not sent:
        sent.append(os.kill(os.getpid(), {signum}))

sent = []
sys.addaudithook(send)
"""


def told(folder, event, what, signum, *arguments):
    site = folder / "site"
    site.mkdir()
    text = SENDER.format(event=event, what=what, signum=int(signum))
    (site / "sitecustomize.py").write_text(text)
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    return lwbench(*arguments, cwd=folder, PYTHONPATH=path)


@pytest.mark.parametrize(
    ("event", "what", "signum", "code"),
    [
        ("open", "digits.csv", signal.SIGTERM, 143),  # the images are being read
        # the network's builder is looked for; by importlib, which tells of no import
        ("open", os.path.join("models", "__pycache__", "ldc."), signal.SIGINT, 130),
        ("import", "torch.optim", signal.SIGUSR1, 75),  # torch itself is loading
    ],
)
def test_told_to_end_before_the_first_step_nothing_is_written(tmp_path, event, what, signum, code):
    done = told(tmp_path, event, what, signum, "train", "epochs=1")
    assert done.returncode == code
    name = signal.Signals(signum).name
    assert done.stderr == f"lwbench: {name}: ended; the same command continues\n"
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_told_to_end_while_images_are_packed_leaves_no_half_pack(tmp_path):
    root = image_tree(tmp_path / "images")
    done = told(
        tmp_path, "open", "37px-", signal.SIGTERM, "train", "model=mobilenetv1_025",
        "data=folder", f"data.root={root}", f"data.cache={tmp_path / 'cache'}", "image_size=32",
        "epochs=1", "batch_size=2",
    )  # fmt: skip
    assert done.returncode == 143 and "state saved" in done.stderr
    assert not [p for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock"]


def test_told_to_end_in_eval_it_ends_with_the_signals_code(tmp_path):
    torch.save({}, tmp_path / "x.pt")
    done = told(tmp_path, "open", "x.pt", signal.SIGTERM, "eval", "checkpoint=x.pt")
    assert done.returncode == 143
    assert done.stderr == "lwbench: SIGTERM: ended; the same command continues\n"
