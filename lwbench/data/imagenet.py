"""ImageNet (ILSVRC 2012), or a sample of it, in the usual folders: {train,val}/<wnid>/*.JPEG.

Russakovsky et al.: ImageNet large scale visual recognition challenge, IJCV 2015,
https://image-net.org. 1,281,167 training and 50,000 validation images in 1,000 classes.
"""

from pathlib import Path

from ..errors import UsageError
from ..paths import data_home
from ..registry import DATASETS
from .source import Source
from .streamed import Share, streamed_source
from .tree import Listing, first_with, require_root, scan_splits
from .verify import OnBadImage

LAYOUT = "{train,val}/<wnid>/*.JPEG (about 145 GB)"
HOW = "its licence forbids a download without an account: see https://image-net.org/download.php"


@DATASETS.register
def imagenet(
    image_size: int,
    *,
    root: str | None = None,
    cache: str | None = None,
    crop: Share = 0.875,
    on_bad_image: OnBadImage = "raise",
) -> Source:
    """ImageNet, streamed. `root`: the folder of train and val, or its parent.

    Without one, the user's data folder. `cache`, `crop`, `on_bad_image`: see `streamed_source`.
    Raises UsageError where the tree is missing or faulty.
    """
    return streamed_source(
        "imagenet",
        splits(root, strict=on_bad_image == "raise"),
        image_size=image_size,
        crop=crop,
        cache=cache,
        on_bad_image=on_bad_image,
        published_classes=1000,
    )


def splits(root: str | None, strict: bool) -> tuple[Listing, Listing]:
    """Training and validation listing, see `scan_splits`. Raises UsageError."""
    place = require_root(root or str(data_home() / "imagenet"), "imagenet", LAYOUT, HOW)
    tree = first_with(place, [Path("."), Path("imagenet")], ("train", "val"))
    if tree is None:
        raise UsageError(f"{place}: no imagenet in it; expected {LAYOUT}\n{HOW}")
    return scan_splits(tree, "train", "val", strict)
