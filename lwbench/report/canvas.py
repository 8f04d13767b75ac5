"""The style of pictures and how they are written: readable in grey and for the colour-blind.

Imports matplotlib, which takes a second: callers import this module and `plots` when they draw.
"""

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
from matplotlib import rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text

from ..errors import LwbenchError

# Okabe & Ito, Color Universal Design (2008), without the yellow, which white paper hides; ordered
# so that neighbours differ in lightness
COLOURS = ("#0072B2", "#E69F00", "#000000", "#56B4E9", "#D55E00", "#009E73", "#CC79A7")
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "////")
STYLE = Path(__file__).with_name("report.mplstyle")


class NoPicture(LwbenchError):
    """A picture cannot be drawn; the message says which file or figure is missing or damaged."""


@contextmanager
def styled() -> Iterator[None]:
    """Apply the style; decorates functions that draw or write a picture."""
    with rc_context(fname=STYLE), warnings.catch_warnings():
        # about letters that no font has, and axes squeezed by long names: no user can change them
        warnings.simplefilter("ignore", UserWarning)
        yield


@styled()
def save(figure: Figure, path: Path) -> list[Path]:
    """Write `path`.png and `path`.svg; `path` is without suffix. The same picture, the same bytes.

    Returns both paths; makes the folder. Raises OSError where they cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    png, svg = (path.with_name(f"{path.name}.{suffix}") for suffix in ("png", "svg"))
    svg.write_bytes(_svg(figure))
    png.write_bytes(_png(figure))
    return [png, svg]


@styled()
def data_uri(figure: Figure) -> str:
    """The picture as an SVG in a data URI, for the src of an <img>.

    In an <img>, its ids do not collide with another picture's, and nothing in it is executed.
    """
    return "data:image/svg+xml;base64," + base64.b64encode(_svg(figure)).decode()


# the page and the file beside it hold the same SVG, which takes longer to write than to draw
_svg_of: WeakKeyDictionary[Figure, bytes] = WeakKeyDictionary()


# Pictures are printed by their canvas: `savefig` draws each of them twice. Dates and versions are
# left out, since they would make each file a new one.


def _svg(figure: Figure) -> bytes:
    if figure not in _svg_of:
        buffer = io.BytesIO()
        figure.dpi = rcParams["savefig.dpi"]
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
        figure.set_layout_engine("none")  # laid out: the PNG has the same places
        _svg_of[figure] = buffer.getvalue()
    return _svg_of[figure]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.dpi = rcParams["savefig.dpi"]
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def plain(text: object, width: int = 40) -> str:
    """A text from a run on one line, without control characters; shortened in the middle."""
    line = "".join(c if c.isprintable() else "\ufffd" for c in str(text))
    if len(line) <= width:
        return line
    return f"{line[: width // 2]}…{line[-(width - width // 2 - 1) :]}"


# --- labels in the plane ------------------------------------------------------------------------


def place_labels(ax: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write each point's label where it covers least: around the point, near before far."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # lays out the axes: positions in pixels are final after it
    spots = ax.transData.transform([(x, y) for x, y, _ in points])
    taken = [np.concatenate([spot - 6, spot + 6]) for spot in spots]
    frame = np.array(ax.get_window_extent().extents)
    line = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
    for (x, y, text), spot in zip(points, spots, strict=True):
        note = ax.annotate(
            text, (x, y), (0, 0), textcoords="offset points", fontsize=8, arrowprops=line
        )
        size = np.array(Text.get_window_extent(note, renderer).size)  # without the line
        boxes = _around(spot, size)
        outside = (boxes[:, 2:] - boxes[:, :2]).prod(1) - _common(boxes, [frame])
        best = boxes[np.argmin(_common(boxes, taken) + outside)]
        taken.append(best + np.array([-3, 0, 3, 0]))
        note.set_position((best[:2] - spot) * 72 / figure.dpi)


def _around(spot: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) of a label around a point: near ones first, corners before sides."""
    sides = np.array([(1, -1), (1, 1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)])
    gaps = np.array([6, 12, 24, 40, 60])[:, None, None]
    corners = (spot + sides * gaps - size * (1 - sides) / 2).reshape(-1, 2)
    return np.hstack([corners, corners + size])


def _common(boxes: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """The area of each box that the others cover, summed over the others."""
    taken = np.stack(others)
    low = np.maximum(boxes[:, None, :2], taken[:, :2])
    high = np.minimum(boxes[:, None, 2:], taken[:, 2:])
    return np.clip(high - low, 0, None).prod(-1).sum(1)
