"""Inject four faults into another tool and into lwbench, and print what happens.

Everything is run on this machine: timm's CheckpointSaver, Hydra's launcher, torch.save. Exits with
0 if lwbench loses nothing in any of the four cases.

python scripts/demo_faults.py
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from lwbench.engine import checkpoint
from lwbench.errors import LwbenchError
from lwbench.runs.directory import Run

Outcome = tuple[str, bool]  # a description; whether nothing was lost


# a better checkpoint, a resume, a worse epoch


def timm_resumes(folder: Path) -> Outcome:
    from timm.utils import CheckpointSaver

    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch, metric in enumerate((90.0, 50.0)):  # a new saver each, as after a resume
        saver = CheckpointSaver(
            model, optimizer, checkpoint_dir=str(folder), recovery_dir=str(folder)
        )
        saver.save_checkpoint(epoch, metric=metric)
    best = torch.load(folder / "model_best.pth.tar", weights_only=False)
    return f"best is the epoch of {best['metric']:g} %", best["metric"] == 90


def ours_resumes(folder: Path) -> Outcome:
    """Train an epoch at a useful learning rate, resume at one that destroys the network."""
    train(folder, epochs=1, lr=0.05)
    before = checkpoint.load(folder / "checkpoints" / "best.pt")
    train(folder, epochs=2, lr=50.0)
    worse = float(Run(folder).metrics()[-1]["test_top1"])
    best = checkpoint.load(folder / "checkpoints" / "best.pt")
    held = worse < before["test_top1"] == best["test_top1"]
    return f"best is the epoch of {best['test_top1']:.3g} %, after one of {worse:.3g} %", held


def train(folder: Path, epochs: int, lr: float) -> None:
    from lwbench.engine.inputs import Settings
    from lwbench.engine.optimizers import sgd
    from lwbench.engine.train import Training

    (folder / "checkpoints").mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    training = Training(
        model,
        Sides(),
        sgd(model, lr=lr),
        lambda progress: lr if progress >= epochs - 1 else 0.05,
        run=Run(folder),
        settings=Settings(epochs=epochs),
        device=torch.device("cpu"),
    )
    training(Silent())


class Sides:
    """Noise, brighter in one class; the training labels of the second epoch are inverted."""

    num_classes, batch_size, train_size, steps_per_epoch = 2, 64, 256, 4
    class_names = ("dark", "bright")

    def batch(self, seed: int, flipped: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(2, (64,), generator=generator)
        images = torch.randn(64, 3, 2, 2, generator=generator) + 2.0 * labels.view(-1, 1, 1, 1)
        return images, 1 - labels if flipped else labels

    def train_batches(self, epoch: int, start: int = 0):
        return (self.batch(100 * epoch + s, flipped=epoch == 1) for s in range(start, 4))

    def eval_batches(self, split: str, most: int | None = None):
        return (self.batch(10**6 + s) for s in range(2))


class Silent:
    def epoch_starts(self, epoch: int, images_done: int) -> None: ...

    def images_done(self, images: int) -> None: ...

    def epoch_ends(self, row: dict) -> None: ...


# the second of three jobs calls sys.exit(7)

HYDRA_APP = """
import sys
import hydra

@hydra.main(version_base="1.3", config_path=None)
def main(config):
    if config.seed == 1:
        sys.exit(7)
    open(f"{config.folder}/done-{config.seed}", "w").close()

main()
"""
EXIT = """
import sys

def leave(event, arguments):
    own = "lwbench.sweeps.job" in sys.orig_argv and "seed=1" in sys.orig_argv
    if own and event == "open" and str(arguments[0]).endswith("train.log"):
        sys.exit(7)

