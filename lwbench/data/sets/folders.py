"""Images of the user's own, in whichever layout they have, and Caltech-256."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ...errors import UsageError, shown
from ...paths import data_home, set_name
from ...registry import DATASETS
from ..layouts import ARRAYS, LAYOUTS, find
from ..layouts.choice import TestSplit
from ..layouts.folders import first_with, require_root
from ..splits import Tree
from ..tree import scan
from . import Dataset, ImageFiles, OnBadImage, Share
from .arrays import ArrayFile
from .download import download_once

# a name is part of paths: no separators, no control characters, neither "." nor ".."
Name = Annotated[str, Field(pattern=r"^\.?[^/.\x00-\x1f][^/\x00-\x1f]*$")]


@DATASETS.register
def folder(
    *,
    root: str | None = None,
    name: Name | None = None,
    cache: str | None = None,
    test_split: TestSplit | None = None,
    split_seed: int = 0,
    crop: Share = 0.875,
    on_bad_image: OnBadImage = "raise",
) -> Dataset:
    """Any images of the user's, in any layout of LAYOUTS; arrays are resident, all others streamed.

    `root`: a folder, or the file of a list, arrays or a shard; `name`: in paths and tables, else
    root's. Without test or validation images, 1/8 of each class, drawn by `split_seed`, is for
    validation. `test_split`: the split to test on instead of the first with labels. `cache`,
    `crop`, `on_bad_image`: see `ImageFiles`.
    """
    name = name or set_name(root or ".")
    if root is not None and root.lower().endswith(ARRAYS):
        return ArrayFile(name, Path(os.path.expanduser(root)), test_split, split_seed)
    return ImageFiles(
        name,
        partial(_tree, root, test_split),
        split_seed=split_seed,
        crop=crop,
        cache=cache,
        on_bad_image=on_bad_image,
    )


def _tree(root: str | None, test_split: TestSplit | None) -> Tree:
    if root is None:
        raise UsageError(f"data=folder needs data.root=<folder or file>, laid out as {LAYOUTS}")
    file = Path(os.path.expanduser(root))
    if os.path.isfile(file):  # Path.is_file raises where a folder above may not be read
        return find(file, test_split)
    place = require_root(root, "data=folder", LAYOUTS, "give the folder of your images")
    return find(place, test_split)


# --- Caltech-256 --------------------------------------------------------------------------------

CALTECH = "256_ObjectCategories"
CALTECH_URL = "https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar"
CALTECH_SIZE = "1.2 GB"
CLUTTER = frozenset({"257.clutter"})  # 827 photographs of no class


@DATASETS.register
def caltech256(
    *,
    root: str | None = None,
    cache: str | None = None,
    split_seed: int = 0,
    crop: Share = 0.875,
    on_bad_image: OnBadImage = "raise",
) -> ImageFiles:
    """Caltech-256, streamed: 29,780 photographs in 256 classes, without the clutter folder.

    Griffin, Holub, Perona: Caltech-256 object category dataset, 2007,
    https://data.caltech.edu/records/nyy15-4j048. It has no official split; ldc (section 4.2) draws
    1/8 of each class for validation, here by `split_seed`. `root`: the folder 256_ObjectCategories
    or one that holds it; without one, the user's data folder, where it is downloaded to. `cache`,
    `crop`, `on_bad_image`: see `ImageFiles`.
    """
    return ImageFiles(
        "caltech256",
        partial(_caltech_tree, root),
        split_seed=split_seed,
        download=_download_caltech,
        crop=crop,
        cache=cache,
        on_bad_image=on_bad_image,
    )


def _caltech_tree(root: str | None) -> Tree | None:
    layout = f"{CALTECH}/<class>/*.jpg ({CALTECH_SIZE})"
    if root is None:
        place = data_home() / "caltech256"
    else:
        hint = f"leave data.root out to download it to {data_home() / 'caltech256'}"
        place = require_root(root, "caltech256", layout, hint)
    # the folder of the classes itself, or one that holds it
    tree = place if place.name == CALTECH else _find_caltech(place)
    if tree is None and root is not None:
        raise UsageError(f"data.root={shown(root)}: no caltech256 in it; expected {layout}")
    return Tree(scan(tree, CLUTTER)) if tree else None


def _find_caltech(place: Path) -> Path | None:
    # torchvision unpacks the archive into an additional folder, caltech256
    holder = first_with(place, [Path("."), Path("caltech256")], (CALTECH,))
    return holder / CALTECH if holder else None


def _download_caltech() -> None:
    from torchvision.datasets import Caltech256

    download_once(
        lambda staging: Caltech256(str(staging), download=True),
        name="caltech256",
        url=CALTECH_URL,
        size=CALTECH_SIZE,
        folder=data_home() / "caltech256",
        tree=f"caltech256/{CALTECH}",
    )
