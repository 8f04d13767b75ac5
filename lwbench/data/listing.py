"""The images of one split: where each lies, its label, and what is wrong with the set's files."""

import hashlib
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import numpy as np

from ..errors import shown

UNLABELLED = -1  # the label of an image whose class is not known


class Member(str):
    """An image within another file, such as a tar archive; as text it is `<file>/<name>`.

    It stands for a path wherever images are read: `size` bytes at `offset` of `holder`, encoded as
    they would be in a file of their own.
    """

    __slots__ = ("holder", "offset", "size")
    holder: str
    offset: int
    size: int

    def __new__(cls, text: str, holder: str, offset: int, size: int) -> Self:
        member = super().__new__(cls, text)
        member.holder, member.offset, member.size = holder, offset, size
        return member

    def read(self) -> bytes:
        """Read the encoded image. Raises OSError, or ValueError where the file ends before it."""
        with open(self.holder, "rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise ValueError(f"{shown(self.holder)} is cut short")
        return content


class Row(NamedTuple):
    """One image as a layout lists it.

    `name`: of the file within its class, which decides the order; `label`: the class's name, or
    None where it is not known; `time`: of modification, in nanoseconds.
    """

    label: str | None
    name: str
    path: str
    size: int
    time: int


@dataclass(frozen=True)
class Listing:
    """The files of one split in canonical order (class, then path), and their labels.

    `paths` are strings: creating path objects would take most of the time of scanning a large set.
    `fingerprint`: sha256, as hex, of relative paths, sizes and modification times. `faults`: what
    is wrong, as a message for each path; a data set is scanned to the end, so that `lwbench check`
    can report all of it. `passed_over`: the number and the first of the files of each kind that are
    not images of a class. `times`: of modification, in nanoseconds; empty where there are no files.
    """

    folder: str
    class_names: list[str]
    paths: list[str]
    labels: list[int]
    sizes: list[int]
    fingerprint: str
    faults: dict[str, str] = field(default_factory=dict)
    passed_over: dict[str, tuple[int, str]] = field(default_factory=dict)
    times: list[int] = field(default_factory=list)

    def rows(self, rows: Sequence[int]) -> "Listing":
        """Return the files of the given rows, in that order."""
        # faults and what is passed over stay: they are of the folder rather than of single rows
        return replace(
            self,
            paths=[self.paths[i] for i in rows],
            labels=[self.labels[i] for i in rows],
            sizes=[self.sizes[i] for i in rows],
            times=[self.times[i] for i in rows] if self.times else [],
        )

    def part(self, chosen: np.ndarray) -> "Listing":
        """Return the files where `chosen` (N,) bool is true."""
        return self.rows(np.flatnonzero(chosen).tolist())

    def without(self, rows: Collection[int]) -> "Listing":
        """Return all files but those of the given rows."""
        chosen = np.ones(len(self.paths), dtype=bool)
        chosen[list(rows)] = False
        return self.part(chosen)

    def relative(self, path: str) -> str:
        """Return `<class>/<file>` of one of the paths: equal for the same set in another place."""
        return path[len(self.folder) :].lstrip("/")

    @property
    def unlabelled(self) -> bool:
        """Whether the classes of the images are not known."""
        return UNLABELLED in self.labels

    @property
    def cache_key(self) -> str:
        """16 hex digits that name what is cached of these files; changed files have another key."""
        # a part of a tree has the fingerprint of the whole tree: the paths tell parts apart
        content = "\0".join([self.fingerprint, *self.paths]).encode("utf-8", "surrogateescape")
        return hashlib.sha256(content).hexdigest()[:16]

    def per_class(self) -> list[int]:
        """Return the number of images of each class; images without a label are not counted."""
        labels = np.asarray(self.labels, dtype=np.int64)
        # minlength: classes at the end may have no images
        return np.bincount(labels[labels >= 0], minlength=len(self.class_names)).tolist()

    def note(self, kind: str, path: str) -> None:
        """Count a file that is passed over; the first path by name is the example of its kind."""
        name = self.relative(path)
        count, example = self.passed_over.get(kind, (0, name))
        # the first by name, not the first found: file systems list files in any order
        self.passed_over[kind] = count + 1, min(example, name)


def listed(
    folder: str | os.PathLike[str],
    rows: Iterable[Row],
    class_names: list[str] | None = None,
    faults: dict[str, str] | None = None,
) -> Listing:
    """Make a listing of rows in any order: by class, then by name, as class folders are read.

    `folder`: what holds all paths. Without `class_names` the classes are those of the rows, sorted
    as text; with it, labels count from its first name, whatever its order.
    """
    rows = list(rows)
    names = class_names if class_names is not None else sorted({r.label for r in rows if r.label})
    label_of: dict[str | None, int] = {name: label for label, name in enumerate(names)}
    label_of[None] = UNLABELLED
    rows.sort(key=lambda row: (label_of[row.label], row.name, row.path))
    listing = Listing(
        str(folder),
        list(names),
        [row.path for row in rows],
        [label_of[row.label] for row in rows],
        [row.size for row in rows],
        "",
        faults if faults is not None else {},
        times=[row.time for row in rows],
    )
    return replace(listing, fingerprint=fingerprint_of(listing))


def fingerprint_of(listing: Listing) -> str:
    """Return the sha256, as hex, of relative paths, sizes and modification times."""
    digest = hashlib.sha256()
    for path, size, time in zip(listing.paths, listing.sizes, listing.times, strict=True):
        # names need not be valid Unicode: hash the file system's own bytes
        text = f"{listing.relative(path)}\0{size}\0{time}\n"
        digest.update(text.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def absent(class_names: list[str]) -> Listing:
    """Return the training images of a set that has none, which can be evaluated on alone."""
    return Listing("", class_names, [], [], [], "")


def some(names: Sequence[str], most: int = 5) -> str:
    """Format the first names of a list in one line."""
    return ", ".join(shown(name) for name in names[:most]) + (", ..." if len(names) > most else "")
