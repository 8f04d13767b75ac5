"""Real faults while a run trains: full disks, torn files, clocks, memory, homes, pipes, locales."""

import json
import logging
import os
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_interruption import assert_equal_runs, image_tree, plain
from test_train import Kill, Silent, training

from lwbench.cli import main
from lwbench.engine import checkpoint
from lwbench.engine.evaluate import confusion_bytes, evaluate
from lwbench.engine.signals import Interrupted
from lwbench.engine.step import TrainStep
from lwbench.errors import LwbenchError
from lwbench.logs import RunLog
from lwbench.runs.directory import Run


@pytest.fixture
def job(tmp_path):
    """The command of a run that takes a moment."""
    root = image_tree(tmp_path / "images")
    return ["train", "model=mb0", "epochs=1", "data=folder", f"data.root={root}", "image_size=32",
            "batch_size=12"]  # fmt: skip


# a full disk: a small file system of its own, filled to the last byte


class Disk:
    def __init__(self, folder):
        self.folder, self._filler = folder, folder / "filler"

    def fill(self):
        with open(self._filler, "ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    pass

    def free(self):
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems can be mounted by root only")
    yield Disk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, plain(training(folder)(Silent()))


class Fills(Silent):
    """Fills the disk behind the first epoch, and makes room behind the second where asked to."""

    def __init__(self, disk, frees):
        self.disk, self.frees = disk, frees
        self.during = None

    def epoch_ends(self, row):
        if row["epoch"] == 1:
            self.disk.fill()
        if row["epoch"] == 2:
            run = Run(self.disk.folder / "run")
            last = checkpoint.load(run.checkpoints / "last.pt")
            self.during = (last["position"]["epoch"], len(run.metrics()))
            if self.frees:
                self.disk.free()


def steps_of(folder, tag="train/loss"):
    events = EventAccumulator(str(folder)).Reload()
    return [event.step for event in events.Scalars(tag)]


def test_a_disk_that_is_full_for_an_epoch_costs_one_warning_and_no_record(disk, whole, caplog):
    progress = Fills(disk, frees=True)
    found = training(disk.folder / "run")(progress)
    assert progress.during == (1, 1), "the old checkpoint and the old metrics stand"
    assert plain(found) == whole[1]
    assert_equal_runs(whole[0], disk.folder / "run")
    assert steps_of(disk.folder / "run") == [1, 2, 3]
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1 and "No space left on device" in warnings[0]


def test_a_disk_that_stays_full_ends_the_run_with_its_own_message_and_it_goes_on(disk, whole):
    with pytest.raises(LwbenchError, match="No space left on device\nnothing written before is"):
        training(disk.folder / "run")(Fills(disk, frees=False))
    assert not list((disk.folder / "run").rglob("*.part"))
    disk.free()
    assert plain(training(disk.folder / "run")(Silent())) == whole[1]
    assert_equal_runs(whole[0], disk.folder / "run")


def test_a_log_that_cannot_be_written_costs_one_line_and_is_caught_up(disk, capsys):
    logger = logging.getLogger("lwbench")
    with RunLog(disk.folder / "train.log"):
        logger.info("before")
        disk.fill()
        for number in range(3):
            logger.info("message %d %s", number, "x" * 5000)
        disk.free()
        logger.info("after")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "cannot write to" in said and "Traceback" not in said
    text = (disk.folder / "train.log").read_text()
    assert all(word in text for word in ("before", "message 0", "message 2", "after"))


def test_a_result_that_cannot_be_written_is_said_and_made_up_for(disk, job, capsys, monkeypatch):
    write = Run.write_result

    def onto_a_full_disk(run, result):
        disk.fill()
        write(run, result)

    monkeypatch.setattr(Run, "write_result", onto_a_full_disk)
    job.append(f"out={disk.folder / 'out'}")
    assert main(job) == 1
    said = capsys.readouterr().err
    assert "No space left" in said and "the same command continues" in said
    assert not list(disk.folder.glob("out/*/*/*/result.json"))
    disk.free()
    monkeypatch.undo()
    assert main(job) == 0
    assert "epoch 1/1" not in capsys.readouterr().out


def test_a_file_size_limit_is_a_full_disk_too(job, tmp_path):
    """RLIMIT_FSIZE in a process of its own; needs no mount."""
    code = (
        "import resource, sys; from lwbench.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *job, f"out={tmp_path / 'out'}", "data.cache=null"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    first, *_, last = done.stderr.splitlines()
    assert "File too large): training continues" in first and "the same command continues" in last
    assert done.stderr.count("\n") == 3 and "Traceback" not in done.stderr
    assert "epoch 1/1" in done.stdout


# torn and turned back


def interrupted_in_the_third_epoch(folder):
    with pytest.raises(Interrupted):
        training(folder)(Kill(15, 10))
    (events,) = folder.glob("events.out.tfevents.*")
    return events


def test_a_torn_events_file_leaves_no_doubled_and_no_missing_point(tmp_path):
    events = interrupted_in_the_third_epoch(tmp_path)
    os.truncate(events, events.stat().st_size - 10)
    training(tmp_path)(Silent())
    for tag in ("train/loss", "test/top1", "offset/mean"):
        assert steps_of(tmp_path, tag) == [1, 2, 3]


def test_a_clock_that_jumps_back_makes_no_duration_negative_and_no_curve_double(
    tmp_path, monkeypatch
):
    interrupted_in_the_third_epoch(tmp_path)
    now = iter(range(10**6, 0, -1000))
    monkeypatch.setattr("time.time", lambda: float(next(now)))
    result = training(tmp_path)(Silent())
    monkeypatch.undo()
    assert result["seconds"] > 0 and result["images_per_s"] > 0
    assert all(float(row["seconds"]) > 0 for row in Run(tmp_path).metrics())
    assert steps_of(tmp_path) == [1, 2, 3]


def test_a_torn_metrics_file_is_written_anew_from_the_checkpoint(tmp_path, whole):
    interrupted_in_the_third_epoch(tmp_path)
    path = tmp_path / "metrics.csv"
    os.truncate(path, path.stat().st_size - 30)
    training(tmp_path)(Silent())
    assert_equal_runs(whole[0], tmp_path)


# memory, numbers


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
     RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
     MemoryError()],
)  # fmt: skip
def test_out_of_memory_names_batch_and_image_size(job, tmp_path, monkeypatch, capsys, error):
    def without_memory(*_):
        raise error

    monkeypatch.setattr(TrainStep, "__call__", without_memory)
    assert main([*job, f"out={tmp_path / 'out'}"]) == 1
    said = capsys.readouterr().err
    assert "out of memory with batch_size=12 and image_size=32: lower one of them" in said
    assert said.count("\n") == 2


