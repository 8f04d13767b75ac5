"""Compare making batches of 32 px images with torchvision's transforms and a DataLoader.

Compared with what CIFAR repositories do: a data set of Pillow images, torchvision's transforms
(random crop with padding 4, flip, in one case rotation by up to 15 degrees, ToTensor, Normalize)
and a DataLoader of batches of 128 with the number of workers that is fastest on this machine;
workers stay alive between epochs. Both read from memory, and their first epoch is not counted.
Epochs of both are interleaved; the ratio is that of the medians, the spread the lowest and highest
ratio of a pair. Prints one JSON line per case to standard output, progress to standard error.

    python scripts/bench_input.py [--data=<cifar folder>] [--tiny] [--runs N] [--images N]
                                  [--threads N] [--compile]

Without --data the images are noise; neither side's work depends on what they show.
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as engine/threads.py sets it on an idle machine

import argparse
import sys
import warnings
from collections.abc import Callable

import torch
from interleaved import clocked, compare
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from lwbench.data.augment import Augment
from lwbench.data.loader import Data
from lwbench.data.source import Source, Split, channel_statistics
from lwbench.registry import DATASETS

BATCH = 128
CASES = {"crop + flip": 0.0, "crop + flip + rotation": 15.0}

Epoch = Callable[[], None]


class Pictures(Dataset):
    """A split as torchvision's data sets give it: a Pillow image, transformed, and its label."""

    def __init__(self, split: Split, transform: Callable) -> None:
        self.images, self.labels = split.images.numpy(), split.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def source(folder: str | None, count: int) -> Source:
    """CIFAR from a folder, or noise of its size; at most `count` training images of it."""
    if folder is None:
        rng = torch.Generator().manual_seed(0)
        images = torch.randint(256, (count, 32, 32, 3), generator=rng, dtype=torch.uint8)
        split = Split(torch.randint(10, (count,), generator=rng), images)
        name, names = "noise", [str(n) for n in range(10)]
    else:
        name = "cifar100" if "cifar100" in folder else "cifar10"
        whole = DATASETS.build({"builder": name, "root": folder}).load(32)
        some = torch.randperm(len(whole.train), generator=torch.Generator().manual_seed(0))[:count]
        split = Split(whole.train.labels[some], whole.train.images[some])
        names = whole.class_names
    mean, std = channel_statistics(split.images)
    return Source(name, names, split, split, 32, 32, mean, std, digest="")


def ours(of: Source, rotation: float, compiled: bool) -> Epoch:
    """An epoch of the resident pipeline, with its order and draws."""
    augment = Augment(crop_padding=4, flip=True, rotation=rotation)
    data = Data(of, image_size=32, batch_size=BATCH, seed=0, device="cpu", augment=augment)
    if compiled:
        data._augmented = torch.compile(data._augmented, dynamic=True)
    epochs = iter(range(1 << 30))
    return lambda: consume(data.train_batches(next(epochs)))


def peer(of: Source, rotation: float, workers: int) -> Epoch:
    """An epoch of transforms and DataLoader."""
    steps = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    steps += [transforms.RandomRotation(rotation)] if rotation else []
    steps += [transforms.ToTensor(), transforms.Normalize(of.mean, of.std)]
    loader = DataLoader(
        Pictures(of.train, transforms.Compose(steps)),
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return lambda: consume(loader)


def consume(batches) -> None:
    for _images, _labels in batches:
        pass


def best_peer(of: Source, rotation: float) -> tuple[int, Epoch]:
    """The fastest number of workers, none to twice the cores, and its epoch, warmed up."""
    cores = os.cpu_count() or 1
    candidates = {n: peer(of, rotation, n) for n in sorted({0, 1, cores, 2 * cores})}
    times = {}
    for workers, epoch in candidates.items():
        epoch()
        times[workers] = clocked(epoch)()
        rate = len(of.train) / times[workers]
        print(f"  peer, {workers} workers: {rate:.0f} images/s", file=sys.stderr)
    best = min(times, key=times.__getitem__)
    return best, candidates[best]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", help="a folder of CIFAR-10 or CIFAR-100 images; else noise")
    parser.add_argument("--tiny", action="store_true", help="a few seconds, to test the script")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="compile our side")
    # more workers than cores are a candidate here, not an accident
    warnings.filterwarnings("ignore", "This DataLoader will create")
    options = parser.parse_args()
    if options.tiny:
        options.runs, options.images = 2, 512
    torch.set_num_threads(options.threads)
    of = source(options.data, options.images)
    for case, rotation in CASES.items():
        workers, slow = best_peer(of, rotation)
        compare(
            "input",
            f"32 px, {case}" + (", compiled" if options.compile else ""),
            clocked(ours(of, rotation, options.compile)),
            {"torchvision transforms + DataLoader": clocked(slow)},
            runs=options.runs,
            data=of.name,
            images=len(of.train),
            peer_workers=workers,
        )


if __name__ == "__main__":
    main()
