"""Show what an evaluation found (accuracies, calibration, classes), and write predictions."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..logs import console
from ..runs.files import explained_writes, write_atomically

if TYPE_CHECKING:
    from ..engine.evaluate import Evaluation

ALL_CLASSES = 20  # up to so many classes are all listed
LOWEST = 5  # classes and pairs of classes that are listed otherwise
HEADER = ("path", "label", "prediction", "probability")


def figure_line(which: str, found: "Evaluation", remark: str = "") -> str:
    """Accuracies and loss in a line: `final: top-1 71.88 % ...`."""
    line = f"{which}: top-1 {found.top1:.4f} %  top-5 {found.top5:.4f} %  loss {found.loss:.6f}"
    return f"{line}  {remark}".rstrip()


def show_details(found: "Evaluation", names: Sequence[str], seconds: float) -> None:
    """Print calibration, throughput, accuracies of classes and the most frequent confusions.

    `names`: of the classes, by label; `seconds`: that the evaluation took, decoding included.
    """
    from ..engine.figures import BINS, calibration_error, class_accuracies, confusions

    labels, predictions = found.labels, found.predictions
    screen = console()
    if found.probability is not None:
        error = calibration_error(found.probability, labels == predictions)
        screen.print(f"calibration  expected error {error:.2f} points, {BINS} bins of equal width")
    rate = len(labels) / max(seconds, 1e-9)
    screen.print(f"throughput   {len(labels):,} images in {seconds:.1f} s, {rate:,.0f} images/s")
    accuracies = class_accuracies(labels, predictions)
    ranked = sorted(accuracies, key=lambda label: accuracies[label][0] / accuracies[label][1])
    listed = sorted(ranked) if len(ranked) <= ALL_CLASSES else ranked[:LOWEST]
    title = "classes" if len(ranked) <= ALL_CLASSES else f"the lowest of {len(ranked)} classes"
    screen.print(f"{title}:")
    for label in listed:
        correct, images = accuracies[label]
        screen.print(f"  {100 * correct / images:6.2f} % of {images:,}  {names[label]}")
    if pairs := confusions(labels, predictions, LOWEST):
        screen.print("most frequent confusions:")
    for pair in pairs:
        taken = f"{names[pair.label]} taken for {names[pair.predicted]}"
        screen.print(f"  {pair.wrong:,} of {pair.images:,}  {taken}")


def write_predictions(
    path: Path,
    images: Sequence[object],
    labels: np.ndarray | None,
    predictions: np.ndarray,
    probability: np.ndarray,
    names: Sequence[str],
) -> None:
    """Write a CSV file with a line per image. `images`: what stands for each, a path or a number.

    `labels`: None where they are not known. Raises LwbenchError where the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for row, image in enumerate(images):
        label = "" if labels is None or labels[row] < 0 else names[labels[row]]
        writer.writerow([image, label, names[predictions[row]], f"{probability[row]:.6f}"])
    with explained_writes(path):
        write_atomically(path, text.getvalue())
    console().print(f"predictions  {path}")
