"""The 1,000 classes of ILSVRC 2012 by their WordNet identifiers, in the order of the labels.

The order is that of the sorted identifiers, which torchvision's and timm's networks share.
"""

from functools import cache
from pathlib import Path


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return n01440764 to n15075141, 1,000 identifiers; the position is the label."""
    return tuple(Path(__file__).with_name("imagenet_wnids.txt").read_text("ascii").split())
