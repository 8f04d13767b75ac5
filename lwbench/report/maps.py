"""Pictures of one run: confusion matrices, and the sampling points of its deformable layer.

Missing or damaged arrays raise NoPicture, whose message says why; callers leave that picture out.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke

from ..runs.records import Record
from .canvas import NoPicture, plain, styled

NUMBERS_UP_TO = 20  # classes; the cells of more have no room for a number
TICKS = 20  # most ticks of an axis


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file. Raises NoPicture where it is missing or damaged."""
    if not path.is_file():
        raise NoPicture(f"{path} is missing")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # a damaged file raises one of a dozen types of numpy and zipfile
        raise NoPicture(f"{path} is damaged: {plain(error, 100)}") from None


def _are_numbers(*arrays: np.ndarray) -> bool:
    return all(array.dtype.kind in "iuf" and np.isfinite(array).all() for array in arrays)


# --- confusion ----------------------------------------------------------------------------------


@styled()
def confusion(record: Record, class_names: Sequence[str] | None = None) -> Figure:
    """Confusion matrices of train and test over the final weights, in percent of the true class.

    A run that was not evaluated on training images has no matrix of them; one that was evaluated
    on a sample says so. `class_names`: by default those that the run recorded, else indices. Up to
    20 classes have numbers in their cells. Raises NoPicture where confusion.npz is missing or
    damaged.
    """
    path = record.run.path / "confusion.npz"
    arrays = _arrays(path)
    splits = ("test",) if record.result.train_evaluated == 0 else ("train", "test")
    counts = {split: _counts(arrays.get(split), path) for split in splits}
    if len({len(matrix) for matrix in counts.values()}) > 1:
        raise NoPicture(f"{path} is damaged: train and test differ in their classes")
    names = arrays.get("class_names", ()) if class_names is None else class_names
    labels = _labels(names, len(counts["test"]))
    figure = Figure(figsize=(11 if len(counts) == 2 else 6.5, 5.6), layout="constrained")
    axes = figure.subplots(1, len(counts), sharey=True, squeeze=False)[0]
    for ax, (split, matrix) in zip(axes, counts.items(), strict=True):
        drawn = _matrix(ax, matrix, labels)
        ax.set(title=f"{split} ({_images(record, split, matrix)})", xlabel="predicted class")
    axes[0].set_ylabel("true class")
    bar = figure.colorbar(drawn, ax=axes, shrink=0.8, label="% of the true class")
    bar.set_ticks([0, 1, 5, 10, 25, 50, 75, 100])
    result = record.result
    figure.suptitle(
        f"{plain(result.model)} on {plain(result.data)}, seed {result.seed}, final epoch"
    )
    return figure


def _images(record: Record, split: str, matrix: np.ndarray) -> str:
    """The number of images in a matrix; of a sample, also how many there are."""
    images = f"{int(matrix.sum()):,} images"
    evaluated, of = record.result.train_evaluated, record.data.train_size
    if split == "train" and evaluated is not None and of is not None and evaluated < of:
        return f"{images}, a sample of {of:,}"
    return images


def _counts(matrix: np.ndarray | None, path: Path) -> np.ndarray:
    if (
        matrix is None
        or matrix.ndim != 2
        or not matrix.shape[0] == matrix.shape[1] > 0
        or not _are_numbers(matrix)
        or matrix.min() < 0
    ):
        raise NoPicture(f"{path} is damaged: it holds no square matrices of counts, train and test")
    return matrix.astype(float)


def _labels(names: Sequence[str] | np.ndarray, classes: int) -> list[str]:
    """The names of the classes, shortened for ticks; indices where their number differs."""
    labels = [plain(name, 16) for name in np.ravel(names)]
    return labels if len(labels) == classes else [str(number) for number in range(classes)]


