"""How pictures look and how they are written: a look for grey paper and for the colour-blind.

Imports matplotlib, which takes a second: callers import this module and `plots` when they draw.
"""

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from ..errors import LwbenchError

Box = tuple[float, float, float, float]

# Okabe & Ito, Color Universal Design (2008), without the yellow that white paper swallows;
# ordered so that neighbours differ in lightness
COLOURS = ("#0072B2", "#E69F00", "#000000", "#56B4E9", "#D55E00", "#009E73", "#CC79A7")
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "////", "....", "\\\\\\\\", "xxxx")

_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a name is a name, with whatever dollars and backslashes are in it
    "text.usetex": False,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 150,
    "svg.fonttype": "path",  # text looks the same wherever the file is opened
    "svg.hashsalt": "lwbench",  # the same picture is the same file
}


class NoPicture(LwbenchError):
    """A picture cannot be drawn; the message says which file or figure is missing or damaged."""


@contextmanager
def styled() -> Iterator[None]:
    """The look, as a decorator of what draws or writes a picture."""
    with rc_context(_STYLE), warnings.catch_warnings():
        # of letters that no font has, of axes that long names squeeze: nothing a user could change
        warnings.simplefilter("ignore", UserWarning)
        yield


@styled()
def save(figure: Figure, path: Path) -> list[Path]:
    """Write `path`.png and `path`.svg; `path` is without suffix. The same picture, the same bytes.

    Returns both paths; makes the folder. Raises OSError where they cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    targets = [path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "svg")]
    for target in targets:
        target.write_bytes(_bytes(figure, target.suffix[1:]))
    return targets


@styled()
def data_uri(figure: Figure) -> str:
    """The picture as an SVG in a data URI, for the src of an <img>.

    In an <img> its ids meet no other picture's, and nothing in it is ever executed.
    """
    return "data:image/svg+xml;base64," + base64.b64encode(_bytes(figure, "svg")).decode()


def plain(text: object, width: int = 40) -> str:
    """A text from a run on one line and without control characters; a long one loses its middle."""
    line = "".join(c if c.isprintable() else "\ufffd" for c in str(text))
    if len(line) <= width:
        return line
    return f"{line[: width // 2]}…{line[-(width - width // 2 - 1) :]}"


def _bytes(figure: Figure, suffix: str) -> bytes:
    # dates and versions would make each file a new one
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[suffix]
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, metadata=metadata)
    return buffer.getvalue()


# --- labels in the plane ------------------------------------------------------------------------


def place_labels(ax: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write each point's label where it covers least: around the point, near before far."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # lays out the axes: positions in pixels are final after it
    points_per_pixel = 72 / figure.dpi
    spots = [tuple(ax.transData.transform((x, y))) for x, y, _ in points]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in spots]
    frame = ax.get_window_extent()
    inside = (frame.x0, frame.y0, frame.x1, frame.y1)
    line = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
    for (x, y, text), spot in zip(points, spots, strict=True):
        note = ax.annotate(
            text, (x, y), (0, 0), textcoords="offset points", fontsize=8, arrowprops=line
        )
        size = Text.get_window_extent(note, renderer)  # without the line
        boxes = _around(spot, size.width, size.height)
        best = min(boxes, key=lambda box: _covered(box, taken) + _outside(box, inside))
        taken.append((best[0] - 3, best[1], best[2] + 3, best[3]))
        shift = (np.array(best[:2]) - spot) * points_per_pixel
        note.set_position(tuple(shift))


def _around(spot: tuple[float, float], width: float, height: float) -> list[Box]:
    """Boxes of a label around a point, near ones first, corners before sides."""
    x, y = spot
    boxes = []
    for gap in (6, 12, 24, 40, 60):
        for across, up in ((1, -1), (1, 1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)):
            left = x + across * gap - width * (1 - across) / 2
            bottom = y + up * gap - height * (1 - up) / 2
            boxes.append((left, bottom, left + width, bottom + height))
    return boxes


def _covered(box: Box, taken: Sequence[Box]) -> float:
    return sum(_common(box, other) for other in taken)


def _outside(box: Box, frame: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) - _common(box, frame)


def _common(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)
