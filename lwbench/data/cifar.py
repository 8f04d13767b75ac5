"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32 px (Krizhevsky, 2009).

https://www.cs.toronto.edu/~kriz/cifar.html; the official split of 50,000 and 10,000 images,
CIFAR-100 with its fine labels.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import UsageError, shown
from ..paths import data_home
from ..registry import DATASETS
from ..runs.machine import usable_cores
from .cache import Arrays, cached_arrays
from .decode import decode
from .download import download_once
from .source import Dataset, Source, canonical, resident_source
from .tree import Listing, Splits, first_with, require_root, require_sound, scan_splits
from .workers import Paths, batched, in_threads

SIDE = 32
SPLITS = ("train", "test")


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
def cifar10(*, root: str | None = None, cache: str | None = None) -> Dataset:
    """CIFAR-10 at 32 px, resident. See `Cifar`."""
    return Cifar("cifar10", root, cache)


@DATASETS.register
def cifar100(*, root: str | None = None, cache: str | None = None) -> Dataset:
    """CIFAR-100 at 32 px, resident. See `Cifar`."""
    return Cifar("cifar100", root, cache)


@dataclass(frozen=True)
class Cifar(Dataset):
    """Either set: the official archive, unpacked, or image folders `root/{train,test}/<class>/*`.

    `root`: the folder that holds either, or its parent; without one, the user's data folder, where
    the archive is downloaded to (torchvision's address and checksum). `cache`: the folder for the
    decoded images, else the user's cache.
    """

    name: str
    root: str | None = None
    cache: str | None = None

    def listings(self) -> Splits | None:
        """List the files of image folders; None for the archive. See `Dataset.listings`."""
        folders = first_with(self._place(), [Path("."), Path(self.name)], SPLITS)
        return scan_splits(folders, *SPLITS) if folders else None

    def load(self, image_size: int) -> Source:
        """Read the images, see `Dataset.load`; batches are resized to `image_size` on the device.

        Raises UsageError where `root` is missing or holds neither layout, for an image that is
        unreadable or not 32 px, and where the download fails.
        """
        if splits := self.listings():
            require_sound(splits)
            return self._cached(*_of_folders(splits))
        archive, place = ARCHIVES[self.name], self._place()
        unpacked = first_with(place, [Path("."), Path(self.name)], (archive.folder,))
        if unpacked is None and self.root is not None:
            raise UsageError(
                f"data.root={shown(self.root)}: no {self.name} in it; expected {layout(self.name)}"
            )
        if unpacked is None:
            download(self.name, place)
            unpacked = place
        return self._cached(*_of_archive(archive, unpacked))

    def _place(self) -> Path:
        """The folder where the set is looked for; it exists where the user named it."""
        home = data_home() / self.name
        if self.root is None:
            return home
        hint = f"leave data.root out to download {self.name} to {home}"
        return require_root(self.root, self.name, layout(self.name), hint)

    def _cached(self, fingerprint: str, make: Callable[[], tuple[list[str], Arrays]]) -> Source:
        class_names, arrays, digest = cached_arrays(self.name, fingerprint, self.cache, make)
        classes = ARCHIVES[self.name].classes
        return resident_source(self.name, class_names, arrays, classes, digest)


def layout(name: str) -> str:
    """Describe where the images are expected."""
    archive = ARCHIVES[name]
    return f"{{train,test}}/<class>/*.png or {archive.folder}/ ({archive.size})"


def download(name: str, place: Path) -> None:
    """Download and unpack the official archive. Raises UsageError where that fails."""
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


# For either layout: the fingerprint of the files, and a function that decodes them.


def _of_archive(
    archive: Archive, place: Path
) -> tuple[str, Callable[[], tuple[list[str], Arrays]]]:
    files = [place / archive.folder / file for file in archive.files]
    if missing := [file for file in files if not file.is_file()]:
        raise UsageError(
            f"{missing[0]}: missing; move {missing[0].parent} away to have it downloaded again"
        )
    stats = [file.stat() for file in files]
    facts = [(f.name, s.st_size, s.st_mtime_ns) for f, s in zip(files, stats, strict=True)]

    def make() -> tuple[list[str], Arrays]:
        from torchvision import datasets

        arrays: Arrays = {}
        for split in SPLITS:
            try:
                # torchvision compares the files' md5 with the official ones
                loaded = getattr(datasets, archive.dataset)(str(place), train=split == "train")
            except RuntimeError:
                raise UsageError(
                    f"{place / archive.folder}: a file does not match its checksum\n"
                    "move the folder away, and unpack or download the archive again"
                ) from None
            images, labels = canonical(loaded.data, np.array(loaded.targets))
            arrays |= {f"{split}_images": images, f"{split}_labels": labels}
        return list(loaded.classes), arrays

    return hashlib.sha256(repr(facts).encode()).hexdigest(), make


def _of_folders(splits: Splits) -> tuple[str, Callable[[], tuple[list[str], Arrays]]]:
    # sorting by content makes the order independent of how the files are named
    def make() -> tuple[list[str], Arrays]:
        arrays: Arrays = {}
        for split, listing in zip(SPLITS, splits, strict=True):
            images, labels = canonical(decode_all(listing), np.array(listing.labels))
            arrays |= {f"{split}_images": images, f"{split}_labels": labels}
        return splits[0].class_names, arrays

    fingerprints = "".join(listing.fingerprint for listing in splits)
    return hashlib.sha256(fingerprints.encode()).hexdigest(), make


def decode_all(listing: Listing) -> np.ndarray:
    """Decode all images of a listing, (N, 32, 32, 3) uint8. Raises UsageError naming a bad one."""

    def start(paths: Paths) -> tuple[torch.Tensor, Callable[[int], None]]:
        images = torch.empty(len(paths), SIDE, SIDE, 3, dtype=torch.uint8)

        def fill(row: int) -> None:
            images[row] = decode_square(paths[row])

        return images, fill

    workers = min(8, usable_cores())
    return torch.cat(list(in_threads(batched(listing.paths), start, workers=workers))).numpy()


def decode_square(path: Path | str) -> torch.Tensor:
    """Decode one image to (32, 32, 3) uint8. Raises UsageError where it has another size."""
    pixels = decode(path)
    height, width = pixels.shape[1:]
    if (height, width) != (SIDE, SIDE):
        raise UsageError(
            f"{shown(path)}: {width} x {height} px, where CIFAR has 32 x 32\n"
            "for images of other sizes use data=folder"
        )
    return pixels.permute(1, 2, 0)