def _matrix(ax: Axes, counts: np.ndarray, labels: Sequence[str]) -> AxesImage:
    size = len(counts)
    totals = counts.sum(1, keepdims=True)
    percent = np.divide(100 * counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    ax.set_facecolor("#BBBBBB")  # seen in the row of a class without images
    # a square root scale makes a confusion of a few percent visible beside a diagonal of ninety
    drawn = ax.imshow(percent, cmap="Blues", norm=PowerNorm(0.5, 0, 100), interpolation="nearest")
    ticks = range(0, size, -(-size // TICKS))
    shown = [labels[tick] for tick in ticks]
    ax.set_xticks(ticks, shown, rotation=90 if max(map(len, shown)) > 2 else 0)
    ax.set_yticks(ticks, shown)
    ax.grid(False)
    if size <= NUMBERS_UP_TO:
        for row, column in np.argwhere(percent > 0.5):
            value = percent[row, column]
            ax.text(
                column, row, f"{value:.0f}", ha="center", va="center",
                fontsize=8 if size <= 12 else 6, color="white" if value > 30 else "black",
            )  # fmt: skip
    return drawn


# --- offsets ------------------------------------------------------------------------------------


_ARROWS = ("#F0E442", "#56B4E9", "#D55E00", "#FFFFFF")  # one per place, edged in black


@styled()
def offsets(record: Record, images: int = 3) -> Figure:
    """Where the first deformable layer samples a few test images: an arrow per sampling point.

    Each arrow points from a position in the regular grid to the learned one, for four places of the
    layer's output; the size of its head grows with the mask. Raises NoPicture where offsets.npz is
    missing (no deformable layer) or damaged.
    """
    path = record.run.path / "offsets.npz"
    arrays = _arrays(path)
    pictures, offset, mask = _first_layer(arrays, path)
    count = min(images, len(pictures))
    figure = Figure(figsize=(3.6 * count, 4.4), layout="constrained")
    for index, ax in enumerate(figure.subplots(1, count, squeeze=False)[0]):
        _sampling(ax, pictures[index], offset[index], mask[index])
    result = record.result
    figure.suptitle(
        f"{plain(result.model)} on {plain(result.data)}, seed {result.seed}: sampling points of the"
        " first layer, regular to learned (size: mask)"
    )
    return figure


def _first_layer(arrays: Mapping[str, np.ndarray], path: Path) -> tuple[np.ndarray, ...]:
    """Images (N, H, W, 3) in [0, 1], offsets (N, K*K, 2, OH, OW) in pixels, masks (N, K*K, OH, OW).

    K is the kernel size, OH and OW are the size of the layer's output.
    """
    try:
        name = next(key for key in arrays if key.endswith(".offset"))
        images, offset = arrays["images"], arrays[name]
        mask = arrays[name.removesuffix("offset") + "mask"]
        n, points, height, width = mask.shape
        size = images.shape[-1]
        square = height == width > 0 and round(points**0.5) ** 2 == points > 0
        if images.shape != (n, 3, size, size) or not images.size or not square:
            raise ValueError
        if not _are_numbers(images, offset, mask):
            raise ValueError
        span = (images.min((1, 2, 3), keepdims=True), images.max((1, 2, 3), keepdims=True))
        images = (images - span[0]) / np.maximum(span[1] - span[0], 1e-6)
        return images.transpose(0, 2, 3, 1), offset.reshape(n, points, 2, height, width), mask
    except (StopIteration, KeyError, ValueError, TypeError, IndexError):
        raise NoPicture(f"{path} is damaged: it holds no images, offsets and masks") from None


def _sampling(ax: Axes, image: np.ndarray, offset: np.ndarray, mask: np.ndarray) -> None:
    size = len(image)
    regular, moved = _positions(size, offset)
    ax.imshow(0.3 + 0.7 * image, interpolation="nearest")  # pale, so that arrows stand out
    out = offset.shape[-1]
    places = [(out * row // 4, out * column // 4) for row in (1, 3) for column in (1, 3)]
    for (row, column), colour, marker in zip(places, _ARROWS, "osD^", strict=True):
        start, end = regular[:, :, row, column].T, moved[:, :, row, column].T
        _arrows(ax, start, end, mask[:, row, column], colour, marker)
    ends = np.array([moved[:, :, row, column] for row, column in places])
    # longer arrows are cut
    margin = min(max(2, -ends.min(), ends.max() - size + 1), size / 4) + 0.5
    ax.set(xlim=(-margin, size - 1 + margin), ylim=(size - 1 + margin, -margin))
    beyond = ((moved < -0.5) | (moved > size - 0.5)).any(1).mean()
    length = np.hypot(*np.moveaxis(offset, 1, 0)).mean()
    title = f"mean offset {length:.2g} px\n{100 * beyond:.0f} % of all points outside"
    ax.set(xlabel="pixels", title=title)
    ax.grid(False)


def _arrows(
    ax: Axes, start: np.ndarray, end: np.ndarray, mask: np.ndarray, colour: str, marker: str
) -> None:
    """Arrows of one place of the output, from (2, K*K) to (2, K*K) as (y, x)."""
    gap = np.full(start.shape, np.nan)  # one line with gaps makes the SVG a third as large
    y, x = np.stack([start, end, gap], 2).reshape(2, -1)
    edge = [withStroke(linewidth=2.2, foreground="black")]
    ax.plot(x, y, color=colour, linewidth=1, path_effects=edge)
    sizes = 4 + 20 * mask
    ax.scatter(
        end[1], end[0], s=sizes, marker=marker, color=colour, edgecolor="black", linewidth=0.6,
        zorder=3,
    )  # fmt: skip
    ax.scatter(start[1], start[0], s=2, color="white", edgecolor="black", linewidth=0.5, zorder=4)


def _positions(size: int, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Regular and learned sampling positions (K*K, 2, OH, OW) as (y, x) in pixels.

    Stride (1 or 2) and padding follow from the sizes of input and output.
    """
    kernel, out = round(len(offset) ** 0.5), offset.shape[-1]
    stride = max(1, round(size / out))
    padding = ((out - 1) * stride + kernel - size + stride - 1) // 2
    tap, place = np.arange(kernel), np.arange(out) * stride - padding
    y = tap[:, None, None, None] + place[None, None, :, None]
    x = tap[None, :, None, None] + place[None, None, None, :]
    shape = (kernel, kernel, out, out)
    regular = np.stack([np.broadcast_to(y, shape), np.broadcast_to(x, shape)], 2)
    regular = regular.reshape(kernel * kernel, 2, out, out)
    return regular, regular + offset