sys.addaudithook(leave)
"""


def hydra_sweeps(folder: Path) -> Outcome:
    (folder / "app.py").write_text(HYDRA_APP)
    words = ["-m", "+seed=0,1,2", f"+folder={folder}", f"hydra.sweep.dir={folder}/multirun"]
    done = subprocess.run([sys.executable, "app.py", *words], cwd=folder, capture_output=True)
    finished = len(list(folder.glob("done-*")))
    return f"{finished} of the 2 other jobs ran, exit {done.returncode}", finished == 2


def ours_sweeps(folder: Path) -> Outcome:
    (folder / "sitecustomize.py").write_text(EXIT)
    path = os.pathsep.join([str(folder), str(Path(__file__).parent.parent)])
    words = ["model=mb0", "epochs=1", "batch_size=1024", "image_size=16", "seed=0,1,2"]
    done = subprocess.run(
        [sys.executable, "-m", "lwbench", "train", "-m", *words],
        cwd=folder, capture_output=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    finished = len(list(folder.glob("outputs/*/*/*/result.json")))
    held = finished == 2 and done.returncode == 1 and b"exit code 7" in done.stdout
    return f"{finished} of the 2 other jobs ran, exit {done.returncode}", held


# one bit of a weight, flipped on disk


def flip(path: Path, weights: torch.Tensor) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(weights.numpy().tobytes()) + 3] ^= 1 << 2  # the first one's exponent
    path.write_bytes(content)


def torch_loads(folder: Path) -> Outcome:
    path, weights = folder / "x.pt", torch.randn(1000)
    torch.save({"model": weights}, path)
    flip(path, weights)
    try:
        loaded = torch.load(path, weights_only=True)["model"]
    except Exception as error:
        return f"refused: {str(error).splitlines()[0]}", True
    return f"loaded: {weights[0]:.3g} reads {loaded[0]:.3g}", bool(loaded.equal(weights))


def ours_loads(folder: Path) -> Outcome:
    path, weights = folder / "x.pt", torch.randn(1000)
    checkpoint.save(path, {"model": weights})
    flip(path, weights)
    try:
        checkpoint.load(path)
    except LwbenchError as error:
        return f"refused: {str(error).split(': ', 1)[-1]}", True
    return "loaded", False


# no space for the second of two checkpoints: a file may have 6 MiB, as if the disk were full

LIMIT = 6 * 2**20


def without_space(save: Callable[[Path, dict], None], load: Callable[[Path], dict], folder: Path):
    path, state = folder / "last.pt", {"model": torch.arange(2**20, dtype=torch.float32)}
    save(path, state)
    size = path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        save(path, {"model": torch.zeros(2**22)})
        failure = "no error"
    except Exception as error:
        failure = type(error).__name__
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    try:
        held = bool(load(path)["model"].equal(state["model"]))
    except Exception:
        held = False
    now = path.stat().st_size
    word = "loads" if held else "does not load"
    return f"{failure}; the old file, {size / 1e6:.1f} MB, has {now / 1e6:.1f} MB and {word}", held


def torch_saves(folder: Path) -> Outcome:
    return without_space(
        lambda path, state: torch.save(state, path),
        lambda path: torch.load(path, weights_only=True),
        folder,
    )


def ours_saves(folder: Path) -> Outcome:
    return without_space(checkpoint.save, checkpoint.load, folder)


CASES = [
    ("a worse epoch after a resume", "timm CheckpointSaver", timm_resumes, ours_resumes),
    ("sys.exit in a sweep's second job", "Hydra -m", hydra_sweeps, ours_sweeps),
    ("a flipped bit in a checkpoint", "torch.save, torch.load", torch_loads, ours_loads),
    ("no space for the next checkpoint", "torch.save", torch_saves, ours_saves),
]


def main() -> int:
    table = Table("fault", "other tool", "its behaviour", "behaviour of lwbench", box=None)
    all_held = True
    for fault, peer, theirs, ours in CASES:
        outcomes = []
        for demonstrate in (theirs, ours):
            with tempfile.TemporaryDirectory() as folder:
                outcomes.append(demonstrate(Path(folder)))
        all_held = all_held and outcomes[1][1]
        words = [f"{'holds' if held else 'LOST'}: {text}" for text, held in outcomes]
        table.add_row(fault, peer, *words)
    Console(width=200 if not sys.stdout.isatty() else None, highlight=False).print(table)
    return 0 if all_held else 1


if __name__ == "__main__":
    sys.exit(main())
