"""Any tree of image folders, so that users bring their own images."""

import os
from typing import Annotated

from pydantic import Field

from ..errors import UsageError, shown
from ..registry import DATASETS
from .source import Source
from .streamed import Share, streamed_source
from .tree import Listing, is_folder, require_root, scan, scan_splits, split_listing
from .verify import OnBadImage

LAYOUT = "{train,test}/<class>/<image>, {train,val}/<class>/<image> or <class>/<image>"

Name = Annotated[
    str, Field(pattern=r"^\.?[^/.\x00-\x1f][^/\x00-\x1f]*$")
]  # it becomes part of paths


@DATASETS.register
def folder(
    image_size: int,
    *,
    root: str | None = None,
    name: Name | None = None,
    cache: str | None = None,
    split_seed: int = 0,
    crop: Share = 0.875,
    on_bad_image: OnBadImage = "raise",
) -> Source:
    """A tree of images, streamed. `root`: see LAYOUT; `name`: in paths and tables, else root's.

    Without a test or val folder, 1/8 of each class, drawn by `split_seed`, is for validation.
    `cache`, `crop`, `on_bad_image`: see `streamed_source`. Raises UsageError where the tree is
    missing or faulty.
    """
    return streamed_source(
        name or os.path.basename(os.path.realpath(root or ".")),
        splits(root, split_seed, strict=on_bad_image == "raise"),
        image_size=image_size,
        crop=crop,
        cache=cache,
        on_bad_image=on_bad_image,
    )


def splits(root: str | None, split_seed: int, strict: bool) -> tuple[Listing, Listing]:
    """Training and test listing of a tree. Raises UsageError where it has neither layout."""
    if root is None:
        raise UsageError(f"data=folder needs data.root=<folder>, laid out as {LAYOUT}")
    place = require_root(root, "data=folder", LAYOUT, "give the folder of your images")
    held = [other for other in ("test", "val") if is_folder(place / other)]
    trained = is_folder(place / "train")
    if trained and held:
        return scan_splits(place, "train", held[0], strict)
    if trained or held:
        found = "train" if trained else held[0]
        raise UsageError(f"{shown(place)}: a folder {found}, and no other split; expected {LAYOUT}")
    return split_listing(scan(place, strict=strict), 8, split_seed, strict)
