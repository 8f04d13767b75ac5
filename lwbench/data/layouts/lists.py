"""Lists of images: `path,label[,split]` as CSV, or `path label` as text."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...errors import UsageError, shown
from ..listing import Listing, Row, listed
from ..splits import Tree
from .choice import SPLITS, TestSplit, tree_of

# names of columns, as tools write them
PATH_COLUMNS = ("path", "file", "filename", "file_name", "image", "image_path")
LABEL_COLUMNS = ("label", "class", "class_name", "target")
SPLIT_COLUMNS = ("split", "subset")
EXPECTED = "path,label or path,label,split in .csv and .tsv files, `path label` in .txt files"


class Line(NamedTuple):
    """One line of a list, as it is written; `label` and `split` may be empty."""

    number: int
    path: str
    label: str
    split: str = ""


def read_list(file: Path, test_split: TestSplit | None = None) -> Tree:
    """List the images that a file names; paths are relative to its folder, and lie in it.

    Classes are named by the labels as text, whatever these look like, and sorted as folders are. A
    path that leads nowhere or out of the folder, a line that cannot be understood and a path with
    two labels are faults; repeated lines are counted. Raises UsageError where the file cannot be
    read.
    """
    faults: dict[str, str] = {}
    lines = list(_lines(file, faults))
    by_split: dict[str, list[Line]] = {}
    for line in lines:
        split = SPLITS.get(line.split.lower()) if line.split else ""
        if split is None:
            _fault(faults, file, line.number, f"split {shown(line.split)} is none of {_KNOWN}")
        else:
            by_split.setdefault(split, []).append(line)
    if not by_split and not faults:
        raise UsageError(f"{shown(file)}: lists no images; expected {EXPECTED}")
    parts = {
        split: _listing(file, lines, faults, needs_labels=split in ("", "train"))
        for split, lines in by_split.items()
    }
    if not parts:
        raise UsageError(next(iter(faults.values())))
    # faults are of the whole list: the first listing that is used reports all of them
    first = parts.get("train") or parts.get("") or next(iter(parts.values()))
    first.faults.update(faults)
    return tree_of(file, parts, test_split, ())


_KNOWN = ", ".join(SPLITS)


def _fault(faults: dict[str, str], file: Path, number: int, what: str) -> None:
    faults[f"{file}:{number:09}"] = f"{shown(file)} line {number}: {what}"


def _lines(file: Path, faults: dict[str, str]) -> Iterator[Line]:
    separator = {".csv": ",", ".tsv": "\t"}.get(file.suffix.lower())
    try:
        # file names need not be valid Unicode
        with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            if separator is None:
                yield from _text_lines(file, text.read().splitlines(), faults)
            else:
                yield from _csv_lines(file, csv.reader(text, delimiter=separator), faults)
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{shown(file)}: cannot be read ({reason})") from None


def _text_lines(file: Path, texts: list[str], faults: dict[str, str]) -> Iterator[Line]:
    for number, text in enumerate(texts, 1):
        # a path may hold spaces, a label cannot; behind a tab it can
        parts = text.strip().rsplit("\t" if "\t" in text else None, 1)
        if len(parts) == 2:
            yield Line(number, parts[0].strip(), parts[1].strip())
        elif parts and parts[0]:
            _fault(faults, file, number, "no label behind the path")


def _csv_lines(file: Path, rows: Iterator[list[str]], faults: dict[str, str]) -> Iterator[Line]:
    columns: list[int] | None = None
    for number, row in enumerate(rows, 1):
        if number == 1 and (columns := _columns(row)):
            continue
        # without a header: path, label and perhaps split
        places = columns or [0, 1, 2]
        if not any(row):
            continue
        path, label, split = (row[i].strip() if 0 <= i < len(row) else "" for i in places)
        if not path or (columns is None and not 2 <= len(row) <= 3):
            _fault(faults, file, number, f"expected {EXPECTED}")
            continue
        yield Line(number, path, label, split)


def _columns(header: list[str]) -> list[int] | None:
    """Return where path, label and split stand (-1: nowhere), or None for a row that is data."""
    names = [name.strip().lower() for name in header]
    kinds = (PATH_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS)
    places = [next((names.index(n) for n in kind if n in names), -1) for kind in kinds]
    # a header needs a column of paths, and names nothing that looks like a file
    return places if places[0] >= 0 and "." not in header[places[0]] else None


def _listing(
    file: Path, lines: list[Line], faults: dict[str, str], *, needs_labels: bool
) -> Listing:
    folder = str(file.parent)
    # a split of which no image has a label is one to predict; otherwise a missing label is a fault
    needs_labels = needs_labels or any(line.label for line in lines)
    rows: list[Row] = []
    seen: dict[str, str] = {}
    repeated: list[Line] = []
    for line in lines:
        relative = _within(folder, line.path)
        if relative is None:
            what = f"{shown(line.path)} leads out of the folder of the list"
        elif needs_labels and not line.label:
            what = f"no label for {shown(line.path)}"
        elif relative in seen:
            if seen[relative] == line.label:
                repeated.append(line)
                continue
            what = f"{shown(line.path)} is listed as {shown(seen[relative])} above"
        elif isinstance(found := _row(folder, relative, line.label), str):
            what = found
        else:
            seen[relative] = line.label
            rows.append(found)
            continue
        _fault(faults, file, line.number, what)
    listing = listed(folder, rows)
    if repeated:
        first = f"line {repeated[0].number}: {shown(repeated[0].path)}"
        listing.passed_over["repeated lines"] = (len(repeated), first)
    return listing


def _within(folder: str, path: str) -> str | None:
    """Return a path relative to `folder`; None for one that lies elsewhere."""
    if "\0" in path:
        return None
    if os.path.isabs(path):
        path = os.path.relpath(path, os.path.abspath(folder))
    path = os.path.normpath(path)
    return None if path == ".." or path.startswith("../") or path == "." else path


def _row(folder: str, relative: str, label: str) -> Row | str:
    path = f"{folder}/{relative}"
    try:
        status = os.stat(path)
    except OSError as error:
        return f"{shown(relative)} cannot be read ({error.strerror})"
    return Row(label or None, relative, path, status.st_size, status.st_mtime_ns)
