"""ImageNet and Tiny-ImageNet, in the layouts in which they are distributed."""

from functools import partial
from pathlib import Path

from ...errors import UsageError, shown
from ...paths import data_home
from ...registry import DATASETS
from ..layouts.annotated import (
    IMAGENET_LAYOUT,
    TINY_LAYOUT,
    find_imagenet,
    find_tiny_imagenet,
    is_tiny_imagenet,
)
from ..layouts.choice import TestSplit
from ..layouts.folders import first_with, require_root
from ..splits import Tree
from ..tree import scan
from . import ImageFiles, OnBadImage, Share

IMAGENET_HOW = (
    "its licence forbids a download without an account: see https://image-net.org/download.php"
)
TINY_HOW = "unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip (248 MB), and give its folder"
TINY_FOLDER = "tiny-imagenet-200"


@DATASETS.register
def imagenet(
    *,
    root: str | None = None,
    cache: str | None = None,
    test_split: TestSplit | None = None,
    crop: Share = 0.875,
    on_bad_image: OnBadImage = "raise",
) -> ImageFiles:
    """ImageNet (ILSVRC 2012) or a sample of it, streamed.

    1,281,167 training and 50,000 validation images in 1,000 classes (Russakovsky et al.: ImageNet
    large scale visual recognition challenge, IJCV 2015, https://image-net.org). `root`: the folder
    of train and val, or its parent, or Kaggle's archive; without one, `imagenet` in the user's data
    folder. `test_split`: val, whose labels are public, or test to predict. `cache`, `crop`,
    `on_bad_image`: see `ImageFiles`.
    """
    return ImageFiles(
        "imagenet",
        partial(_imagenet_tree, root, test_split),
        crop=crop,
        cache=cache,
        on_bad_image=on_bad_image,
    )


def _imagenet_tree(root: str | None, test_split: TestSplit | None) -> Tree:
    # an explicit folder and the default one are refused in the same words where nothing is there
    default = str(data_home() / "imagenet")
    place = require_root(root or default, "imagenet", IMAGENET_LAYOUT, IMAGENET_HOW)
    tree = find_imagenet(place, test_split)
    if tree is None:
        raise UsageError(
            f"{shown(place)}: no imagenet in it; expected {IMAGENET_LAYOUT}\n{IMAGENET_HOW}"
        )
    return tree


@DATASETS.register
def tiny_imagenet(
    *,
    root: str | None = None,
    cache: str | None = None,
    test_split: TestSplit | None = None,
    crop: Share = 1.0,
    on_bad_image: OnBadImage = "raise",
) -> ImageFiles:
    """Tiny-ImageNet-200: 100,000 training and 10,000 validation images of 64 px in 200 classes.

    Le and Yang: Tiny ImageNet visual recognition challenge, Stanford CS 231N, 2015. `root`: the
    unpacked archive, or its parent; without one, the user's data folder. Image folders
    {train,val}/<wnid>/* are read as well. `test_split`: val, or test, which has no labels.
    `cache`, `crop`, `on_bad_image`: see `ImageFiles`.
    """
    return ImageFiles(
        "tiny_imagenet",
        partial(_tiny_tree, root, test_split),
        crop=crop,
        cache=cache,
        on_bad_image=on_bad_image,
    )


def _tiny_tree(root: str | None, test_split: TestSplit | None) -> Tree:
    default = str(data_home() / "tiny_imagenet")
    place = require_root(root or default, "tiny_imagenet", TINY_LAYOUT, TINY_HOW)
    for folder in (place, place / TINY_FOLDER):
        if is_tiny_imagenet(folder):
            return find_tiny_imagenet(folder, test_split)
    folders = first_with(place, [Path("."), Path(TINY_FOLDER)], ("train", "val"))
    if folders is None or test_split == "test":
        raise UsageError(
            f"{shown(place)}: no tiny_imagenet in it; expected {TINY_LAYOUT}\n{TINY_HOW}"
        )
    return Tree(scan(folders / "train"), scan(folders / "val"))
