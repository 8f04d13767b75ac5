"""Any tree of image folders, so that users bring their own images."""

from pathlib import Path

from ..errors import UsageError
from ..registry import DATASETS
from .source import Source
from .streamed import Share, streamed_source
from .tree import Listing, require_root, scan, scan_splits, split_listing

LAYOUT = "{train,test}/<class>/<image>, {train,val}/<class>/<image> or <class>/<image>"


@DATASETS.register
def folder(
    image_size: int,
    *,
    root: str | None = None,
    name: str | None = None,
    cache: str | None = None,
    split_seed: int = 0,
    crop: Share = 0.875,
) -> Source:
    """A tree of images, streamed. `root`: see LAYOUT; `name`: in paths and tables, else root's.

    Without a test or val folder, 1/8 of each class, drawn by `split_seed`, is for validation.
    `cache`, `crop`: see `streamed_source`. Raises UsageError where the tree is missing or faulty.
    """
    if root is None:
        raise UsageError(f"data=folder needs data.root=<folder>, laid out as {LAYOUT}")
    place = require_root(root, "data=folder", LAYOUT, "give the folder of your images")
    return streamed_source(
        name or place.resolve().name,
        splits(place, split_seed),
        image_size=image_size,
        crop=crop,
        cache=cache,
    )


def splits(place: Path, split_seed: int) -> tuple[Listing, Listing]:
    """Training and test listing of a tree. Raises UsageError where it has neither layout."""
    held = [other for other in ("test", "val") if (place / other).is_dir()]
    trained = (place / "train").is_dir()
    if trained and held:
        return scan_splits(place, "train", held[0])
    if trained or held:
        found = "train" if trained else held[0]
        raise UsageError(f"{place}: a folder {found}, and no other split; expected {LAYOUT}")
    return split_listing(scan(place), 8, split_seed)
