"""Compare streaming photographs as training batches at 224 px with torchvision's ImageFolder.

Compared with ImageFolder, Resize(256), RandomCrop(224), flip and normalisation in a DataLoader with
as many workers as lwbench has threads. Both decode every image of an epoch; a second case reads
lwbench's packed cache instead. The files are those of `--data`, repeated by links; without it,
JPEGs of similar sizes are generated.

    python scripts/bench_streaming.py [--tiny] [--runs N] [--images N] [--workers N]
                                      [--data=<folder of train and val>]
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as engine/threads.py sets it on an idle machine

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from interleaved import clocked, compare
from PIL import Image, ImageFilter
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from lwbench.data.augment import Augment
from lwbench.data.loader import Data
from lwbench.registry import DATASETS

BATCH = 64
CLASSES = 4


def generated(folder: Path, count: int) -> list[Path]:
    """Photograph-like JPEGs, 500 x 375 px: blurred noise compresses about as a photograph does."""
    random = np.random.default_rng(0)
    for index in range(count):
        noise = Image.fromarray(random.integers(0, 256, (375, 500, 3), dtype=np.uint8))
        noise.filter(ImageFilter.GaussianBlur(2)).save(folder / f"{index}.jpg", quality=90)
    return sorted(folder.glob("*.jpg"))


def tree(folder: Path, files: list[Path], count: int) -> None:
    """{train,val}/<class>/ with `count` training images, links to `files` in turn."""
    for index in range(count + 2 * CLASSES):
        split = "train" if index < count else "val"
        place = folder / split / f"n{index % CLASSES:08}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{index:06}.JPEG").symlink_to(files[index % len(files)].resolve())


def peer(folder: Path, workers: int) -> Callable[[], None]:
    transform = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.RandomCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(folder / "train"), transform),
        BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )

    def epoch() -> None:
        for images, _ in loader:
            assert images.shape[2:] == (224, 224)

    return epoch


def ours(folder: Path, workers: int, cache: str | None) -> Callable[[], None]:
    config = {"builder": "imagenet", "root": str(folder), "cache": cache}
    data = Data(
        DATASETS.build(config).load(224),
        image_size=224,
        batch_size=BATCH,
        seed=0,
        device="cpu",
        augment=Augment(flip=True),
        workers=workers,
    )

    def epoch() -> None:
        for images, _ in data.train_batches(0):
            assert images.shape[2:] == (224, 224)

    return epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a few seconds, to test the script")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--workers", type=int, default=torch.get_num_threads())
    parser.add_argument("--data", help="folder of train and val; without it: generated JPEGs")
    options = parser.parse_args()
    count, runs = (64, 1) if options.tiny else (options.images, options.runs)
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        found = sorted(Path(options.data).rglob("*.JPEG")) if options.data else []
        files = found or generated(made, 32)
        tree(Path(scratch) / "tree", files, count)
        facts = {
            "images": count,
            "data": f"{len(files)} {'images of --data' if found else 'generated JPEGs'}, repeated",
            "workers": options.workers,
        }
        place = Path(scratch) / "tree"
        theirs = {"torchvision ImageFolder + DataLoader": clocked(peer(place, options.workers))}
        for case, cache in (("decoding", None), ("packed cache", f"{scratch}/cache")):
            mine = clocked(ours(place, options.workers, cache))
            compare("streaming", f"224 px, {case}", mine, theirs, runs=runs, **facts)


if __name__ == "__main__":
    main()
