"""Which split of a data set is tested on, and what is said about those that are not used."""

import re
from collections.abc import Collection, Mapping
from typing import Literal

from ...errors import UsageError, shown
from ..listing import Listing, absent
from ..splits import Tree

TestSplit = Literal["test", "val"]
# what tools call the splits, and the three names that are used here
SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
}


def split_in(path: str) -> str | None:
    """Return the split that a path names: train of `data/train-00000-of-00002.parquet`."""
    for part in reversed(path.split("/")):
        for word in re.split(r"[-_. ]", part.lower()):
            if word in SPLITS:
                return SPLITS[word]
    return None


def chosen_split(
    place: object, names: Collection[str], labelled: Collection[str], wanted: TestSplit | None
) -> str | None:
    """Return the split to test on: the one asked for, else test or val, one with labels first.

    None where there is neither. Raises UsageError where the one asked for is not there.
    """
    if wanted is not None:
        if wanted not in names:
            raise UsageError(
                f"data.test_split={wanted}: {shown(place)} has no such split; there is "
                f"{', '.join(sorted(names)) or 'none'}"
            )
        return wanted
    order = [name for name in ("test", "val") if name in names]
    return next((name for name in order if name in labelled), order[0] if order else None)


def tree_of(
    place: object, parts: Mapping[str, Listing], wanted: TestSplit | None, notes: tuple[str, ...]
) -> Tree:
    """Make a tree of listings by split: `train`, `val`, `test`, or "" for images of no split."""
    if not parts:
        raise UsageError(f"{shown(place)}: no images")
    names = [name for name in parts if name not in ("", "train")]
    labelled = [name for name in names if not parts[name].unlabelled]
    test = chosen_split(place, names, labelled, wanted)
    if "" in parts and len(parts) == 1:
        if parts[""].unlabelled:
            raise UsageError(f"{shown(place)}: the images have no labels")
        return Tree(parts[""], notes=notes)
    if test is None:
        # training images alone: an eighth of each class is held out, as of class folders
        return Tree(parts["train"], notes=notes)
    train = parts.get("train") or absent(parts[test].class_names)
    if train.unlabelled:
        raise UsageError(f"{shown(place)}: the training images have no labels")
    others = [name for name in names if name != test]
    if others:
        what = "validation" if others == ["val"] else "test"
        notes = (*notes, f"tested on after every epoch: {test}; not used: the {what} images")
    if "" in parts:
        notes = (*notes, f"not used, since of no split: {len(parts[''].paths):,} images")
    return Tree(train, parts[test], notes)
