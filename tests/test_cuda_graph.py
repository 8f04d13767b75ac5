"""Replayed steps, batches copied ahead, and the cache of compiled code.

What needs no GPU is tested on the CPU, where `Replay` stands in for a graph: it computes when it is
replayed, and not when it is recorded.
"""

import copy
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from lwbench.data.prefetch import copied_ahead
from lwbench.engine.accumulation import Cycles
from lwbench.engine.compile_cache import use_cache
from lwbench.engine.cuda_graph import WARM_UP
from lwbench.engine.inputs import Settings
from lwbench.engine.optimizers import sgd
from lwbench.engine.precision import compiled
from lwbench.engine.step import TrainStep

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


class Replay:
    """Work that is recorded on a CPU. `fails`: as a step that waits for the device does."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.asides, self.replays = fails, 0, 0

    def aside(self, work):
        self.asides += 1
        return work()

    def record(self, work):
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing")
        result = torch.empty(2)

        def replay() -> None:
            self.replays += 1
            result.copy_(work())

        return replay, result


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(),
        nn.Linear(6 * 36, 3),
    )  # fmt: skip


BATCHES = (8, 8, 8, 8, 8, 8, 5)


def rate(progress: float) -> float:
    return 2.0 ** -(4 + round(progress * len(BATCHES)) % 3)  # exact in single precision


def trained(capture=None, device="cpu", epochs=2, **options) -> tuple[list[Tensor], TrainStep]:
    """Sums of every step, then the weights; with steps replayed by `capture`."""
    model = network().to(device)
    step = TrainStep(
        model,
        sgd(model, lr=1.0, weight_decay=0.01),
        rate,
        settings=Settings(epochs=epochs, **options),
        cycles=Cycles(length=1, batches=len(BATCHES), images=sum(BATCHES), batch_size=8),
        device=torch.device(device),
    )
    if capture:
        step.use_graph(capture)
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(2)
    found = []
    for epoch in range(epochs):
        for batch, count in enumerate(BATCHES):
            images = torch.randn(count, 3, 8, 8, generator=generator).to(device)
            labels = torch.randint(3, (count,), generator=generator).to(device)
            found.append(step(images, labels, epoch, batch))
    delivered = copy.deepcopy(step.delivered).cpu()
    return [*(f.cpu() for f in found), *delivered.state_dict().values()], step


@pytest.mark.parametrize("options", [{}, {"clip_grad_norm": 0.1}, {"ema": 0.9}])
def test_replayed_steps_equal_eager_ones(options):
    capture = Replay()
    replayed, step = trained(capture, **options)
    eager, _ = trained(**options)
    assert all(torch.equal(a, b) for a, b in zip(replayed, eager, strict=True))
    # the last batches of both epochs are smaller
    assert (capture.asides, capture.replays) == (WARM_UP, 2 * len(BATCHES) - WARM_UP - 2)
    assert step.graph is not None and step.graph.is_used


def test_a_step_that_cannot_be_captured_runs_as_usual(caplog):
    caplog.set_level("INFO")
    found, step = trained(Replay(fails=True))
    eager, _ = trained()
    assert all(torch.equal(a, b) for a, b in zip(found, eager, strict=True))
    assert step.graph is not None and not step.graph.is_used
    assert caplog.text.count("without a CUDA graph: operation not permitted") == 1


def test_no_graph_is_used_on_a_cpu():
    assert trained(epochs=1)[1].graph is None


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("options", [{}, {"clip_grad_norm": 0.1}, {"ema": 0.9}])
def test_graphs_equal_eager_steps_on_a_gpu(options):
    torch.backends.cudnn.deterministic = True
    graphed, step = trained(device="cuda", precision="fp32", **options)
    assert step.graph is not None and step.graph.is_used
    eager, _ = trained(Replay(fails=True), device="cuda", precision="fp32", **options)
    assert all(torch.equal(a, b) for a, b in zip(graphed, eager, strict=True))


# batches


def batches() -> list[Tensor]:
    return [torch.full((4, 3, 3, 3), value, dtype=torch.uint8) for value in range(5)]


def test_batches_on_a_cpu_are_passed_on_as_they_are():
    given = batches()
    found = list(copied_ahead(iter(given), torch.device("cpu")))
    assert all(a is b for a, b in zip(found, given, strict=True))


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("pinned", [False, True])
def test_batches_that_are_copied_ahead_arrive_whole(pinned):
    given = [b.pin_memory() if pinned else b for b in batches()]
    for found, expected in zip(copied_ahead(given, torch.device("cuda")), given, strict=True):
        busy = torch.randn(1000, 1000, device="cuda")
        busy @ busy
        assert torch.equal(found.cpu(), expected)


# the cache of compiled code

USE = """
import sys, os
from pathlib import Path
from lwbench.engine.compile_cache import use_cache
folder = use_cache(Path(sys.argv[1]))
folder.mkdir(exist_ok=True)
print(sorted(p.name for p in folder.iterdir()), flush=True)
(folder / sys.argv[2]).touch()
os.kill(os.getpid(), 9) if sys.argv[3] == "killed" else None
"""


def test_compiled_code_is_kept_until_a_process_that_uses_it_is_killed(tmp_path):
    def use(name: str, how: str) -> str:
        command = [sys.executable, "-c", USE, str(tmp_path / "cache"), name, how]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    assert use("first", "ends") == "[]"
    assert use("second", "killed") == "['first']"
    assert use("third", "ends") == "[]"
    assert use("fourth", "ends") == "['third']"


def test_a_cache_that_others_may_write_is_not_used(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert not use_cache(shared).is_relative_to(shared)
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(target)
    assert not use_cache(tmp_path / "link").is_relative_to(target)


@pytest.mark.gpu
@NEEDS_GPU
def test_compiled_steps_use_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    model = network().cuda()
    compiled(model)(torch.randn(2, 3, 8, 8, device="cuda")).sum().backward()
    assert any((tmp_path / "lwbench" / "inductor").rglob("code/*"))
