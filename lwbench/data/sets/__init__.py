"""Data sets by name. Importing a module registers its data sets; none of them loads torch.

What has to answer quickly, the files of a set and their fingerprint, needs no torch; `load` does.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ..splits import Splits, Tree

if TYPE_CHECKING:
    from ..source import Source

# what users may set, as builders annotate it: the registry checks values against these types
Share = Annotated[float, Field(gt=0, le=1)]
OnBadImage = Literal["raise", "skip"]


class Dataset(ABC):
    """What a builder of the registry returns: a configured data set, of which nothing is read yet.

    `load` reads it for training and evaluation; `splits` gives `lwbench check` the files;
    `fingerprint` tells quickly whether it is the set that a finished run was made with.
    """

    name: str

    @abstractmethod
    def splits(self) -> Splits | None:
        """Find the training and test files; None for a set that is not stored as image files.

        Raises UsageError where the set is missing.
        """

    @abstractmethod
    def fingerprint(self) -> str | None:
        """Return a hash of paths, sizes and modification times of the files, reading none of them.

        Equal fingerprints mean equal images; different ones may. None where the set is yet to be
        downloaded. Raises UsageError where the folder that the user named is missing.
        """

    @abstractmethod
    def load(self, image_size: int) -> "Source":
        """Read the set for networks whose input has `image_size` px.

        Raises UsageError where the set is missing or faulty.
        """


@dataclass(frozen=True)
class ImageFiles(Dataset):
    """A data set of image files, decoded while training.

    `find` scans the folders; None where they have to be downloaded, which `download` does. A tree
    without test images is split by `split_seed`. Images are stored as squares of `image_size /
    crop` px, of which training takes a random and evaluation the central window of `image_size`:
    224 of 256 px with 0.875. `cache`: a folder for the decoded squares, or "auto" for the user's
    cache, see `pack`; without one, every epoch decodes the files. `on_bad_image`: an
    unreadable file ends the run where it is read ("raise"), or all such files are found beforehand
    and left out ("skip").
    """

    name: str
    find: Callable[[], Tree | None]
    crop: float
    cache: str | None = None
    on_bad_image: OnBadImage = "raise"
    split_seed: int = 0
    download: Callable[[], None] | None = None

    def splits(self) -> Splits:
        """Find the training and test files, see `Dataset.splits`."""
        tree = self.find()
        # only here: comparing a finished run with its images must not start a download
        if tree is None and self.download is not None:
            self.download()
            tree = self.find()
        # `find` raises for everything else that can be missing
        assert tree is not None, "a set that was downloaded is found"
        return tree.splits(self.split_seed)

    def fingerprint(self) -> str | None:
        """Hash paths, sizes and times of all files, see `Dataset.fingerprint`."""
        tree = self.find()
        return tree.fingerprint if tree else None

    def load(self, image_size: int) -> "Source":
        """Make a source that decodes the files, see `Dataset.load`."""
        from ..streamed import streamed_source  # loads torch

        return streamed_source(
            self.name,
            self.splits(),
            image_size=image_size,
            crop=self.crop,
            cache=self.cache,
            skip_bad_images=self.on_bad_image == "skip",
        )
