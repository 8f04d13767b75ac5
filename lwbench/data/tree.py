"""Image folders: one folder a class. Finds the files, and says what is wrong with a tree."""

import hashlib
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..errors import UsageError, shown
from .decode import SUFFIXES
from .draws import held_out

ENDINGS = tuple(sorted(SUFFIXES))


@dataclass(frozen=True)
class Listing:
    """Files of one split in canonical order (class, then path), and their labels.

    `paths` are strings: path objects are what a scan of many files would spend most on. `stamp`:
    sha256, as hex, of relative paths, sizes and times of change.
    """

    folder: str
    class_names: list[str]
    paths: list[str]
    labels: list[int]
    sizes: list[int]
    stamp: str

    def part(self, chosen: torch.Tensor) -> "Listing":
        """Only the files where `chosen` (N,) bool says so."""
        keep = chosen.nonzero()[:, 0].tolist()
        return replace(
            self,
            paths=[self.paths[i] for i in keep],
            labels=[self.labels[i] for i in keep],
            sizes=[self.sizes[i] for i in keep],
        )

    @property
    def key(self) -> str:
        """16 hex digits for what is kept of these files: other files or changed ones, another key.

        The listing of a part of a tree has the whole tree's stamp: the paths tell them apart.
        """
        content = "\0".join([self.stamp, *self.paths]).encode("utf-8", "surrogateescape")
        return hashlib.sha256(content).hexdigest()[:16]

    def per_class(self) -> list[int]:
        """The number of images of each class."""
        return torch.tensor(self.labels).long().bincount(minlength=len(self.class_names)).tolist()


def scan(folder: Path, skip: frozenset[str] = frozenset(), strict: bool = True) -> Listing:
    """All images of `folder/<class>/*`, classes sorted by name.

    Other files, hidden ones and the classes of `skip` are passed over. Raises UsageError for a
    folder that cannot be read or has no class folders; where `strict`, for a class without images,
    a dangling link, and what has an image's name and is no file, too.
    """
    folders = (e.name for e in _entries(folder) if stat.S_ISDIR(_stat(e).st_mode))
    classes = sorted(name for name in folders if name not in skip)
    if not classes:
        raise UsageError(f"{shown(folder)}: no class folders; expected <class>/<image> in it")
    listing = Listing(str(folder), classes, [], [], [], "")
    stamp = hashlib.sha256()
    for label, name in enumerate(classes):
        files = [e for e in _entries(folder / name) if e.name.lower().endswith(ENDINGS)]
        if strict and not files:
            raise UsageError(
                f"{shown(folder / name)}: no images in this class folder\n"
                f"remove the folder, or fill it (known: {' '.join(ENDINGS)})"
            )
        for entry in sorted(files, key=lambda e: e.name):
            size, changed = _size_and_time(entry, strict)
            # names need not be unicode: the file system's own bytes
            text = f"{name}/{entry.name}\0{size}\0{changed}\n"
            stamp.update(text.encode("utf-8", "surrogateescape"))
            listing.paths.append(entry.path)
            listing.labels.append(label)
            listing.sizes.append(size)
    return replace(listing, stamp=stamp.hexdigest())


def scan_splits(root: Path, train: str, test: str, strict: bool = True) -> tuple[Listing, Listing]:
    """The listings of `root/<train>` and `root/<test>`; where `strict`, of the same classes.

    Raises UsageError, see `scan` and `require_same_classes`.
    """
    splits = scan(root / train, strict=strict), scan(root / test, strict=strict)
    if strict:
        require_same_classes(splits)
    return splits


def require_same_classes(splits: tuple[Listing, Listing]) -> None:
    """Raises UsageError naming classes that only one split has: their labels would be shifted."""
    train, test = (set(listing.class_names) for listing in splits)
    for only, listing in zip((train - test, test - train), splits, strict=True):
        if only:
            here, there = (shown(listing.folder) for listing in splits)
            raise UsageError(
                f"{here} and {there} differ in their classes: only {shown(listing.folder)} has "
                f"{some(sorted(only))}\nboth splits need the same class folders"
            )


def require_every_class(splits: tuple[Listing, Listing]) -> None:
    """Raises UsageError naming a class without images in one of the splits."""
    for part, listing in zip(("train", "test"), splits, strict=True):
        for name, count in zip(listing.class_names, listing.per_class(), strict=True):
            if not count:
                raise UsageError(
                    f"{shown(Path(listing.folder) / name)}: no readable image to {part} on\n"
                    "remove the class folder, or fill it"
                )


def some(names: list[str], most: int = 5) -> str:
    """The first names of a list, as text in one line."""
    return ", ".join(shown(name) for name in names[:most]) + (", ..." if len(names) > most else "")


def split_listing(
    listing: Listing, one_in: int, split_seed: int, strict: bool = True
) -> tuple[Listing, Listing]:
    """Training and validation part: one in `one_in` of each class, drawn by `split_seed`.

    A class's draw depends on its name alone, so that a sample of the classes splits as the whole
    set does. Where `strict`, raises UsageError for a class of one image; else it trains.
    """
    labels = torch.tensor(listing.labels).long()
    out = torch.zeros(len(labels), dtype=torch.bool)
    for label, name in enumerate(listing.class_names):
        members = (labels == label).nonzero()[:, 0]
        if len(members) >= 2:
            out[members] = held_out(len(members), one_in, split_seed, name)
        elif strict:
            folder = shown(Path(listing.folder) / name)
            raise UsageError(
                f"{folder}: one image cannot be split into training and validation; it takes two"
            )
    return listing.part(~out), listing.part(out)


def first_with(root: Path, candidates: list[Path], folders: tuple[str, ...]) -> Path | None:
    """The first of `candidates` (relative to `root`) that holds all the `folders`, or None."""
    for candidate in candidates:
        place = root / candidate
        if all(is_folder(place / folder) for folder in folders):
            return place
    return None


def require_root(root: str, name: str, layout: str, hint: str) -> Path:
    """An explicit root, which must exist: nothing is downloaded there. Raises UsageError."""
    place = Path(os.path.expanduser(root))
    if not is_folder(place):
        raise UsageError(
            f"data.root={shown(root)}: no such folder ({shown(place.absolute())}); {name} needs "
            f"{layout}\n{hint}"
        )
    return place


def is_folder(path: Path) -> bool:
    """Whether there is a folder. Raises UsageError where the system does not let one see."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UsageError(f"{shown(path)}: cannot be read ({error.strerror})") from None


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UsageError(f"{shown(folder)}: cannot be read ({error.strerror})") from None


def _stat(entry: os.DirEntry) -> os.stat_result:
    try:
        return entry.stat()
    except OSError as error:
        kind = "a link to nothing" if entry.is_symlink() else "cannot be read"
        raise UsageError(
            f"{shown(entry.path)}: {kind} ({error.strerror}); restore or remove it"
        ) from None


def _size_and_time(entry: os.DirEntry, strict: bool) -> tuple[int, int]:
    """Size and time of change of a file; of the link itself where it leads nowhere."""
    if not strict and not os.path.exists(entry.path):
        status = entry.stat(follow_symlinks=False)
    else:
        status = _stat(entry)
    if strict and not stat.S_ISREG(status.st_mode):
        raise UsageError(
            f"{shown(entry.path)}: not a regular file, though it has an image's name; remove it"
        )
    return status.st_size, status.st_mtime_ns
