"""Checkpoints: what is damaged is noticed, what runs code is refused, the one before stands by."""

import os
import shutil
import signal
import tracemalloc
import zipfile

import pytest
import torch
from test_train import Silent, network, training, without_times
from torch import nn

from lwbench.engine import checkpoint
from lwbench.errors import DamagedError, UsageError
from lwbench.runs.directory import Run


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"model": network().state_dict()})
    return path


def flip(path, position, bit=0):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def test_a_checkpoint_is_an_archive_that_torch_and_zip_read(saved):
    state = torch.load(saved, weights_only=True)["model"]
    assert all(value.equal(state[name]) for name, value in network().state_dict().items())
    assert zipfile.ZipFile(saved).comment.startswith(b"sha256:")


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.999])
def test_a_cut_checkpoint_is_noticed(saved, share):
    size = saved.stat().st_size
    os.truncate(saved, int(size * share))
    with pytest.raises(DamagedError, match="not a readable checkpoint"):
        checkpoint.load(saved)


def test_a_flipped_bit_is_noticed_wherever_it_is(saved):
    """At 300 places, among them the first byte, the last and the digest's own."""
    size = saved.stat().st_size
    for position in [*range(0, size, size // 200), *range(size - 100, size)]:
        flip(saved, position, bit=position % 8)
        with pytest.raises(DamagedError):
            checkpoint.load(saved)
        flip(saved, position, bit=position % 8)
    checkpoint.load(saved)


def test_torch_alone_does_not_notice_the_flipped_bit_that_the_digest_does(saved):
    weight = network()[6].weight.detach().numpy().tobytes()
    flip(saved, saved.read_bytes().index(weight) + 3, bit=6)
    assert not torch.load(saved, weights_only=True)["model"]["6.weight"].equal(network()[6].weight)
    with pytest.raises(DamagedError, match="digest"):
        checkpoint.load(saved)


@pytest.mark.parametrize("is_archive", [True, False])
def test_a_file_of_another_tool_has_no_digest_and_loads(tmp_path, is_archive):
    model = nn.Linear(4, 2)
    torch.save(model.state_dict(), tmp_path / "x.pth", _use_new_zipfile_serialization=is_archive)
    assert checkpoint.load(tmp_path / "x.pth")["weight"].equal(model.weight)


def test_a_checkpoint_that_runs_code_is_refused_and_runs_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    evil = {"model": Evil()}
    torch.save(evil, tmp_path / "plain.pt")
    checkpoint.save(tmp_path / "signed.pt", evil)  # with a digest that fits
    for name in ("plain.pt", "signed.pt"):
        with pytest.raises(DamagedError, match=r"holds an object of type \w+\.system"):
            checkpoint.load(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_no_copy_of_the_tensors_is_made_in_memory(tmp_path):
    state = {"model": {str(number): torch.rand(1 << 22) for number in range(4)}}  # 16 MB each
    tracemalloc.start()
    try:
        checkpoint.save(tmp_path / "last.pt", state)
        checkpoint.load(tmp_path / "last.pt")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_a_signal_in_the_write_of_a_checkpoint_ends_it_and_the_old_one_stands(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"epoch": 1})

    class Signalled(Exception):
        pass

    def handler(signum, frame):
        raise Signalled

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for delay in (0.001, 0.005, 0.02, 0.05):
            with pytest.raises(Signalled):
                signal.setitimer(signal.ITIMER_REAL, delay)
                while True:
                    checkpoint.save(path, {"epoch": 1, "tensor": torch.zeros(1 << 20)})
            assert checkpoint.load(path)["epoch"] == 1
            assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_missing_checkpoint_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="no checkpoint at"):
        checkpoint.load(tmp_path / "last.pt")


# two generations


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "gone"])
def test_a_damaged_last_checkpoint_costs_a_warning_and_no_digit(tmp_path, damage, caplog):
    whole = training(tmp_path / "whole")
    expected = whole(Silent())
    training(tmp_path / "cut", epochs=2)(Silent())
    last = tmp_path / "cut" / "checkpoints" / "last.pt"
    if damage == "flipped":
        flip(last, last.stat().st_size // 2)
    elif damage == "gone":  # killed between the two renames of a save
        last.unlink()
    else:
        os.truncate(last, 0 if damage == "empty" else 1000)
    resumed = training(tmp_path / "cut")
    found = resumed(Silent())
    assert "resuming from the checkpoint before it" in caplog.text
    assert found["final"] == expected["final"] and found["best"] == expected["best"]
    rows = [without_times(Run(tmp_path / name).metrics()) for name in ("whole", "cut")]
    assert rows[0] == rows[1]
    for name, value in whole.model.state_dict().items():
        assert value.equal(resumed.model.state_dict()[name]), name


def test_a_damaged_checkpoint_never_takes_the_place_of_the_good_one(tmp_path):
    training(tmp_path, epochs=2)(Silent())
    last, previous = (tmp_path / "checkpoints" / f"{name}.pt" for name in ("last", "previous"))
    flip(last, 1000)
    checkpoint.load_newest(last, previous)
    assert checkpoint.load(last)["position"]["epoch"] == 1 and not previous.exists()


@pytest.mark.parametrize(
    "change", [{"optimizer": {}}, {"rng": [1]}, {"position": {"epoch": 1, "row": []}}, None]
)
def test_weights_that_are_no_state_of_a_training_are_refused(tmp_path, change):
    training(tmp_path, epochs=1)(Silent())
    path = tmp_path / "checkpoints" / "last.pt"
    state = checkpoint.load(path)
    checkpoint.save(path, state | change if change else {"model": state["model"]})
    with pytest.raises(DamagedError, match=r"last.pt is not the state of such a training") as error:
        training(tmp_path, epochs=2)(Silent())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("epochs", [1, 2])  # without and with a previous.pt
def test_two_damaged_generations_are_an_error_that_says_what_to_do(tmp_path, epochs):
    training(tmp_path, epochs=epochs)(Silent())
    folder = tmp_path / "checkpoints"
    for path in folder.glob("*.pt"):
        os.truncate(path, 100)
    with pytest.raises(DamagedError, match=f"from the beginning, delete {folder}$"):
        training(tmp_path, epochs=3)(Silent())
    shutil.rmtree(folder)
    assert training(tmp_path, epochs=3)(Silent())["epochs"] == 3
