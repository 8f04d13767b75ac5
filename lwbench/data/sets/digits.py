"""scikit-learn's 1,797 handwritten digits: real data that is installed with the package.

E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI machine learning repository,
1998. 8 x 8 pixels, values 0 to 16, ten classes.
"""

import gzip
import importlib.util
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...registry import DATASETS
from . import Dataset

if TYPE_CHECKING:
    from ..source import Source

SIDE = 32  # the smallest input of networks of total stride 32
HELD_OUT = 5  # one in five images of a class is for testing


@DATASETS.register
def digits() -> Dataset:
    """The digits at 32 px, resident; a fixed fifth of each class is held out."""
    return Digits()


class Digits(Dataset):
    """The digits, enlarged to 32 px, grey in three channels. They are not stored as image files."""

    name = "digits"

    def splits(self) -> None:
        """Return None: there are no image files."""

    def fingerprint(self) -> str:
        """Return the version of scikit-learn, which the images come with."""
        return f"scikit-learn {version('scikit-learn')}"

    def load(self, image_size: int) -> "Source":
        """Read the digits, see `Dataset.load`; batches are resized to `image_size` on the device.

        Values are scaled from 0..16 to 0..255.
        """
        import torch
        import torch.nn.functional as F

        from ..draws import held_out
        from ..source import canonical, resident_source

        raw, targets = _read()
        # networks of total stride 32 need 32 px; bilinear, as photographs are resized
        small = torch.from_numpy(raw).reshape(-1, 1, 8, 8).float() * (255 / 16)
        large = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        grey = large.round_().to(torch.uint8).permute(0, 2, 3, 1)
        images, labels = canonical(grey.expand(-1, -1, -1, 3).numpy(), targets)
        out = np.zeros(len(labels), dtype=bool)
        for label in range(10):
            members = np.flatnonzero(labels == label)
            # the name stands for a seed: the split is the same for everyone
            out[members] = held_out(len(members), HELD_OUT, "digits", label).numpy()
        # still in canonical order, by class and then by content
        arrays = {
            "train_images": images[~out],
            "train_labels": labels[~out],
            "test_images": images[out],
            "test_labels": labels[out],
        }
        class_names = [str(n) for n in range(10)]
        return resident_source("digits", class_names, arrays, fingerprint=self.fingerprint())


def _read() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (1797, 64) float64 and labels (1797,) int64, as sklearn.datasets.load_digits has them.

    The file is read here, since importing scikit-learn takes longer than a training epoch.
    """
    package = importlib.util.find_spec("sklearn")
    assert package is not None and package.submodule_search_locations, "a dependency of lwbench"
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",")
    return table[:, :-1], table[:, -1].astype(np.int64)
