"""Walks image folders, one per class, and lists their files and what is passed over."""

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from ..errors import UsageError, shown
from .listing import Listing, fingerprint_of

# what torchvision's ImageFolder reads; Pillow's further formats are added by `endings`
COMMON = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# Pillow recognises these formats and cannot decode them ("identify-only" in its documentation)
UNDECODABLE = frozenset({"BUFR", "GRIB", "HDF5", "MPEG"})
MOST_FOLDERS = 200  # that a search for a likely data set looks into: the root may be a home folder


def scan(folder: Path, skip: frozenset[str] = frozenset()) -> Listing:
    """List all images below `folder/<class>/`, to any depth; classes and paths sorted by name.

    The files are those that torchvision's ImageFolder finds, with Pillow's further formats and
    without hidden names; the classes in `skip` are left out. Dangling and circular links, and
    anything with an image's name that is not a file, are faults. Raises UsageError for a folder
    that cannot be read.
    """
    top = str(folder)
    listing = Listing(top, [], [], [], [], "")
    for entry in _entries(top):
        # hidden names are of tools rather than of a class: .git, or ._0.png of a Mac's archive
        if entry.name.startswith("."):
            listing.note("hidden", entry.path)
        elif _leads_to_folder(entry):
            if entry.name not in skip:
                listing.class_names.append(entry.name)
        else:
            _note_loose(entry, listing)
    listing.class_names.sort()
    for label, name in enumerate(listing.class_names):
        # sorted by path relative to the class folder, whatever order the file system has
        found = sorted(_images(f"{top}/{name}", listing), key=lambda entry: entry.path)
        for entry in found:
            status = _status(entry, listing.faults)
            listing.paths.append(entry.path)
            listing.labels.append(label)
            listing.sizes.append(status.st_size)
            listing.times.append(status.st_mtime_ns)
    return replace(listing, fingerprint=fingerprint_of(listing))


@cache
def endings() -> tuple[str, ...]:
    """Return the file name endings, in lower case, of the image formats that can be read."""
    from PIL import Image

    # without it, Pillow registers the less common formats only when it meets one of them
    Image.init()
    formats = Image.OPEN.keys() - UNDECODABLE
    registered = Image.registered_extensions().items()
    return tuple(sorted({*COMMON, *(ending for ending, name in registered if name in formats)}))


def _note_loose(entry: os.DirEntry[str], listing: Listing) -> None:
    """Note what lies beside the class folders."""
    try:
        entry.stat()
    except OSError as error:
        # a link that leads nowhere may have been a class
        listing.faults[entry.path] = _unreadable(entry, error)
    else:
        is_image = _is_image(entry.name)
        kind = "images beside the class folders" if is_image else _kind(entry.name)
        listing.note(kind, entry.path)


def _images(folder: str, listing: Listing) -> Iterator[os.DirEntry[str]]:
    """Yield the images below a class folder; links to folders are followed, but not in a circle."""
    # folders yet to be read, each with the device and inode of the folders that lead to it
    top = frozenset({_identity(listing.folder)})
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [(folder, top)]
    while waiting:
        place, above = waiting.pop()
        here = _identity(place)
        if here in above:
            listing.faults[place] = (
                f"{shown(place)}: a link to a folder that it lies in; move it away"
            )
            continue
        for entry in _entries(place):
            if entry.name.startswith("."):
                listing.note("hidden", entry.path)
            elif _leads_to_folder(entry):
                waiting.append((entry.path, above | {here}))
            elif _is_image(entry.name):
                yield entry
            else:
                listing.note(_kind(entry.name), entry.path)


def _identity(folder: str) -> tuple[int, int]:
    """Device and inode, which are equal for a folder and a link to it."""
    try:
        status = os.stat(folder)
    except OSError as error:  # removed while the tree is scanned
        raise UsageError(f"{shown(folder)}: cannot be read ({error.strerror})") from None
    return status.st_dev, status.st_ino


def _kind(name: str) -> str:
    """Return a file's ending; anything too long or empty for one is "other"."""
    ending = os.path.splitext(name)[1].lower()
    return ending if 1 < len(ending) <= 8 and ending[1:].isalnum() else "other"


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UsageError(f"{shown(folder)}: cannot be read ({error.strerror})") from None


def _unreadable(entry: os.DirEntry[str], error: OSError) -> str:
    kind = "a link to nothing" if entry.is_symlink() else "cannot be read"
    return f"{shown(entry.path)}: {kind} ({error.strerror}); restore it or move it away"


def _status(entry: os.DirEntry[str], faults: dict[str, str]) -> os.stat_result:
    """The file's status, or the link's own where it leads nowhere; adds to the faults."""
    try:
        status = entry.stat()
    except OSError as error:
        faults[entry.path] = _unreadable(entry, error)
        if not entry.is_symlink():
            raise UsageError(faults[entry.path]) from None
        # listed even so, as ImageFolder does: reading it says what is wrong in the same way
        return entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        faults[entry.path] = (
            f"{shown(entry.path)}: not a regular file, though it has an image's name; move it away"
        )
    return status


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder. Raises UsageError where the system refuses to say."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UsageError(f"{shown(path)}: cannot be read ({error.strerror})") from None


def folders_in(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, without hidden ones; none where unreadable."""
    try:
        with os.scandir(folder) as entries:
            return sorted(e.name for e in entries if e.name[0] != "." and _leads_to_folder(e))
    except OSError:
        return []


def holds_images(folder: Path) -> bool:
    """Whether images lie directly in a folder; no where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return any(e.name[0] != "." and _is_image(e.name) for e in entries)
    except OSError:
        return False


def likely_root(folder: Path) -> Path | None:
    """Return a folder below or above that looks like a data set, where this one is levels off."""
    level, seen = [folder], 0
    # breadth first: the nearest folder is the likeliest
    for _ in range(3):
        level = [place / name for place in level for name in folders_in(place)]
        for place in level:
            seen += 1
            if seen > MOST_FOLDERS:
                return None
            if _looks_like_a_set(place):
                return place
    # above only where this folder can be one of the classes there
    parent = Path(os.path.normpath(folder / ".."))
    if holds_images(folder) and not folder.samefile(parent) and _looks_like_a_set(parent):
        return parent
    return None


def _looks_like_a_set(folder: Path) -> bool:
    names = folders_in(folder)[:MOST_FOLDERS]
    # training images in class folders, or several folders of images
    if "train" in names and len(names) > 1 and folders_in(folder / "train"):
        return True
    return sum(holds_images(folder / name) for name in names) > 1


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _is_image(name: str) -> bool:
    return name.lower().endswith(endings())
