"""Image folders: one folder a class. Finds the files, and says what is wrong with a tree."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import UsageError
from .decode import SUFFIXES
from .draws import held_out

ENDINGS = tuple(sorted(SUFFIXES))


@dataclass(frozen=True)
class Listing:
    """Files of one split in canonical order (class, then path), and their labels.

    `paths` are strings: path objects are what a scan of many files would spend most on. `stamp`:
    sha256, as hex, of relative paths, sizes and times of change.
    """

    class_names: list[str]
    paths: list[str]
    labels: list[int]
    sizes: list[int]
    stamp: str

    def part(self, chosen: torch.Tensor) -> "Listing":
        """Only the files where `chosen` (N,) bool says so."""
        keep = chosen.nonzero()[:, 0].tolist()
        return Listing(
            self.class_names,
            [self.paths[i] for i in keep],
            [self.labels[i] for i in keep],
            [self.sizes[i] for i in keep],
            self.stamp,
        )


def scan(folder: Path, skip: frozenset[str] = frozenset()) -> Listing:
    """All images of `folder/<class>/*`, classes sorted by name.

    Other files, hidden ones and the classes of `skip` are passed over. Raises UsageError for a
    folder that cannot be read or has no class folders, for a class without images, and for a
    dangling link.
    """
    classes = sorted(e.name for e in _entries(folder) if e.is_dir() and e.name not in skip)
    if not classes:
        raise UsageError(f"{folder}: no class folders; expected {folder}/<class>/<image>")
    listing = Listing(classes, [], [], [], "")
    stamp = hashlib.sha256()
    for label, name in enumerate(classes):
        files = [e for e in _entries(folder / name) if e.name.lower().endswith(ENDINGS)]
        if not files:
            raise UsageError(
                f"{folder / name}: no images in this class folder\n"
                f"remove the folder, or fill it (known: {' '.join(ENDINGS)})"
            )
        for entry in sorted(files, key=lambda e: e.name):
            status = _stat(entry)
            stamp.update(f"{name}/{entry.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
            listing.paths.append(entry.path)
            listing.labels.append(label)
            listing.sizes.append(status.st_size)
    return Listing(classes, listing.paths, listing.labels, listing.sizes, stamp.hexdigest())


def scan_splits(root: Path, train: str, test: str) -> tuple[Listing, Listing]:
    """The listings of `root/<train>` and `root/<test>`. Raises UsageError where classes differ."""
    first, second = scan(root / train), scan(root / test)
    require_same_classes(first.class_names, second.class_names, root / train, root / test)
    return first, second


def require_same_classes(train: list[str], test: list[str], here: Path, there: Path) -> None:
    """Raises UsageError naming classes that only one split has: their labels would be shifted."""
    for only, place in ((set(train) - set(test), here), (set(test) - set(train), there)):
        if only:
            names = ", ".join(sorted(only)[:5]) + (", ..." if len(only) > 5 else "")
            raise UsageError(
                f"{here} and {there} differ in their classes: only {place} has {names}\n"
                "both splits need the same class folders"
            )


def split_listing(listing: Listing, one_in: int, split_seed: int) -> tuple[Listing, Listing]:
    """Training and validation part: one in `one_in` of each class, drawn by `split_seed`.

    A class's draw depends on its name alone, so that a sample of the classes splits as the whole
    set does. Raises UsageError for a class of one image.
    """
    labels = torch.tensor(listing.labels)
    out = torch.zeros(len(labels), dtype=torch.bool)
    for label, name in enumerate(listing.class_names):
        members = (labels == label).nonzero()[:, 0]
        if len(members) < 2:
            folder = os.path.dirname(listing.paths[members[0]])
            raise UsageError(
                f"{folder}: one image cannot be split into training and validation; it takes two"
            )
        out[members] = held_out(len(members), one_in, split_seed, name)
    return listing.part(~out), listing.part(out)


def first_with(root: Path, candidates: list[Path], folders: tuple[str, ...]) -> Path | None:
    """The first of `candidates` (relative to `root`) that holds all the `folders`, or None."""
    for candidate in candidates:
        place = root / candidate
        if all((place / folder).is_dir() for folder in folders):
            return place
    return None


def require_root(root: str, name: str, layout: str, hint: str) -> Path:
    """An explicit root, which must exist: nothing is downloaded there. Raises UsageError."""
    place = Path(root).expanduser()
    if not place.is_dir():
        raise UsageError(
            f"data.root={root}: no such folder ({place.absolute()}); {name} needs {layout}\n{hint}"
        )
    return place


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror})") from None


def _stat(entry: os.DirEntry) -> os.stat_result:
    try:
        return entry.stat()
    except OSError as error:
        kind = "a link to nothing" if entry.is_symlink() else "cannot be read"
        raise UsageError(f"{entry.path}: {kind} ({error.strerror}); restore or remove it") from None
