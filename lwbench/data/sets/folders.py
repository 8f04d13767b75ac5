"""Data sets of image folders: a user's own, ImageNet and Caltech-256."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ...errors import UsageError, shown
from ...paths import data_home
from ...registry import DATASETS
from ..layout import LAYOUT, find_tree, first_with, require_root
from ..splits import Tree
from ..tree import scan
from . import ImageFiles, OnBadImage, Share
from .download import download_once

# a name is part of paths: no separators, no control characters, neither "." nor ".."
Name = Annotated[str, Field(pattern=r"^\.?[^/.\x00-\x1f][^/\x00-\x1f]*$")]


@DATASETS.register
def folder(
    *,
    root: str | None = None,
    name: Name | None = None,
    cache: str | None = None,
    split_seed: int = 0,
    crop: Share = 0.875,
    on_bad_image: OnBadImage = "raise",
) -> ImageFiles:
    """Any folder of images, streamed. `root`: see LAYOUT; `name`: in paths and tables, else root's.

    Without a folder test, val, valid or validation, 1/8 of each class, drawn by `split_seed`, is
    for validation. `cache`, `crop`, `on_bad_image`: see `ImageFiles`.
    """
    return ImageFiles(
        # the real path, so that data.root=. has the name of the folder
        name or os.path.basename(os.path.realpath(root or ".")),
        partial(_folder_tree, root),
        split_seed=split_seed,
        crop=crop,
        cache=cache,
        on_bad_image=on_bad_image,
    )


def _folder_tree(root: str | None) -> Tree:
    if root is None:
        raise UsageError(f"data=folder needs data.root=<folder>, laid out as {LAYOUT}")
    place = require_root(root, "data=folder", LAYOUT, "give the folder of your images")
    return find_tree(place)


# --- ImageNet -----------------------------------------------------------------------------------

IMAGENET = "{train,val}/<wnid>/*.JPEG (about 145 GB)"
IMAGENET_HOW = (
    "its licence forbids a download without an account: see https://image-net.org/download.php"
)


@DATASETS.register
def imagenet(
    *,
    root: str | None = None,
    cache: str | None = None,
    crop: Share = 0.875,
    on_bad_image: OnBadImage = "raise",
) -> ImageFiles:
    """ImageNet (ILSVRC 2012) or a sample of it, streamed.

    1,281,167 training and 50,000 validation images in 1,000 classes (Russakovsky et al.: ImageNet
    large scale visual recognition challenge, IJCV 2015, https://image-net.org). `root`: the folder
    of train and val, or its parent; without one, `imagenet` in the user's data folder. `cache`,
    `crop`, `on_bad_image`: see `ImageFiles`.
    """
    return ImageFiles(
        "imagenet",
        partial(_imagenet_tree, root),
        crop=crop,
        cache=cache,
        on_bad_image=on_bad_image,
    )


def _imagenet_tree(root: str | None) -> Tree:
    # an explicit folder and the default one are refused in the same words where nothing is there
    default = str(data_home() / "imagenet")
    place = require_root(root or default, "imagenet", IMAGENET, IMAGENET_HOW)
    # ImageNet's test images have no public labels: its validation images are tested on
    tree = first_with(place, [Path("."), Path("imagenet")], ("train", "val"))
    if tree is None:
        raise UsageError(f"{shown(place)}: no imagenet in it; expected {IMAGENET}\n{IMAGENET_HOW}")
    return Tree(scan(tree / "train"), scan(tree / "val"))


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
