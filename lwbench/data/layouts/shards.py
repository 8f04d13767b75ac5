"""Sets in shards: WebDataset's tar archives (image and `.cls`), and parquet files."""

import os
from pathlib import Path

from ...errors import UsageError, shown
from ..listing import Listing, Row, listed
from ..splits import Tree
from . import archives, parquet
from .choice import TestSplit, split_in, tree_of

ENDINGS = (".tar", ".parquet")
# a file beside tar shards with a class name per line, which integers in .cls files count
CLASS_NAMES = ("classnames.txt", "classes.txt")
# where shards lie below the root: in it, in `data` as on Hugging Face's hub, or by split
PLACES = ("", "data", "default", "train", "training", "test", "val", "valid", "validation")


def below(root: Path, ending: str) -> list[Path]:
    """Return the shards of a folder by name: in it, or in the folders that shards come in."""
    found: list[Path] = []
    for outer in ("", "data", "default"):
        for inner in PLACES if outer == "" else PLACES[3:]:
            place = root / outer / inner
            try:
                names = sorted(os.listdir(place))
            except OSError:
                continue
            found += [
                place / name
                for name in names
                if name.lower().endswith(ending) and not name.startswith(".")
            ]
    return found


def find_shards(root: Path, files: list[Path], test_split: TestSplit | None) -> Tree:
    """List the images of shards, each of the split that its path names below `root`.

    Shards that name no split hold one set, which is split as class folders are. The order is by
    class, then by the name of the image, whatever its place among the shards.
    """
    by_split: dict[str, list[Path]] = {}
    for file in files:
        split = split_in(os.path.relpath(file, root)) or ""
        by_split.setdefault(split, []).append(file)
    read = parquet.listing if files[0].name.lower().endswith(".parquet") else _webdataset
    parts = {split: read(root, files) for split, files in by_split.items()}
    return tree_of(root, parts, test_split, ())


def _webdataset(root: Path, files: list[Path]) -> Listing:
    names = class_names(root)
    faults: dict[str, str] = {}
    rows: list[Row] = []
    others: list[list[str]] = []
    for index in archives.indices(files):
        faults |= {f"{index.path}#{i}": text for i, text in enumerate(index.faults)}
        others += index.passed_over
        rows += _samples(index, names, faults)
    if not any(row.label for row in rows):
        # none of them has a label: images to predict, unless they are trained on
        rows = [row._replace(label=None) for row in rows]
    listing = listed(root, rows, names, faults)
    for kind, name in others:
        listing.note(kind, f"{root}/{name}")
    return listing


def _samples(index: archives.Index, names: list[str] | None, faults: dict[str, str]) -> list[Row]:
    """Return the images of one archive with the class in the `.cls` file of the same name."""
    classes = {_key(name): text for name, text in index.classes.items()}
    keys = [_key(name) for name in index.names]
    rows: list[Row] = []
    seen: set[str] = set()
    for key, row in zip(keys, index.rows(classes.get(key) for key in keys), strict=True):
        if key in seen:
            faults[f"{row.path}#twice"] = (
                f"{shown(row.path)}: a second image of sample {shown(key)}"
            )
            continue
        seen.add(key)
        label = row.label
        if label is None and classes:
            faults[row.path] = f"{shown(row.path)}: no {archives.CLASS} file of its name"
            continue
        if label is not None and names is not None:
            if (number := _number(label, len(names))) is None:
                faults[row.path] = (
                    f"{shown(row.path)}: class {shown(label)} is none of 0 to {len(names) - 1}"
                )
                continue
            label = names[number]
        rows.append(row._replace(label=label))
    for key in classes.keys() - seen:
        faults[f"{index.path}/{key}"] = (
            f"{shown(index.path)}: {shown(key)}{archives.CLASS} has no image of its name"
        )
    return rows


def _key(name: str) -> str:
    """The name of a sample: a member's name up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"


def _number(text: str, count: int) -> int | None:
    try:
        number = int(text)
    except ValueError:
        return None
    return number if 0 <= number < count else None


def class_names(root: Path) -> list[str] | None:
    """Read the names that integers stand for, a line each of a file in `root`; None without."""
    for name in CLASS_NAMES:
        try:
            text = (root / name).read_text("utf-8", "surrogateescape")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UsageError(f"{shown(root / name)}: cannot be read ({error.strerror})") from None
        names = [line.strip() for line in text.splitlines() if line.strip()]
        if len(set(names)) < len(names):
            raise UsageError(f"{shown(root / name)}: names a class twice")
        return names
    return None
