"""Members of tar archives: indexed once, then read at random without unpacking anything."""

import hashlib
import logging
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ...errors import UsageError, shown
from ...runs.cache import cached
from ..listing import Member, Row
from ..tree import endings

log = logging.getLogger("lwbench")

FORMAT = "1"  # of what is cached; another number makes the indices again
CLASS = ".cls"  # ending of WebDataset's files with the class of a sample
MOST_CLASS_BYTES = 4096  # of such a file: a class name, not an image


@dataclass(frozen=True)
class Index:
    """What one archive holds.

    `names`, `offsets`, `sizes`: of the images. `classes`: the text of each `.cls` file by its name.
    `faults`: what is wrong with it, as messages; `passed_over`: the kind and the name of every
    other member. The members of an archive in it are named `<its name>/<member>`.
    """

    path: str
    time: int
    names: list[str]
    offsets: list[int]
    sizes: list[int]
    classes: dict[str, str]
    faults: list[str]
    passed_over: list[list[str]]

    def rows(self, labels: Iterable[str | None]) -> Iterator[Row]:
        """Yield the images with their labels, ordered within a class by their name."""
        for name, offset, size, label in zip(
            self.names, self.offsets, self.sizes, labels, strict=True
        ):
            member = Member(f"{self.path}/{name}", self.path, offset, size)
            yield Row(label, name, member, size, self.time)


def indices(paths: list[Path]) -> list[Index]:
    """Index archives, from the user's cache where size and time are those of the index.

    Raises UsageError for a file that cannot be opened.
    """
    stats = {}
    for path in paths:
        try:
            stats[path] = os.stat(path)
        except OSError as error:
            raise UsageError(f"{shown(path)}: cannot be read ({error.strerror})") from None
    keys = {
        f"{os.path.realpath(path)}\0{status.st_size}\0{status.st_mtime_ns}": path
        for path, status in stats.items()
    }

    def make(missing: list[str]) -> dict[str, Any]:
        log.info("indexing %d archives once", len(missing))
        return {key: _index(keys[key]) for key in missing}

    # a file of the cache per folder, so that no set has to read the indices of all others
    known = cached(_cache_name(paths), FORMAT, keys, make)
    # the path as it is named now: the index may have been made by way of another one
    return [
        Index(path=str(path), time=stats[path].st_mtime_ns, **known[key])
        for key, path in keys.items()
    ]


def _cache_name(paths: list[Path]) -> str:
    folder = os.path.commonpath([os.path.realpath(path) for path in paths])
    return f"tars-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"


def _index(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        "names": [],
        "offsets": [],
        "sizes": [],
        "classes": {},
        "faults": [],
        "passed_over": [],
    }
    try:
        with open(path, "rb") as file:
            _read_members(path, file, found)
    except OSError as error:
        raise UsageError(f"{shown(path)}: cannot be read ({error.strerror})") from None
    return found


def _read_members(
    path: Path, file: BinaryIO, found: dict[str, Any], start: int = 0, prefix: str = ""
) -> None:
    """Add the members of an archive that begins at `start` of the file to `found`."""
    end = os.fstat(file.fileno()).st_size
    where = shown(f"{path}/{prefix}".rstrip("/"))
    count = 0
    file.seek(start)
    try:
        # "r:" is without compression: a member of a compressed archive has no place in the file
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else all stay in memory
                if member.offset_data + member.size > end:
                    break
                count += 1
                _add(path, file, member, prefix, found)
            file.seek(archive.offset)
            # tarfile ends without a word where a header is damaged or the file is cut short
            if member is not None or file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                found["faults"].append(
                    f"{where}: cut short or damaged after {count:,} members; copy or make it again"
                )
    except (tarfile.TarError, ValueError) as error:  # the latter of damaged numbers in headers
        found["faults"].append(f"{where}: not a readable .tar after {count:,} members ({error})")


def _add(
    path: Path, file: BinaryIO, member: tarfile.TarInfo, prefix: str, found: dict[str, Any]
) -> None:
    name = os.path.normpath(member.name)
    if name.startswith("/") or ".." in member.name.split("/"):
        # nothing is unpacked here, but whoever unpacks the archive would write there
        found["faults"].append(
            f"{shown(path)}: member {shown(member.name)} leads out of the archive"
        )
    elif not member.isreg() or member.issparse():
        if not member.isdir():
            found["passed_over"].append(["links and special files", prefix + name])
    elif any(part.startswith(".") for part in name.split("/")):
        found["passed_over"].append(["hidden", prefix + name])
    else:
        _add_file(path, file, member, prefix + name, found)


def _add_file(
    path: Path, file: BinaryIO, member: tarfile.TarInfo, name: str, found: dict[str, Any]
) -> None:
    stem, ending = os.path.splitext(name)
    ending = ending.lower()
    if ending == CLASS and member.size <= MOST_CLASS_BYTES:
        file.seek(member.offset_data)
        text = file.read(member.size).decode("utf-8", "surrogateescape").strip()
        if name in found["classes"]:
            found["faults"].append(f"{shown(path)}: member {shown(name)} is there twice")
        found["classes"][name] = text
    elif ending == ".tar" and "/" not in stem:
        # ImageNet's training images come as an archive of one archive per class
        _read_members(path, file, found, member.offset_data, f"{stem}/")
    elif ending in endings():
        found["names"].append(name)
        found["offsets"].append(member.offset_data)
        found["sizes"].append(member.size)
    else:
        found["passed_over"].append([ending or "other", name])
