"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32 px (Krizhevsky, 2009).

https://www.cs.toronto.edu/~kriz/cifar.html; the official split of 50,000 and 10,000 images,
CIFAR-100 with its fine labels.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import UsageError, shown
from ..paths import data_home
from ..registry import DATASETS
from .decode import decode
from .download import download_once
from .pack import packed
from .source import Source, canonical, resident_source
from .stream import Paths, batched, in_threads
from .tree import Listing, first_with, require_root, scan_splits

SIDE = 32
SPLITS = ("train", "test")
Arrays = tuple[list[str], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Archive:
    """How torchvision names and stores a set: its class, the folder inside, the files in it."""

    dataset: str
    folder: str
    files: tuple[str, ...]
    size: str
    classes: int


ARCHIVES = {
    "cifar10": Archive(
        "CIFAR10",
        "cifar-10-batches-py",
        (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"),
        "170 MB",
        10,
    ),
    "cifar100": Archive("CIFAR100", "cifar-100-python", ("train", "test", "meta"), "169 MB", 100),
}


@DATASETS.register
def cifar10(image_size: int, *, root: str | None = None, cache: str | None = None) -> Source:
    """CIFAR-10 at 32 px, resident; `image_size` is the device's affair. See `load_cifar`."""
    return load_cifar("cifar10", root, cache)


@DATASETS.register
def cifar100(image_size: int, *, root: str | None = None, cache: str | None = None) -> Source:
    """CIFAR-100 at 32 px, resident; `image_size` is the device's affair. See `load_cifar`."""
    return load_cifar("cifar100", root, cache)


def load_cifar(name: str, root: str | None, cache: str | None) -> Source:
    """From the official archive, unpacked, or from image folders `root/{train,test}/<class>/*`.

    `root`: the folder that holds either, or its parent; without one, the user's data folder, where
    the archive is downloaded to (torchvision's address and checksum). `cache`: the folder for the
    decoded images. Raises UsageError where `root` is missing or holds neither, for an image that is
    unreadable or not 32 px, and where the download fails.
    """
    if listings := splits(name, root, strict=True):
        return from_folders(name, listings, cache)
    place = find(name, root)
    unpacked = first_with(place, [Path("."), Path(name)], (ARCHIVES[name].folder,))
    if unpacked is None and root is not None:
        raise UsageError(f"data.root={shown(root)}: no {name} in it; expected {layout(name)}")
    if unpacked is None:
        download(name, place)
        unpacked = place
    return from_archive(name, unpacked, cache)


def splits(dataset: str, root: str | None, strict: bool) -> tuple[Listing, Listing] | None:
    """The files of image folders, see `scan_splits`; None where the set is no image folders."""
    folders = first_with(find(dataset, root), [Path("."), Path(dataset)], SPLITS)
    return scan_splits(folders, *SPLITS, strict) if folders else None


def find(name: str, root: str | None) -> Path:
    """Where the set is looked for. Raises UsageError where `root` is given and no folder."""
    if root is None:
        return data_home() / name
    hint = f"leave data.root out to download {name} to {data_home() / name}"
    return require_root(root, name, layout(name), hint)


def layout(name: str) -> str:
    archive = ARCHIVES[name]
    return f"{{train,test}}/<class>/*.png or {archive.folder}/ ({archive.size})"


def download(name: str, place: Path) -> None:
    """Fetch and unpack the official archive. Raises UsageError where that fails."""
    from torchvision import datasets

    dataset = getattr(datasets, ARCHIVES[name].dataset)
    download_once(
        lambda staging: dataset(str(staging), download=True),
        name=name,
        url=dataset.url,
        size=ARCHIVES[name].size,
        folder=place,
        tree=ARCHIVES[name].folder,
    )


def from_archive(name: str, place: Path, cache: str | None) -> Source:
    """From torchvision's unpacked archive in `place`, whose files it checks by their md5."""
    archive = ARCHIVES[name]
    files = [place / archive.folder / file for file in archive.files]
    if missing := [file for file in files if not file.is_file()]:
        raise UsageError(f"{missing[0]}: missing; remove {missing[0].parent} to have it fetched")
    stats = [file.stat() for file in files]
    facts = [(f.name, s.st_size, s.st_mtime_ns) for f, s in zip(files, stats, strict=True)]
    stamp = hashlib.sha256(repr(facts).encode()).hexdigest()

    def make() -> Arrays:
        from torchvision import datasets

        arrays = {}
        for split in SPLITS:
            try:
                loaded = getattr(datasets, archive.dataset)(str(place), train=split == "train")
            except RuntimeError:
                raise UsageError(
                    f"{place / archive.folder}: a file does not match its checksum\n"
                    "remove the folder and unpack or download the archive again"
                ) from None
            images, labels = canonical(loaded.data, np.array(loaded.targets))
            arrays |= {f"{split}_images": images, f"{split}_labels": labels}
        return list(loaded.classes), arrays

    return source(name, stamp, cache, make)


def from_folders(name: str, splits: tuple[Listing, Listing], cache: str | None) -> Source:
    """From image folders, in whatever order their files are named."""
    listings = dict(zip(SPLITS, splits, strict=True))
    stamps = "".join(listing.stamp for listing in listings.values())
    stamp = hashlib.sha256(stamps.encode()).hexdigest()

    def make() -> Arrays:
        arrays = {}
        for split, listing in listings.items():
            images, labels = canonical(decode_all(listing), np.array(listing.labels))
            arrays |= {f"{split}_images": images, f"{split}_labels": labels}
        return listings["train"].class_names, arrays

    return source(name, stamp, cache, make)


def source(name: str, stamp: str, cache: str | None, make) -> Source:
    """The set as the rest sees it, decoded by `make` where the cache does not have it."""
    class_names, arrays, digest = packed(name, stamp, cache, make)
    return resident_source(name, class_names, arrays, ARCHIVES[name].classes, digest)


def decode_all(listing: Listing) -> np.ndarray:
    """All images of a listing, (N, 32, 32, 3) uint8. Raises UsageError naming one that is not."""

    def start(paths: Paths) -> tuple[torch.Tensor, Callable[[int], None]]:
        images = torch.empty(len(paths), SIDE, SIDE, 3, dtype=torch.uint8)

        def fill(row: int) -> None:
            images[row] = decode_square(paths[row])

        return images, fill

    workers = min(8, os.cpu_count() or 1)
    return torch.cat(list(in_threads(batched(listing.paths), start, workers=workers))).numpy()


def decode_square(path: Path | str) -> torch.Tensor:
    """One image, (32, 32, 3) uint8. Raises UsageError naming a file that is none of that size."""
    pixels = decode(path)
    height, width = pixels.shape[1:]
    if (height, width) != (SIDE, SIDE):
        raise UsageError(
            f"{shown(path)}: {width} x {height} px, where CIFAR has 32 x 32\n"
            "for images of other sizes take data=folder"
        )
    return pixels.permute(1, 2, 0)
