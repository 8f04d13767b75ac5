"""scikit-learn's 1,797 handwritten digits: real data that comes with the package.

E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI machine learning repository,
1998. 8 x 8 pixels, values 0 to 16, ten classes.
"""

import numpy as np
import torch
import torch.nn.functional as F

from ..registry import DATASETS
from .draws import held_out
from .source import Source, canonical, resident_source

SIDE = 32  # the smallest input that networks of total stride 32 take


@DATASETS.register
def digits(image_size: int) -> Source:
    """The digits at 32 px, grey in three channels; a fixed fifth of each class is held out.

    `image_size` is not needed here: the device resizes. Values are scaled from 0..16 to 0..255.
    """
    from sklearn.datasets import load_digits  # a second that other data sets need not wait

    raw, targets = load_digits(return_X_y=True)
    small = torch.from_numpy(raw).reshape(-1, 1, 8, 8).float() * (255 / 16)
    large = F.interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    grey = large.round_().to(torch.uint8).permute(0, 2, 3, 1)
    images, labels = canonical(grey.expand(-1, -1, -1, 3).numpy(), targets)
    out = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        members = np.flatnonzero(labels == label)
        out[members] = held_out(len(members), 5, "digits", label).numpy()
    arrays = {
        "train_images": images[~out],
        "train_labels": labels[~out],
        "test_images": images[out],
        "test_labels": labels[out],
    }
    return resident_source("digits", [str(n) for n in range(10)], arrays, published_classes=10)
