"""Image folders, one per class: the files of a data set, and what is wrong with its folders."""

import hashlib
import os
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ..errors import UsageError, shown
from .decode import SUFFIXES
from .draws import held_out

ENDINGS = tuple(sorted(SUFFIXES))


@dataclass(frozen=True)
class Listing:
    """The files of one split in canonical order (class, then path), and their labels.

    `paths` are strings: creating path objects would take most of the time of scanning a large set.
    `fingerprint`: sha256, as hex, of relative paths, sizes and modification times. `faults`: what
    is wrong with the folders, as messages; a data set is scanned to the end, so that `lwbench
    check` can report all of them.
    """

    folder: str
    class_names: list[str]
    paths: list[str]
    labels: list[int]
    sizes: list[int]
    fingerprint: str
    faults: list[str] = field(default_factory=list)

    def part(self, chosen: torch.Tensor) -> "Listing":
        """Return the files where `chosen` (N,) bool is true."""
        rows = chosen.nonzero()[:, 0].tolist()
        return replace(
            self,
            paths=[self.paths[i] for i in rows],
            labels=[self.labels[i] for i in rows],
            sizes=[self.sizes[i] for i in rows],
        )

    @property
    def cache_key(self) -> str:
        """16 hex digits that name what is cached of these files; changed files have another key."""
        # a part of a tree has the fingerprint of the whole tree: the paths tell parts apart
        content = "\0".join([self.fingerprint, *self.paths]).encode("utf-8", "surrogateescape")
        return hashlib.sha256(content).hexdigest()[:16]

    def per_class(self) -> list[int]:
        """Return the number of images of each class."""
        return torch.tensor(self.labels).long().bincount(minlength=len(self.class_names)).tolist()


Splits = tuple[Listing, Listing]  # training and test images


def scan(folder: Path, skip: frozenset[str] = frozenset()) -> Listing:
    """List all images of `folder/<class>/*`, classes sorted by name.

    Other files, hidden ones and the classes in `skip` are passed over. A class without images, a
    dangling link, and anything with an image's name that is not a file are faults. Raises
    UsageError for a folder that cannot be read or has no class folders.
    """
    folders = (e.name for e in _entries(folder) if stat.S_ISDIR(_stat(e).st_mode))
    classes = sorted(name for name in folders if name not in skip)
    if not classes:
        raise UsageError(f"{shown(folder)}: no class folders; expected <class>/<image> in it")
    listing = Listing(str(folder), classes, [], [], [], "")
    digest = hashlib.sha256()
    for label, name in enumerate(classes):
        files = [e for e in _entries(folder / name) if e.name.lower().endswith(ENDINGS)]
        if not files:
            listing.faults.append(
                f"{shown(folder / name)}: no images in this class folder\n"
                f"move the folder away, or fill it (known: {' '.join(ENDINGS)})"
            )
        for entry in sorted(files, key=lambda e: e.name):
            status = _status(entry, listing.faults)
            # names need not be valid Unicode: hash the file system's own bytes
            text = f"{name}/{entry.name}\0{status.st_size}\0{status.st_mtime_ns}\n"
            digest.update(text.encode("utf-8", "surrogateescape"))
            listing.paths.append(entry.path)
            listing.labels.append(label)
            listing.sizes.append(status.st_size)
    return replace(listing, fingerprint=digest.hexdigest())


def scan_splits(root: Path, train: str, test: str) -> Splits:
    """List `root/<train>` and `root/<test>`, see `scan`."""
    return scan(root / train), scan(root / test)


def require_sound(splits: Splits) -> None:
    """Raise UsageError for the first fault of the folders, or where the classes differ."""
    for listing in splits:
        if listing.faults:
            raise UsageError(listing.faults[0])
    require_same_classes(splits)


def require_same_classes(splits: Splits) -> None:
    """Raise UsageError naming classes that only one split has: their labels would be shifted."""
    train, test = (set(listing.class_names) for listing in splits)
    for only, listing in zip((train - test, test - train), splits, strict=True):
        if only:
            here, there = (shown(listing.folder) for listing in splits)
            raise UsageError(
                f"{here} and {there} differ in their classes: only {shown(listing.folder)} has "
                f"{some(sorted(only))}\nboth splits need the same class folders"
            )


def require_every_class(splits: Splits) -> None:
    """Raise UsageError naming a class without images in one of the splits."""
    for part, listing in zip(("train", "test"), splits, strict=True):
        for name, count in zip(listing.class_names, listing.per_class(), strict=True):
            if not count:
                raise UsageError(
                    f"{shown(Path(listing.folder) / name)}: no readable image to {part} on\n"
                    "move the class folder away, or fill it"
                )


def split_listing(listing: Listing, one_in: int, split_seed: int) -> Splits:
    """Split into training and validation images: one in `one_in` of each class is held out.

    The draw of a class depends on `split_seed` and its name alone, so that a sample of the classes
    is split as the whole set is. A class of one image cannot be split, which is a fault.
    """
    labels = torch.tensor(listing.labels).long()
    out = torch.zeros(len(labels), dtype=torch.bool)
    for label, name in enumerate(listing.class_names):
        members = (labels == label).nonzero()[:, 0]
        if len(members) >= 2:
            out[members] = held_out(len(members), one_in, split_seed, name)
        elif len(members):
            folder = shown(Path(listing.folder) / name)
            listing.faults.append(
                f"{folder}: one image cannot be split into training and validation; it takes two"
            )
    return listing.part(~out), listing.part(out)


def some(names: list[str], most: int = 5) -> str:
    """Format the first names of a list in one line."""
    return ", ".join(shown(name) for name in names[:most]) + (", ..." if len(names) > most else "")


def first_with(root: Path, candidates: list[Path], folders: tuple[str, ...]) -> Path | None:
    """Return the first of `candidates` (relative to `root`) that holds all the `folders`."""
    for candidate in candidates:
        place = root / candidate
        if all(is_folder(place / folder) for folder in folders):
            return place
    return None


def require_root(root: str, name: str, layout: str, hint: str) -> Path:
    """Return the folder that the user named. Raises UsageError where there is none."""
    place = Path(os.path.expanduser(root))
    if not is_folder(place):
        raise UsageError(
            f"data.root={shown(root)}: no such folder ({shown(place.absolute())}); {name} needs "
            f"{layout}\n{hint}"
        )
    return place


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder. Raises UsageError where the system refuses to say."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UsageError(f"{shown(path)}: cannot be read ({error.strerror})") from None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UsageError(f"{shown(folder)}: cannot be read ({error.strerror})") from None


def _stat(entry: os.DirEntry[str]) -> os.stat_result:
    try:
        return entry.stat()
    except OSError as error:
        raise UsageError(_unreadable(entry, error)) from None


def _unreadable(entry: os.DirEntry[str], error: OSError) -> str:
    kind = "a link to nothing" if entry.is_symlink() else "cannot be read"
    return f"{shown(entry.path)}: {kind} ({error.strerror}); restore it or move it away"


def _status(entry: os.DirEntry[str], faults: list[str]) -> os.stat_result:
    """The file's status, or the link's own where it leads nowhere; adds to the faults."""
    try:
        status = entry.stat()
    except OSError as error:
        faults.append(_unreadable(entry, error))
        if not entry.is_symlink():
            raise UsageError(faults[-1]) from None
        return entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        faults.append(
            f"{shown(entry.path)}: not a regular file, though it has an image's name; move it away"
        )
    return status
