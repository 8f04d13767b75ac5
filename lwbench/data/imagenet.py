"""ImageNet (ILSVRC 2012), or a sample of it, in the usual folders: {train,val}/<wnid>/*.JPEG.

Russakovsky et al.: ImageNet large scale visual recognition challenge, IJCV 2015,
https://image-net.org. 1,281,167 training and 50,000 validation images in 1,000 classes.
"""

from pathlib import Path

from ..errors import UsageError
from ..folders import data_home
from ..registry import DATASETS
from .source import Source
from .streamed import Share, streamed_source
from .tree import first_with, require_root, scan_splits

LAYOUT = "{train,val}/<wnid>/*.JPEG (about 145 GB)"
HOW = "its licence forbids a download without an account: see https://image-net.org/download.php"


@DATASETS.register
def imagenet(
    image_size: int,
    *,
    root: str | None = None,
    cache: str | None = None,
    crop: Share = 0.875,
) -> Source:
    """ImageNet, streamed. `root`: the folder of train and val, or its parent.

    Without one, the user's data folder. `cache`, `crop`: see `streamed_source`. Raises UsageError
    where the tree is missing or faulty.
    """
    place = require_root(root or str(data_home() / "imagenet"), "imagenet", LAYOUT, HOW)
    tree = first_with(place, [Path("."), Path("imagenet")], ("train", "val"))
    if tree is None:
        raise UsageError(f"{place}: no imagenet in it; expected {LAYOUT}\n{HOW}")
    return streamed_source(
        "imagenet",
        scan_splits(tree, "train", "val"),
        image_size=image_size,
        crop=crop,
        cache=cache,
        published_classes=1000,
    )