def test_a_state_that_has_diverged_replaces_no_checkpoint(tmp_path):
    with pytest.raises(LwbenchError, match="loss became"):
        training(tmp_path, lr=1e30, save_every=1e-6)(Silent())
    saved = list((tmp_path / "checkpoints").glob("*.pt"))
    assert saved
    for path in saved:
        position = checkpoint.load(path)["position"]
        assert position["sums"] is None or position["sums"].isfinite().all()


# surroundings


def test_a_run_needs_neither_a_home_nor_utf_8(job, tmp_path):
    gone = {"HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "LANG", "LC_ALL", "LC_CTYPE"}
    environment = {k: v for k, v in os.environ.items() if k not in gone} | {
        "HOME": "/proc/1/nothing", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
    }  # fmt: skip
    # twice the same, then into a folder whose name this locale cannot write
    code = (
        "import sys; from lwbench.cli import main; *job, here, there = sys.argv[1:]; "
        "sys.exit(main([*job, here]) or main([*job, here]) or main([*job, there]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *job, "out=here", "out=größe"], cwd=tmp_path,
        env=environment, capture_output=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"Error" not in done.stderr and b"finished earlier" in done.stdout
    (result,) = tmp_path.glob("here/images/mb0/*/result.json")
    assert json.loads(result.read_text("utf-8"))["epochs"] == 1
    assert list(tmp_path.glob("größe/images/mb0/*/result.json"))


def test_a_reader_that_leaves_ends_no_training(job, tmp_path):
    command = [sys.executable, "-m", "lwbench", *job]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 0 and said == b""
    assert list(tmp_path.glob("outputs/images/mb0/*/result.json"))


def test_many_classes_cost_no_square_of_their_number_in_an_evaluation():
    classes = 100_000  # a matrix of them would take 80 GB

    class Echo(torch.nn.Module):
        def forward(self, images):
            return torch.nn.functional.one_hot(images, classes).float()

    labels = torch.tensor([3, 99_999, 7])
    batches = [(labels, labels), (torch.tensor([5]), torch.tensor([6]))]
    found = evaluate(Echo(), batches, classes, autocast=nullcontext)
    assert (found.top1, found.num_classes) == (75.0, classes)
    assert found.cells.tolist() == [3 * classes + 3, 99_999 * classes + 99_999, 7 * classes + 7,
                                    6 * classes + 5]  # fmt: skip
    few = [(torch.eye(3)[[0, 1, 1]], torch.tensor([0, 1, 2]))]
    few = evaluate(torch.nn.Identity(), few, 3, autocast=nullcontext)
    assert few.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert few.confusion.nbytes * 2 == confusion_bytes(3)


def test_memory_that_batch_and_image_size_do_not_lower_is_named(job, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lwbench.commands._failures.LARGE_BYTES", 0)

    def without_memory(*_):
        raise MemoryError

    monkeypatch.setattr(TrainStep, "__call__", without_memory)
    assert main([*job, f"out={tmp_path / 'out'}"]) == 1
    assert "the confusion matrices of 3 classes take 0.00 GiB" in capsys.readouterr().err
