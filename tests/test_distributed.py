"""Several processes that train together do what one process does; they end and resume together."""

import os
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress

import numpy as np
import pytest
import torch
import torch.distributed as dist
from test_interruption import assert_equal_runs, plain
from test_train import Silent
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lwbench import cli
from lwbench.config import train_config
from lwbench.data.augment import Augment
from lwbench.data.loader import Data
from lwbench.data.source import resident_source
from lwbench.engine import distributed
from lwbench.engine.distill import Teacher
from lwbench.engine.inputs import Settings
from lwbench.engine.optimizers import sgd
from lwbench.engine.signals import Interrupted
from lwbench.engine.train import Training
from lwbench.errors import PeerLostError, UsageError
from lwbench.layers import accelerated
from lwbench.layers.norm_sync import synchronise
from lwbench.runs.directory import Run
from lwbench.runs.processes import Place

CPU = torch.device("cpu")


def in_processes(size, work, folder):
    """Call `work(ranks)` in forked processes; return their exit codes, and what they returned.

    Forked rather than started, since importing torch takes longer than these trainings.
    """
    store = folder / f"store{len(list(folder.glob('store*')))}"
    children = []
    for rank in range(size):
        if child := os.fork():
            children.append(child)
            continue
        code = 70
        with suppress(BaseException):
            code = _rank(store, Place(rank, size, rank, size), work, folder)
        os._exit(code)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    files = [folder / f"returned{rank}" for rank in range(size)]
    return codes, [torch.load(f, weights_only=False) if f.exists() else None for f in files]


def _rank(store, place, work, folder):
    torch.set_num_threads(1)  # threads do not survive a fork
    try:
        store = dist.FileStore(str(store), place.size)
        distributed.connect(store, place)
        ranks = distributed.Ranks(place, dist.PrefixStore("lwbench", store))
        torch.save(work(ranks), folder / f"returned{place.rank}")
        return 0
    except Interrupted as interruption:
        return interruption.exit_code
    except Exception as error:
        torch.save(error, folder / f"returned{place.rank}")
        if not isinstance(error, PeerLostError | distributed.SilentError):
            traceback.print_exc(file=sys.stderr)
        return 1


@pytest.fixture(scope="module")
def source():
    """41 training images: batches of 16, 16 and 9; 21 test images."""
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 41), ("test", 21)):
        labels = np.arange(count) % 3
        noise = rng.integers(0, 150, (count, 8, 8, 3))
        arrays[f"{part}_images"] = (noise + 35 * labels[:, None, None, None]).astype(np.uint8)
        arrays[f"{part}_labels"] = labels.astype(np.int64)
    return resident_source("noise", ["a", "b", "c"], arrays)


def data_of(source, **augment):
    return Data(
        source,
        image_size=8,
        batch_size=16,
        seed=0,
        device=CPU,
        augment=Augment(**({"crop_padding": 1, "flip": True} | augment)),
        dtype=torch.float64,
    )


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).double()


def training(folder, source, ranks=None, *, augment=None, teacher=False, local=False, **settings):
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    model = accelerated.accelerate(network())
    if ranks is not None and ranks.size > 1 and not local:
        synchronise(model)
    return Training(
        model,
        data_of(source, **(augment or {})),
        sgd(model, lr=0.1, momentum=0.9),
        lambda progress: 0.1 / (1 + progress),
        run=Run(folder),
        settings=Settings(**({"epochs": 2} | settings)),
        device=CPU,
        teacher=Teacher(network(), temperature=2.0, weight=0.5) if teacher else None,
        ranks=ranks,
    )


