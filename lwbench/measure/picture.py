"""A picture of a network's cost: the plain MACs and parameters of each stage as bars."""

from pathlib import Path
from typing import Any

from ..errors import UsageError

FORMATS = (".png", ".svg")
MAX_STAGES = 40  # bars that a picture can label


def stages(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add up the layers of each stage, in the order of their first call.

    A stage is a child of the network, or a child of that where it is called by a number, as the
    blocks of `features.3` are: names are cut after the first number, or else after their first
    part. Counts are "params" and "macs" (plain).
    """
    found: dict[str, dict[str, Any]] = {}
    for layer in layers:
        parts = layer["name"].split(".") or [""]
        at = next((i for i, part in enumerate(parts[:-1]) if part.isdigit()), 0)
        name = ".".join(parts[: at + 1]) or "(the network's own)"
        stage = found.setdefault(name, {"stage": name, "params": 0, "macs": 0})
        stage["params"] += layer["params"]
        stage["macs"] += layer["macs"]["plain"]
    return list(found.values())


def draw(profile: dict[str, Any], path: Path) -> None:
    """Write the picture of a profile with layers to a .png or .svg file.

    Raises UsageError for another format, and where the file cannot be written.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"picture={path}: expected a file that ends in .png or .svg")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bars = _shortened(stages(profile["layers"]))
    figure = Figure(figsize=(8, 1.2 + 0.26 * len(bars)), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, key, title in zip(
        figure.subplots(1, 2, sharey=True),
        ("macs", "params"),
        ("MACs (plain), millions", "parameters, thousands"),
        strict=True,
    ):
        scale = 1e6 if key == "macs" else 1e3
        axis.barh(range(len(bars)), [bar[key] / scale for bar in bars], color="#4878a8")
        axis.set_yticks(range(len(bars)), [bar["stage"] for bar in bars], fontsize=8)
        axis.set_xlabel(title)
    axis.invert_yaxis()
    size = profile["image_size"]
    figure.suptitle(f"{profile['model']} at {size} x {size} px, {profile['num_classes']} classes")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise UsageError(f"picture={path}: {error.strerror or error}") from error


def _shortened(bars: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return at most MAX_STAGES bars: the last one stands for all that follow."""
    if len(bars) <= MAX_STAGES:
        return bars
    rest = bars[MAX_STAGES - 1 :]
    sums = {key: sum(bar[key] for bar in rest) for key in ("params", "macs")}
    return [*bars[: MAX_STAGES - 1], {"stage": f"{len(rest)} more stages", **sums}]
