"""Training and test images of a data set, labelled alike; what is wrong or unusual about them."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import UsageError, shown
from .listing import UNLABELLED, Listing, absent, some
from .tree import likely_root

HELD_OUT = 8  # one in eight images of a class is for validation where a set has no test images


@dataclass(frozen=True)
class Tree:
    """The files of a data set as found: training and test images, or one tree yet to be split.

    `train` has no folder (`listing.absent`) where there are only images to evaluate on; `test` may
    be without labels.
    """

    train: Listing
    test: Listing | None = None
    notes: tuple[str, ...] = ()  # what is unusual about the folders

    @property
    def fingerprint(self) -> str:
        """The sha256, as hex, of paths, sizes and modification times of all files."""
        return _fingerprint(self.train, self.test or self.train)

    def splits(self, split_seed: int = 0) -> "Splits":
        """Match the classes of both splits, or hold out an eighth of each class."""
        # the caller's `split_seed` has no effect on a set that has test images
        if self.test is None:
            return split_by_class(self.train, HELD_OUT, split_seed, self.notes)
        return matched(self.train, self.test, self.notes)


@dataclass(frozen=True)
class Splits:
    """Training and test images of the same classes: those of the training images.

    `faults`: why the set cannot be trained on, as messages; `notes`: what a reader of the results
    should know, such as classes without test images. Faults of single files are in the listings.
    """

    train: Listing
    test: Listing
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    layout_notes: tuple[str, ...] = ()  # those of the notes that concern folders as a whole

    @property
    def parts(self) -> tuple[tuple[str, Listing], tuple[str, Listing]]:
        """The names of the splits, and their listings."""
        return ("train", self.train), ("test", self.test)

    @property
    def digest(self) -> str:
        """The sha256, as hex, of each split's relative paths and file sizes."""
        # part of run records: another way of hashing would make every run one of other images
        digest = hashlib.sha256()
        for part, listing in self.parts:
            for path, size in zip(listing.paths, listing.sizes, strict=True):
                text = f"{part}/{listing.relative(path)}\0{size}\n"
                digest.update(text.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    @property
    def fingerprint(self) -> str:
        """The sha256, as hex, of paths, sizes and modification times of all files."""
        return _fingerprint(self.train, self.test)

    def require_sound(self) -> None:
        """Raise UsageError for the first fault of the files or the classes."""
        faults = [*self.train.faults.values(), *self.test.faults.values()]
        if faults:
            more = f"\n{len(faults) - 1:,} more faults: lwbench check lists them all"
            raise UsageError(faults[0] + more * (len(faults) > 1))
        self.require_trainable()

    def require_trainable(self) -> None:
        """Raise UsageError for the first fault of the classes, whatever is wrong with files."""
        for fault in self.faults:
            raise UsageError(fault)


def matched(train: Listing, test: Listing, notes: tuple[str, ...] = ()) -> Splits:
    """Match the classes of both splits by name, so that equal labels mean equal classes.

    Test images of a class that is not trained on get labels behind those of all classes, and are a
    fault.
    """
    # numbers alone would do where both splits have the same folders; where one lacks a class, all
    # labels behind it would be shifted
    if not train.folder:
        return examined_classes(absent(test.class_names), test, notes)
    trained = set(train.class_names)
    names = [*train.class_names, *(n for n in test.class_names if n not in trained)]
    label_of = {name: label for label, name in enumerate(names)}
    labels = [
        label if label == UNLABELLED else label_of[test.class_names[label]] for label in test.labels
    ]
    # canonical order is by label, and a class of the test images alone comes last
    order = sorted(range(len(labels)), key=labels.__getitem__)
    test = replace(test.rows(order), class_names=names, labels=[labels[i] for i in order])
    return examined_classes(train, test, notes)


def split_by_class(
    listing: Listing, one_in: int, split_seed: int, notes: tuple[str, ...] = ()
) -> Splits:
    """Hold out one in `one_in` images of each class for validation.

    The draw of a class depends on `split_seed` and its name alone, so that a sample of the classes
    is split as the whole set is. A class of one image has none to hold out: it is trained on.
    """
    from .draws import held_out  # loads torch, which a fingerprint does not need

    labels = np.asarray(listing.labels, dtype=np.int64)
    out = np.zeros(len(labels), dtype=bool)
    for label, name in enumerate(listing.class_names):
        members = np.flatnonzero(labels == label)
        if len(members) >= 2:
            # the name rather than the number of the class: numbers depend on the other classes
            out[members] = held_out(len(members), one_in, split_seed, name).numpy()
    # the faults are those of one scan: the second part does not repeat them
    test = replace(listing.part(out), faults={}, passed_over={})
    return examined_classes(listing.part(~out), test, notes)


def examined_classes(train: Listing, test: Listing, notes: tuple[str, ...]) -> Splits:
    """Make splits with the faults and notes that follow from the images of each class."""
    known, there = len(train.class_names), shown(test.folder)
    found = list(notes)
    if not train.folder:
        found.append("no training images: for evaluation only")
    # a class without test images takes no part in the accuracy: allowed, but worth a note
    counts = zip(train.class_names, test.per_class(), strict=False)
    untested = [name for name, count in counts if not count]
    if test.unlabelled:
        found.append(f"the images in {there} have no labels: predictions, but no accuracy")
    elif untested and len(untested) < known:
        found.append(f"no images to test on in {_classes(untested)}")
    found += [line for listing in (train, test) if (line := _passed_over(listing))]
    return Splits(train, test, _class_faults(train, test), tuple(found), notes)


def _class_faults(train: Listing, test: Listing) -> tuple[str, ...]:
    """Say why classes cannot be trained or tested on."""
    names, here, there = train.class_names, shown(train.folder), shown(test.folder)
    faults = []
    # a class without training images cannot be learnt, and its output would never be right
    empty = [name for name, count in zip(names, train.per_class(), strict=True) if not count]
    known = len(names)
    further = zip(test.class_names[known:], test.per_class()[known:], strict=True)
    unknown = [name for name, count in further if count]
    if not train.folder:
        pass  # nothing is trained on
    # the first fault is the one that is shown: a root a level off explains all others
    elif known - len(empty) < 2 and not unknown:
        faults.append(_too_few_classes(train, empty))
    elif empty:
        faults.append(
            f"{here}: no images to train on in {_classes(empty)}{_hint(train)}\nadd some, or move "
            f"{'the folder' if len(empty) == 1 else 'the folders'} away"
        )
    if unknown:
        faults.append(
            f"{here} and {there} differ in their classes: only {there} has {_classes(unknown)}\n"
            "classes are matched by name: rename the folders, or add images to train on"
        )
    elif not test.paths:
        faults.append(f"{there}: no images to test on")
    return tuple(faults)


def _fingerprint(train: Listing, test: Listing) -> str:
    # the fingerprint of each listing names no split: their order does
    return hashlib.sha256(f"{train.fingerprint}{test.fingerprint}".encode()).hexdigest()


def _too_few_classes(listing: Listing, empty: list[str]) -> str:
    """Say that a classifier needs two classes, and which folder looks as if it had them."""
    folder = Path(listing.folder)
    filled = [name for name in listing.class_names if name not in empty]
    if not listing.class_names:
        message = f"{shown(folder)}: no class folders; expected <class>/<image> in it"
    elif not filled:
        message = f"{shown(folder)}: no images in {_classes(empty)}"
    else:
        message = f"{shown(folder)}: all images are of one class, {shown(filled[0])}"
        message += f"; none in {_classes(empty)}" if empty else ""
    if (likely := likely_root(folder)) is not None:
        return f"{message}\ndid you mean data.root={shown(likely)}?"
    return f"{message}\na classifier needs two classes, each a folder of images{_hint(listing)}"


def _hint(listing: Listing) -> str:
    return f" (passed over: {_kinds(listing)})" if listing.passed_over else ""


def _passed_over(listing: Listing) -> str:
    return (
        f"passed over in {shown(listing.folder)}: {_kinds(listing)}" if listing.passed_over else ""
    )


def _kinds(listing: Listing) -> str:
    """Format kinds of files with their numbers, most frequent first: `10 .txt (ant/notes.txt)`."""
    # by name where numbers are equal, since file systems list files in any order
    kinds = sorted(listing.passed_over.items(), key=lambda item: (-item[1][0], item[0]))
    texts = [
        f"{count:,} {_singular(kind) if count == 1 else kind} ({shown(example)})"
        for kind, (count, example) in kinds[:5]
    ]
    return ", ".join(texts) + (", ..." if len(kinds) > 5 else "")


def _singular(kind: str) -> str:
    return kind.replace("images", "image").replace("lines", "line")


def _classes(names: list[str]) -> str:
    return f"class {some(names)}" if len(names) == 1 else f"{len(names)} classes: {some(names)}"
