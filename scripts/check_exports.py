"""Export every network of the zoo to ONNX and compare onnxruntime with PyTorch at 64 px.

    python scripts/check_exports.py [names ...] [--processes N]

Batch norms have the statistics of real images (parts of scikit-learn's two photographs), offsets of
deformable convolutions are not zero, and logits are scaled to spread by at least 0.1: a network
whose logits are nearly constant would agree with anything. Prints a line per network and writes it
to outputs/measured/exports.csv, where it replaces the network's former row; exit code 1 if the
largest difference of one is above 1e-4 of its largest logit. Two processes compute with a thread
each.
"""

import argparse
import csv
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import lwbench
from lwbench.deploy.export import program, write
from lwbench.deploy.fuse import set_statistics
from lwbench.deploy.runtime import runtime
from lwbench.layers.deform import DeformConv2d

BOUND = 1e-4  # of the largest logit
SPREAD = 0.1  # largest minus smallest logit of a class over the images, on average
SIDE, IMAGES = 64, 32
TABLE = Path(__file__).resolve().parent.parent / "outputs" / "measured" / "exports.csv"
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


class Check(NamedTuple):
    """The result for one network; `relative`: the largest difference over the largest logit."""

    name: str
    relative: float
    spread: float
    bytes: int  # of the file
    seconds: float  # of the processor

    @property
    def passes(self) -> bool:
        return self.relative <= BOUND and self.spread >= SPREAD


def names() -> list[str]:
    """All networks but torchvision's and timm's, which are libraries of their own."""
    return [name for name in lwbench.list_models() if name not in ("torchvision", "timm")]


def real_images() -> Tensor:
    """Parts of photographs as (IMAGES, 3, SIDE, SIDE) with zero mean and unit deviation."""
    from sklearn.datasets import load_sample_images

    photographs = torch.stack([torch.tensor(one) for one in load_sample_images().images])
    parts = photographs.unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE)  # (2, 6, 10, 3, SIDE, SIDE)
    images = parts.flatten(0, 2).float()
    images = images[:: len(images) // IMAGES][:IMAGES]
    deviation, mean = torch.std_mean(images, (0, 2, 3), keepdim=True)
    return ((images - mean) / deviation).contiguous()


def check(name: str) -> Check:
    """Export one network with random weights and compare it on batches of two sizes."""
    torch.set_num_threads(1)
    begin = time.process_time()
    torch.manual_seed(0)
    images = real_images()
    network = lwbench.create_model(name, num_classes=10)
    for module in network.modules():
        if isinstance(module, DeformConv2d):
            for parameter in module.offset_parameters():
                nn.init.normal_(parameter, 0, 0.1)
    set_statistics(network, images)
    with torch.no_grad():
        spread = _spread(network(images))
        if 0 < spread < SPREAD:  # a classifier that starts with small weights
            last = [m for m in network.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
            last.weight.mul_(2 * SPREAD / spread)
    with tempfile.TemporaryDirectory() as folder:
        write(program(network, images[0], batch=None), "onnx", Path(folder))
        size = (Path(folder) / "model.onnx").stat().st_size
        run = runtime("onnx", Path(folder), threads=1)
        with torch.no_grad():
            ours = network(images)
        theirs = torch.cat([torch.from_numpy(run(x.numpy())) for x in (images[:1], images[1:])])
    relative = float((ours - theirs).abs().max() / ours.abs().max())
    return Check(name, relative, _spread(ours), size, time.process_time() - begin)


def _spread(logits: Tensor) -> float:
    return float((logits.amax(0) - logits.amin(0)).mean())


def record(found: Check) -> None:
    """Put a result into the table, whose rows are in the order of the networks' names."""
    rows = {row["name"]: row for row in recorded()}
    rows[found.name] = {
        "name": found.name,
        "relative_difference": f"{found.relative:.2e}",
        "spread": f"{found.spread:.3g}",
        "images": IMAGES,
        "bytes": found.bytes,
        "seconds": f"{found.seconds:.1f}",
        **{name: version(name) for name in PACKAGES},
    }
    with open(TABLE, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[found.name]))
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))


def recorded() -> list[dict[str, Any]]:
    """The rows of the table; none where it does not exist."""
    if not TABLE.exists():
        return []
    with open(TABLE, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main() -> int:
    """Check the networks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="all networks of the zoo if none is given")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    begin, checks = time.perf_counter(), []
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        for found in pool.map(check, options.names or names()):
            print(
                f"{found.name:<28} {found.relative:.1e} of the largest logit, spread "
                f"{found.spread:.2f}, {found.seconds:.1f} s{'' if found.passes else '  FAILED'}",
                flush=True,
            )
            record(found)
            checks.append(found)
    print(f"{len(checks)} networks in {time.perf_counter() - begin:.0f} s")
    return 0 if all(found.passes for found in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
