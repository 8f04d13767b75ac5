"""Caltech-256: 29,780 photographs in 256 classes, without the 827 of the clutter folder.

Griffin, Holub, Perona: Caltech-256 object category dataset, 2007, https://data.caltech.edu/records/
nyy15-4j048. It has no official split; ldc (section 4.2) draws 1/8 of each class for validation.
"""

from pathlib import Path

from ..errors import UsageError
from ..paths import data_home
from ..registry import DATASETS
from .download import download_once
from .source import Source
from .streamed import Share, streamed_source
from .tree import Listing, first_with, require_root, scan, split_listing
from .verify import OnBadImage

TREE = "256_ObjectCategories"
CLUTTER = frozenset({"257.clutter"})
URL = "https://data.caltech.edu/records/nyy15-4j048/files/256_ObjectCategories.tar"
SIZE = "1.2 GB"


@DATASETS.register
def caltech256(
    image_size: int,
    *,
    root: str | None = None,
    cache: str | None = None,
    split_seed: int = 0,
    crop: Share = 0.875,
    on_bad_image: OnBadImage = "raise",
) -> Source:
    """Caltech-256, streamed; 1/8 of each class, drawn by `split_seed`, is for validation.

    `root`: the folder 256_ObjectCategories or one that holds it; without one, the user's data
    folder, where it is downloaded to. `cache`, `crop`, `on_bad_image`: see
    `streamed_source`. Raises UsageError where the tree is missing or faulty.
    """
    return streamed_source(
        "caltech256",
        splits(root, split_seed, strict=on_bad_image == "raise"),
        image_size=image_size,
        crop=crop,
        cache=cache,
        on_bad_image=on_bad_image,
        published_classes=256,
        published_images=29_780,
    )


def splits(root: str | None, split_seed: int, strict: bool) -> tuple[Listing, Listing]:
    """Training and validation listing, see `split_listing`. Raises UsageError."""
    layout = f"{TREE}/<class>/*.jpg ({SIZE})"
    if root is None:
        place = data_home() / "caltech256"
    else:
        hint = f"leave data.root out to download it to {data_home() / 'caltech256'}"
        place = require_root(root, "caltech256", layout, hint)
    tree = place if place.name == TREE else find(place)
    if tree is None and root is not None:
        raise UsageError(f"data.root={root}: no caltech256 in it; expected {layout}")
    if tree is None:
        download(place)
        tree = place / "caltech256" / TREE
    return split_listing(scan(tree, CLUTTER, strict), 8, split_seed, strict)


def find(place: Path) -> Path | None:
    """The tree in a folder, or in the folder that torchvision makes there."""
    holder = first_with(place, [Path("."), Path("caltech256")], (TREE,))
    return holder / TREE if holder else None


def download(place: Path) -> None:
    """Fetch and unpack the archive. Raises UsageError where that fails."""
    from torchvision.datasets import Caltech256

    download_once(
        lambda staging: Caltech256(str(staging), download=True),
        name="caltech256",
        url=URL,
        size=SIZE,
        folder=place,
        tree=f"caltech256/{TREE}",
    )
