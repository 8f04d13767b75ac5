"""How a user's data set is laid out: recognised by what lies in `data.root`, and listed."""

from pathlib import Path

from ...errors import UsageError, shown
from ..splits import Tree
from ..tree import folders_in, holds_images
from . import folders, lists, shards
from .annotated import find_tiny_imagenet, is_tiny_imagenet
from .choice import TestSplit
from .folders import LAYOUT

LISTS = (".csv", ".tsv", ".txt")
ARRAYS = (".npz", ".npy")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".7z", ".rar")
LAYOUTS = (
    f"{LAYOUT}; a folder of .tar or .parquet shards; or a file: a list (.csv, .tsv, .txt), arrays "
    "(.npz, .npy), .tar or .parquet"
)
MOST_LOOKED_AT = 20  # class folders, to tell class folders from folders of shards


def find(root: Path, test_split: TestSplit | None = None) -> Tree:
    """List the images of a user's data set in whichever layout it has.

    `test_split`: the split to test on instead of the first that has labels. Raises UsageError where
    nothing that can be read lies there.
    """
    if root.is_file():
        return _of_file(root, test_split)
    if is_tiny_imagenet(root):
        return find_tiny_imagenet(root, test_split)
    found = {ending: shards.below(root, ending) for ending in shards.ENDINGS}
    present = [ending for ending, files in found.items() if files]
    if not present or _has_class_folders(root):
        return folders.find_tree(root, test_split)
    if len(present) > 1:
        raise UsageError(
            f"{shown(root)}: both .tar and .parquet shards\ngive the folder of one kind as "
            "data.root"
        )
    return shards.find_shards(root, found[present[0]], test_split)


def _of_file(root: Path, test_split: TestSplit | None) -> Tree:
    name = root.name.lower()
    if name.endswith(LISTS):
        return lists.read_list(root, test_split)
    if name.endswith(shards.ENDINGS):
        return shards.find_shards(root.parent, [root], test_split)
    if name.endswith(COMPRESSED):
        raise UsageError(
            f"{shown(root)}: images in a compressed archive cannot be read at random\n"
            "unpack it into a folder, or into an uncompressed .tar"
        )
    raise UsageError(f"{shown(root)}: not a layout that is known; expected {LAYOUTS}")


def _has_class_folders(root: Path) -> bool:
    """Whether images lie in folders of the root, or in folders of its splits."""
    for place in (root, *(root / name for name in folders.SPLIT_FOLDERS)):
        if any(holds_images(place / name) for name in folders_in(place)[:MOST_LOOKED_AT]):
            return True
    return False
