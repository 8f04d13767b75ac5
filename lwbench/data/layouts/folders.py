"""Which folders of a user's tree hold training and test images."""

import os
from pathlib import Path

from ...errors import UsageError, shown
from ..listing import absent, listed, some
from ..splits import Tree
from ..tree import folders_in, holds_images, is_folder, scan
from .annotated import flat
from .choice import SPLITS, TestSplit

# the first of these that exists is tested on
TEST_FOLDERS = ("test", "val", "valid", "validation")
SPLIT_FOLDERS = ("train", *TEST_FOLDERS)
# names that other tools use for splits; a message then lists the names that are read here
SPLIT_NAMES = {*SPLIT_FOLDERS, "training", "testing", "tests", "trainset", "testset", "dev"}
LAYOUT = "{train,test}/<class>/<image>, {train,val}/<class>/<image> or <class>/<image>"


def find_tree(root: Path, test_split: TestSplit | None = None) -> Tree:
    """Find the images of a user's folder, see LAYOUT; `test_split`: the folder to test on.

    Without a folder to test on, all images are training images, to be split. A folder named like a
    split is a class where images lie directly in it and other class folders beside it. Raises
    UsageError where the folders contradict each other.
    """
    names = folders_in(root)
    others = [name for name in names if name not in SPLIT_FOLDERS]
    special = [name for name in SPLIT_FOLDERS if name in names]
    # class folders hold images, splits hold class folders: this tells a class "train" of vehicles
    # from a folder of training images
    flat = [n for n in special if holds_images(root / n) and not folders_in(root / n)]
    if flat and flat == special and not others:
        raise UsageError(
            f"{shown(root)}: images directly in {some(flat)}, without class folders; expected "
            f"{LAYOUT}"
        )
    if test_split is not None:
        return _with_test_split(root, names, test_split)
    tests = [name for name in TEST_FOLDERS if name in names and name not in flat]
    # images beside folders in train/: a class with subfolders, if other classes lie beside it; with
    # a folder to test on, rather a stray image
    if others and not tests and holds_images(root / "train") and "train" not in flat:
        flat.append("train")
    if "train" in names and "train" not in flat:
        if not tests:
            raise UsageError(
                f"{shown(root)}: a folder train, and no other split; expected {LAYOUT}\n"
                f"data.root={shown(root / 'train')} would hold out an eighth of each class"
            )
        unused = [*others, *(name for name in TEST_FOLDERS if name in flat)]
        return Tree(scan(root / "train"), scan(root / tests[0]), _usage(tests, unused))
    if len(tests) == 1 and not others:  # images to evaluate on
        return Tree(absent([]), scan(root / tests[0]))
    if tests:
        raise UsageError(
            f"{shown(root)}: a folder {tests[0]} with class folders, and no folder train with "
            f"some; expected {LAYOUT}"
        )
    _check_classes(root, names)
    return Tree(scan(root), notes=_class_notes(root, names, flat))


def _with_test_split(root: Path, names: list[str], test_split: TestSplit) -> Tree:
    """Test on the folder that the user asks for, whose images need no labels."""
    synonyms = [name for name in TEST_FOLDERS if SPLITS[name] == test_split and name in names]
    if "train" not in names or not synonyms:
        raise UsageError(
            f"data.test_split={test_split}: {shown(root)} needs folders train and {test_split}"
        )
    folder = root / synonyms[0]
    if holds_images(folder) or not any(holds_images(folder / n) for n in folders_in(folder)):
        return Tree(scan(root / "train"), listed(folder, flat(folder)))
    return Tree(scan(root / "train"), scan(folder))


def first_with(root: Path, candidates: list[Path], folders: tuple[str, ...]) -> Path | None:
    """Return the first of `candidates` (relative to `root`) that holds all the `folders`."""
    # an archive unpacks into a folder named like it: users give that folder or its parent
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


def _usage(tests: list[str], unused: list[str]) -> tuple[str, ...]:
    """Say what is done with several folders of test images, and with folders of no split."""
    notes = []
    if len(tests) > 1:
        notes.append(
            f"train/ is trained on, {tests[0]}/ is tested on after every epoch and chooses the "
            f"best weights, {tests[1]}/ is not used"
        )
    if unused:
        notes.append(f"not used, since they are neither train nor test folders: {some(unused)}")
    return tuple(notes)


def _check_classes(root: Path, names: list[str]) -> None:
    """Raise UsageError where what would be read as classes rather is something else."""
    # nested folders belong to their class, so a tree of Train/ and Test/ would be read as these two
    # classes, and learnt without a hint of the mistake
    alike = [n for n in names if n.casefold() in SPLIT_NAMES and not holds_images(root / n)]
    if alike:
        raise UsageError(
            f"{shown(root)}: {some(alike)} {'looks' if len(alike) == 1 else 'look'} like training "
            f"or test images\nname the folders as in {LAYOUT}"
        )
    if len(names) > 1 and all("train" in folders_in(root / name) for name in names):
        raise UsageError(
            f"{shown(root)}: each of {some(names)} holds a folder train\n"
            f"give the one that is your data set as data.root; expected {LAYOUT}"
        )


def _class_notes(root: Path, names: list[str], flat: list[str]) -> tuple[str, ...]:
    """Say what is unusual about class folders."""
    notes = [
        f"{name} is a class: images lie directly in it, and other classes beside it"
        for name in flat
    ]
    # legitimate (one folder per site or camera), and what a root one level too high looks like
    if len(names) > 1 and not any(holds_images(root / name) for name in names):
        notes.append(
            f"all images lie in subfolders of the class folders {some(names)}: is data.root a "
            "level too high?"
        )
    return tuple(notes)
