"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32 px (Krizhevsky, 2009).

https://www.cs.toronto.edu/~kriz/cifar.html; the official split of 50,000 and 10,000 images,
CIFAR-100 with its fine labels.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import UsageError, shown
from ...paths import data_home
from ...registry import DATASETS
from ..layouts.folders import first_with, require_root
from ..splits import Splits, Tree
from ..tree import scan
from . import Dataset
from .download import download_once

if TYPE_CHECKING:
    from ..source import Source

SIDE = 32
SPLITS = ("train", "test")
ClassesAndArrays = tuple[list[str], dict[str, np.ndarray]]


# names that torchvision does not export as such; a test compares them with its classes
@dataclass(frozen=True)
class Archive:
    """How torchvision names and stores a set: its class, the folder inside, the files in it."""

    dataset: str
    folder: str
    files: tuple[str, ...]
    size: str


ARCHIVES = {
    "cifar10": Archive(
        "CIFAR10",
        "cifar-10-batches-py",
        (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"),
        "170 MB",
    ),
    "cifar100": Archive("CIFAR100", "cifar-100-python", ("train", "test", "meta"), "169 MB"),
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

    def splits(self) -> Splits | None:
        """List the files of image folders; None for the archive. See `Dataset.splits`."""
        tree = self._tree()
        return tree.splits() if tree else None

    def fingerprint(self) -> str | None:
        """Hash paths, sizes and times of the image files or the archive's files."""
        if tree := self._tree():
            return tree.fingerprint
        unpacked = self._unpacked()
        return _archive_fingerprint(ARCHIVES[self.name], unpacked) if unpacked else None

    def load(self, image_size: int) -> "Source":
        """Read the images, see `Dataset.load`; batches are resized to `image_size` on the device.

        Raises UsageError where `root` is missing or holds neither layout, for an image that is
        unreadable or not 32 px, and where the download fails.
        """
        # folders first: whoever unpacked the archive into images wants these to be read
        if splits := self.splits():
            splits.require_sound()
            make = partial(_of_folders, splits)
            return self._cached(splits.fingerprint, make, splits.notes)
        archive, unpacked = ARCHIVES[self.name], self._unpacked()
        if unpacked is None and self.root is not None:
            # nothing is downloaded into a folder of the user's
            raise UsageError(
                f"data.root={shown(self.root)}: no {self.name} in it; expected {layout(self.name)}"
            )
        if unpacked is None:
            unpacked = data_home() / self.name
            download(self.name, unpacked)
        fingerprint = _archive_fingerprint(archive, unpacked)
        return self._cached(fingerprint, partial(_of_archive, archive, unpacked))

    def _tree(self) -> Tree | None:
        folders = first_with(self._place(), [Path("."), Path(self.name)], SPLITS)
        return Tree(scan(folders / "train"), scan(folders / "test")) if folders else None

    def _unpacked(self) -> Path | None:
        folders = (ARCHIVES[self.name].folder,)
        return first_with(self._place(), [Path("."), Path(self.name)], folders)

    def _place(self) -> Path:
        """The folder where the set is looked for; it exists where the user named it."""
        home = data_home() / self.name
        # it may not exist yet: then the archive is downloaded to it
        if self.root is None:
            return home
        hint = f"leave data.root out to download {self.name} to {home}"
        return require_root(self.root, self.name, layout(self.name), hint)

    def _cached(
        self, fingerprint: str, make: Callable[[], ClassesAndArrays], notes: tuple[str, ...] = ()
    ) -> "Source":
        from ..cache import cached_arrays
        from ..content import hashed_arrays, twin_notes
        from ..source import resident_source

        # decoding 60,000 files takes long, reading a cache of them does not
        class_names, arrays, digest = cached_arrays(self.name, fingerprint, self.cache, make)
        train, test = (
            hashed_arrays(part, arrays[f"{part}_images"], arrays[f"{part}_labels"])
            for part in SPLITS
        )
        return resident_source(
            self.name,
            class_names,
            arrays,
            digest=digest,
            fingerprint=fingerprint,
            notes=(*notes, *twin_notes((train, test))),
        )


def layout(name: str) -> str:
    """Describe where the images are expected."""
    archive = ARCHIVES[name]
    return f"{{train,test}}/<class>/*.png or {archive.folder}/ ({archive.size})"


def download(name: str, place: Path) -> None:
    """Download and unpack the official archive. Raises UsageError where that fails."""
    from torchvision import datasets

    # its address and checksum, so that both stay up to date with torchvision
    dataset = getattr(datasets, ARCHIVES[name].dataset)
    download_once(
        lambda staging: dataset(str(staging), download=True),
        name=name,
        url=dataset.url,
        size=ARCHIVES[name].size,
        folder=place,
        tree=ARCHIVES[name].folder,
    )


def _archive_fingerprint(archive: Archive, place: Path) -> str:
    """Hash names, sizes and times of the archive's files. Raises UsageError for a missing one."""
    files = [place / archive.folder / file for file in archive.files]
    if missing := [file for file in files if not file.is_file()]:
        raise UsageError(
            f"{shown(missing[0])}: missing; move {shown(missing[0].parent)} away to have it "
            "downloaded again"
        )
    stats = [file.stat() for file in files]
    # names without folders: the archive may be moved
    facts = [(f.name, s.st_size, s.st_mtime_ns) for f, s in zip(files, stats, strict=True)]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _of_archive(archive: Archive, place: Path) -> ClassesAndArrays:
    from torchvision import datasets

    from ..source import canonical

    arrays: dict[str, np.ndarray] = {}
    for split in SPLITS:
        try:
            # torchvision compares the files' md5 with the official ones
            loaded = getattr(datasets, archive.dataset)(str(place), train=split == "train")
        except RuntimeError:
            raise UsageError(
                f"{shown(place / archive.folder)}: a file does not match its checksum\n"
                "move the folder away, and unpack or download the archive again"
            ) from None
        # the archive's order is neither that of folders nor by class
        images, labels = canonical(loaded.data, np.array(loaded.targets))
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    return list(loaded.classes), arrays


def _of_folders(splits: Splits) -> ClassesAndArrays:
    from ..source import canonical
    from ..workers import decode_files

    arrays: dict[str, np.ndarray] = {}
    for split, listing in splits.parts:
        images = decode_files(listing.paths, SIDE, exact=True).numpy()
        # sorting by content makes the order independent of how the files are named
        images, labels = canonical(images, np.array(listing.labels))
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    return splits.train.class_names, arrays
