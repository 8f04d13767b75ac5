"""Figures of an evaluation beside loss and accuracy: calibration, classes, confusions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BINS = 15  # of equal width, as in Guo et al.


class Confusion(NamedTuple):
    """How many images of the class `label` were taken for another one, and out of how many."""

    label: int
    predicted: int
    wrong: int
    images: int


def calibration_error(probability: np.ndarray, correct: np.ndarray, bins: int = BINS) -> float:
    """Return the expected calibration error in percent points.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3: images are put into
    `bins` bins of equal width by the probability of the predicted class, (left, right]; the error
    is the mean over images of |accuracy - mean probability| of their bin. `probability`: (N,),
    `correct`: (N,) bool.
    """
    place = np.clip(np.ceil(probability * bins).astype(np.int64) - 1, 0, bins - 1)
    difference = np.bincount(place, correct, bins) - np.bincount(place, probability, bins)
    return float(100 * np.abs(difference).sum() / len(probability))


def class_accuracies(labels: np.ndarray, predictions: np.ndarray) -> dict[int, tuple[int, int]]:
    """Return correct images and all images of each class that has any."""
    images = np.bincount(labels)
    correct = np.bincount(labels[labels == predictions], minlength=len(images))
    present = np.flatnonzero(images).tolist()
    return {label: (int(correct[label]), int(images[label])) for label in present}


def confusions(labels: np.ndarray, predictions: np.ndarray, most: int) -> Sequence[Confusion]:
    """Return the `most` frequent pairs of a class and another one that it was taken for."""
    wrong = labels != predictions
    pairs, counts = np.unique(
        np.stack([labels[wrong], predictions[wrong]]), axis=1, return_counts=True
    )
    images = np.bincount(labels)
    order = np.argsort(-counts, kind="stable")[:most]
    return [
        Confusion(int(pairs[0, i]), int(pairs[1, i]), int(counts[i]), int(images[pairs[0, i]]))
        for i in order
    ]