SETTINGS = {
    "plain": {},
    "mixed in pairs, averaged, clipped": {
        "augment": {"mixup": 0.4, "cutmix": 1.0},
        "ema": 0.9,
        "clip_grad_norm": 0.5,
    },
    "accumulated, taught": {"accumulate": 2, "teacher": True, "eval_every": 2},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(
    "size", [2, pytest.param(4, marks=(pytest.mark.slow, pytest.mark.cluster))]
)
def test_ranks_train_as_one_process_does(tmp_path, source, size, settings):
    one = training(tmp_path / "one", source, **settings)(Silent())

    def work(ranks):
        task = training(tmp_path / "many", source, ranks, **settings)
        result = task(Silent())
        return result, task.model.state_dict()

    codes, returned = in_processes(size, work, tmp_path)
    assert codes == [0] * size
    (result, weights), *others = returned
    for _, state in others:
        assert all(torch.equal(state[name], weights[name]) for name in weights)
    for row, expected in zip(
        Run(tmp_path / "many").metrics(), Run(tmp_path / "one").metrics(), strict=True
    ):
        assert row.keys() == expected.keys()
        for name in row.keys() - {"seconds", "images_per_s"}:
            wanted = float(expected[name] or 0)
            assert float(row[name] or 0) == pytest.approx(wanted, rel=1e-5), name
    assert result["final"]["test_top1"] == one["final"]["test_top1"]
    assert result["train_evaluated"] == 41
    matrices = [np.load(tmp_path / name / "confusion.npz") for name in ("one", "many")]
    right = [np.load(tmp_path / name / "predictions.npz")["correct"] for name in ("one", "many")]
    assert np.array_equal(*right)  # a bit per image, in canonical order
    for part in ("test", "train"):
        assert np.array_equal(matrices[0][part], matrices[1][part])


def test_a_rank_sees_its_part_of_the_very_images_of_one_process(source):
    whole = data_of(source, mixup=0.4, erasing=0.5)
    parts = [whole.part(rank, 4) for rank in range(4)]
    batches = [list(zip(*data.train_batches(1), strict=True)) for data in (whole, *parts)]
    for number, expected in enumerate(zip(*batches[0], strict=True)):
        for kind in range(2):
            joined = torch.cat([part[kind][number] for part in batches[1:]])
            assert torch.equal(joined, expected[kind])
    # a last batch of 9 images: pairs that are mixed stay together
    assert [len(part[1][2]) for part in batches[1:]] == [2, 2, 2, 3]
    assert whole.smallest_part(6) == 0 and data_of(source).smallest_part(6) == 1


@pytest.mark.parametrize("affine", [True, False])
def test_synchronised_batch_norm_is_that_of_the_whole_batch(tmp_path, affine):
    torch.manual_seed(0)
    x, target = torch.randn(2, 7, 3, 4, 4, dtype=torch.float64) * 3 + 5

    def outcome(norm, x, target):
        x = x.clone().requires_grad_()
        out = norm(x)
        (out * target).sum().backward()
        return x.grad, out.detach(), [p.grad for p in norm.parameters()], norm.state_dict()

    norm = nn.BatchNorm2d(3, affine=affine).double()
    expected = outcome(norm, x, target)

    def work(ranks):
        own = slice(0, 2) if ranks.leads else slice(2, 7)
        norm = (
            synchronise(nn.Sequential(nn.BatchNorm2d(3, affine=affine).double()))[0]
            if (affine)
            else _synchronised(nn.BatchNorm2d(3, affine=False).double())
        )
        return outcome(norm, x[own], target[own])

    codes, returned = in_processes(2, work, tmp_path)
    assert codes == [0, 0]
    for place in range(2):
        assert torch.allclose(torch.cat([r[place] for r in returned]), expected[place])
    for mine, other, whole in zip(*[r[2] for r in returned], expected[2], strict=True):
        assert torch.allclose(mine + other, whole)
    for name, value in expected[3].items():
        assert all(torch.allclose(r[3][name].to(value), value) for r in returned)


def _synchronised(norm):
    """A norm without weights: `synchronise` asks the first parameter for the device."""
    return synchronise(nn.Sequential(norm, nn.Linear(1, 1)))[0]


def test_a_norm_that_computes_more_than_a_batch_norm_is_refused():
    class NormAndActivation(_BatchNorm):
        def forward(self, x):
            return super().forward(x).relu()

    with pytest.raises(UsageError, match=r"NormAndActivation .*local_batchnorm=true"):
        synchronise(nn.Sequential(nn.Conv2d(3, 3, 1), NormAndActivation(3)))


def test_local_batch_norm_is_of_each_process_and_delivers_the_statistics_of_rank_0(
    tmp_path, source
):
    def work(ranks):
        task = training(tmp_path / "run", source, ranks, local=True, epochs=1)
        result = task(Silent())
        return result["final"], task.model.state_dict()

    codes, ((mine, state), (other, _)) = in_processes(2, work, tmp_path)
    assert codes == [0, 0] and mine == other
    saved = torch.load(tmp_path / "run" / "checkpoints" / "best.pt")["model"]
    assert all(torch.equal(saved[name], state[name]) for name in state)
    one = training(tmp_path / "one", source, epochs=1)(Silent())
    assert mine["test_loss"] != pytest.approx(one["final"]["test_loss"], rel=1e-6)


# ends


class Ends(Silent):
    """Sends a signal to this process at one step if it is `rank`."""

    def __init__(self, signum, rank, step, ranks):
        self.signum, self.step, self.is_it, self.steps = signum, step, ranks.rank == rank, 0

    def images_done(self, images):
        self.steps += 1
        if self.is_it and self.steps == self.step:
            os.kill(os.getpid(), self.signum)


HOW = {"ema": 0.9, "accumulate": 2}  # interrupted within a cycle, each rank has other gradients


def run_of(folder, source, size, progress=lambda ranks: Silent(), **settings):
    def work(ranks):
        task = training(folder, source, ranks, **(HOW | settings))
        assert task.model[0].weight.dtype == torch.float64
        return task(progress(ranks))["final"]

    folder.mkdir(exist_ok=True)
    return in_processes(size, work, folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, source):
    folder = tmp_path_factory.mktemp("undisturbed")
    codes, _ = run_of(folder, source, 2)
    assert codes == [0, 0]
    return folder


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_at_any_rank_stops_all_after_the_same_step(tmp_path, source, undisturbed, rank):
    folder = tmp_path / "run"
    codes, _ = run_of(folder, source, 2, lambda ranks: Ends(signal.SIGUSR1, rank, 4, ranks))
    assert codes == [75, 75]
    state = torch.load(folder / "checkpoints" / "last.pt")
    assert (state["position"]["epoch"], state["position"]["step"]) == (1, 1)
    assert [len(part["gradients"]) for part in state["ranks"]] == [8, 8]
    codes, _ = run_of(folder, source, 2)
    assert codes == [0, 0]
    assert_equal_runs(undisturbed, folder)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_dies_is_named_once_and_the_run_resumes(tmp_path, source, undisturbed, rank):
    folder = tmp_path / "run"
    codes, returned = run_of(folder, source, 2, lambda ranks: Ends(signal.SIGKILL, rank, 5, ranks))
    assert codes[rank] == -signal.SIGKILL and codes[1 - rank] == 1
    assert f"rank {rank} (process " in str(returned[1 - rank])
    assert str(returned[1 - rank]).endswith("has died; the same command resumes")
    assert torch.load(folder / "checkpoints" / "last.pt")["position"]["epoch"] == 1
    codes, _ = run_of(folder, source, 2)
    assert codes == [0, 0]
    assert_equal_runs(undisturbed, folder)


def test_one_rank_speaks_for_all_that_fail_alike(tmp_path, source):
    def work(ranks):
        return training(tmp_path / "run", source, ranks, epochs=1)(Fails(ranks, {0, 1}))

    codes, (first, second) = in_processes(2, work, tmp_path)
    assert codes == [1, 1]
    assert str(first) == "no more" and str(second) == ""


class Fails(Silent):
    def __init__(self, ranks, which):
        self.fails = ranks.rank in which

    def images_done(self, images):
        if self.fails:
            raise UsageError("no more")


@pytest.mark.parametrize("size", [1, 3])
def test_another_number_of_processes_resumes_with_the_same_images(
    tmp_path, source, undisturbed, size
):
    folder = tmp_path / "run"
    codes, _ = run_of(folder, source, 2, lambda ranks: Ends(signal.SIGTERM, 1, 4, ranks))
    assert codes == [143, 143]
    if size == 1:
        final = training(folder, source, **HOW)(Silent())["final"]
    else:
        codes, (final, *_) = run_of(folder, source, size)
        assert codes == [0] * size
    rows = Run(undisturbed).metrics()
    assert final["test_loss"] == pytest.approx(float(rows[-1]["test_loss"]), rel=1e-5)
    assert final["train_top1"] == pytest.approx(float(rows[-1]["train_top1"]))


def test_what_rank_0_refuses_ends_all_and_once_per_machine_is_once(tmp_path):
    def work(ranks):
        ranks.once_per_machine("pack", lambda: (tmp_path / f"made{ranks.rank}").touch())
        assert (tmp_path / "made0").exists()

        def refuse():
            raise UsageError("not here")

        with ranks.one_message():
            ranks.told(refuse)

    codes, (first, second) = in_processes(2, work, tmp_path)
    assert not (tmp_path / "made1").exists()
    assert codes == [1, 1] and str(first) == "not here"
    assert str(second) == "" and second.exit_code == 2


# the command


def as_rank(monkeypatch, rank, size):
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")
    for name, value in zip(names, (rank, size, rank, size, 0), strict=True):
        monkeypatch.setenv(name, str(value))


def test_local_batch_norm_makes_another_run_for_each_number_of_images(monkeypatch):
    plain_run = train_config([])
    with pytest.raises(UsageError, match="no effect in one process"):
        train_config(["local_batchnorm=true"])
    identities = {plain_run.identity}
    for size in (2, 4):
        as_rank(monkeypatch, 1, size)
        assert train_config([]).identity == plain_run.identity
        config = train_config(["local_batchnorm=true"])
        assert config.images_per_process == config.batch_size // size
        identities.add(config.identity)
    assert len(identities) == 3
    with pytest.raises(UsageError, match="batch_size=126 cannot be divided among 4"):
        train_config(["local_batchnorm=true", "batch_size=126"])
    with pytest.raises(UsageError, match="images_per_process=64: 4 processes have 32 images"):
        train_config(["local_batchnorm=true", "images_per_process=64"])


def test_a_process_by_itself_joins_nobody(monkeypatch):
    as_rank(monkeypatch, 0, 1)
    monkeypatch.setattr(distributed, "join", lambda place: pytest.fail("joined"))
    assert cli.main(["train", "--cfg"]) == 0


def torchrun(folder, out, *options):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = ["train", "model=mb0", "epochs=1", "checkpoint.every=0.5", "threads=1", f"out={out}"]
    return subprocess.Popen(
        [*command, *options, "-m", "lwbench", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ranks_of(process):
    """The processes of a torchrun, in the order of their ranks."""
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "lwbench train"], capture_output=True, text=True
    )
    return [int(word) for word in children.stdout.split()]


def wait_for_checkpoint(out):
    end = time.monotonic() + 120
    while not list(out.glob("*/*/*/checkpoints/last.pt")):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.cluster
def test_torchrun_loses_a_rank_is_told_to_stop_and_finishes_as_if_undisturbed(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    first = torchrun(tmp_path, whole)
    text = first.communicate()[0]
    assert first.returncode == 0 and text.count("finished: ") == 1, text

    killed = torchrun(tmp_path, cut)
    wait_for_checkpoint(cut)
    os.kill(ranks_of(killed)[1], signal.SIGKILL)
    text = killed.communicate()[0]
    assert killed.returncode == 1
    ours = [line for line in text.splitlines() if line.startswith("lwbench: ")]
    assert len(ours) == 1 and "rank 1 (process" in ours[0], text

    (saved,) = cut.glob("*/*/*/checkpoints/last.pt")
    before = saved.stat().st_ino
    told = torchrun(tmp_path, cut, "--signals-to-handle=SIGTERM,SIGINT,SIGUSR1")
    while saved.stat().st_ino == before:  # until it trains: a signal before that ends it at once
        assert told.poll() is None
        time.sleep(0.05)
    told.send_signal(signal.SIGUSR1)
    text = told.communicate()[0]
    assert "lwbench: SIGUSR1: state saved; the same command continues" in text
    assert told.returncode == 1  # torchrun's own, whatever its processes end with

    last = torchrun(tmp_path, cut)
    text = last.communicate()[0]
    assert last.returncode == 0, text
    (one,), (other,) = (folder.glob("*/*/*") for folder in (whole, cut))
    for name in ("last.pt", "best.pt"):
        states = [torch.load(run / "checkpoints" / name) for run in (one, other)]
        assert plain(states[0]) == plain(states[1])
    assert {start.processes for start in Run(other).environment().starts} == {2}


@pytest.mark.slow
def test_torchrun_with_wrong_input_says_it_once(tmp_path):
    process = torchrun(tmp_path, tmp_path / "out", "--max-restarts=0")
    os.kill(process.pid, signal.SIGTERM)  # before anything was imported
    assert process.wait() != 0
    process = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m",
         "lwbench", "table"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    ours = [line for line in process.stderr.splitlines() if line.startswith("lwbench: ")]
    assert len(ours) == 1 and "torchrun starts the processes of one training" in ours[0]
