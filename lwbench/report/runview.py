"""A run as the page shows it: facts, command, curves, files, and which of them cannot be read.

Plain texts and numbers; the template escapes them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..runs.records import Record, devices, revisions
from ..runs.schema import Environment, Images, Start

POINTS = 40  # most points of a curve, so that a page of a thousand runs stays small
ROWS = 20  # most rows of metrics that are listed
LONGEST = 6000  # characters of a file that are shown
LARGEST = 1e30  # a greater loss is not drawn: differences of such values overflow


class Panel(NamedTuple):
    """A small plot: `lines` are SVG points by split (test, train), in a box of 320 x 150."""

    title: str
    bottom: str
    top: str
    first: str
    last: str
    lines: dict[str, str]


class Picture(NamedTuple):
    """A drawn picture: a matplotlib figure, and the same as a data URI for the page."""

    title: str
    name: str  # of its files, in words
    figure: Any
    source: str


@dataclass
class RunView:
    """One run, opened."""

    title: str
    facts: list[tuple[str, str]]
    command: str = ""
    panels: list[Panel] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)  # content by name
    problems: list[str] = field(default_factory=list)  # what is missing or damaged


def view(record: Record, select: str = "final") -> RunView:
    """The run with its curves, without pictures. Damaged files become `problems`."""
    shown = RunView(_title(record, select), _facts(record))
    command = (record.starts and record.starts[-1].command) or "not recorded"
    # `python -m lwbench` was recorded by the name of its file
    shown.command = re.sub(r"^__main__\.py ", "python -m lwbench ", command)
    if metrics := record.metrics:
        panels = (_panel("loss", "loss", metrics), _panel("top-1 (%)", "top1", metrics))
        shown.panels = [panel for panel in panels if panel is not None]
        shown.files[f"metrics ({len(metrics)} epochs)"] = _listing(metrics)
    has_environment = record.environment != Environment()
    files = {"metrics.csv": bool(metrics), "config.yaml": True, "env.json": has_environment}
    for name, is_known in files.items():
        try:
            text = (record.run.path / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            shown.problems.append(f"{name} is missing")
        except (OSError, ValueError) as error:
            shown.problems.append(f"{name} cannot be read: {' '.join(str(error).split())[:200]}")
        else:
            if not is_known:
                shown.problems.append(f"{name} cannot be read: it holds nothing that is known")
            if len(text) > LONGEST:
                text = f"{text[:LONGEST]}\n... cut: {len(text):,} characters"
            if name != "metrics.csv":
                shown.files[{"config.yaml": "configuration", "env.json": "environment"}[name]] = (
                    text
                )
    return shown


def outline(record: Record, select: str = "final") -> RunView:
    """The run in a line, and where it lies: for pages of very many runs."""
    return RunView(_title(record, select), [("directory", str(record.run.path))])


def _title(record: Record, select: str) -> str:
    result = record.result
    figures = getattr(result, select)
    where = "archived" if record.kept else "local"
    return (
        f"seed {result.seed}: top-1 {figures.test_top1:.2f} % at epoch {figures.epoch} ({select}), "
        f"{result.precision}, {where}, {record.run.path.name}"
    )


def _facts(record: Record) -> list[tuple[str, str]]:
    result, best, data = record.result, record.result.best, record.data
    last = record.starts[-1] if record.starts else Start()
    versions = [f"{name} {text}" for name, text in last.versions.items() if text]
    sizes = f"{data.train_size} to train on, {data.test_size} to test on"
    facts = {
        "directory": record.run.path,
        "top-5": f"{result.final.test_top5:.2f} % (final)",
        "best epoch": f"{best.epoch}: top-1 {best.test_top1:.2f} % (chosen on the test images)",
        "epochs": result.epochs,
        "time": f"{result.seconds:,.0f} s, {result.images_per_s:,.0f} images/s",
        "device": ", ".join(devices([record])),
        "threads": record.environment.threads,
        "system": last.system,
        "started": ", ".join(start.started or "unknown" for start in record.starts),
        "finished": result.finished,
        "revision": ", ".join(revisions([record])),
        "versions": ", ".join([f"Python {last.python}"] * bool(last.python) + versions),
        "images": "" if data == Images() else f"{sizes}, digest {(data.digest or '')[:12]}",
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]


def _panel(title: str, key: str, metrics: Sequence[dict[str, float]]) -> Panel | None:
    rows = _thinned([row for row in metrics if "epoch" in row], POINTS)
    lines = {
        split: [
            (row["epoch"], row[f"{split}_{key}"])
            for row in rows
            if abs(row.get(f"{split}_{key}", LARGEST)) < LARGEST
        ]
        for split in ("train", "test")
    }
    points = [point for line in lines.values() for point in line]
    if not points:
        return None
    (first, last), (low, high) = ((min(axis), max(axis)) for axis in zip(*points, strict=True))
    across, up = 268 / ((last - first) or 1), 116 / ((high - low) or 1)
    placed = {
        split: " ".join(
            f"{44 + (x - first) * across:.1f},{128 - (y - low) * up:.1f}" for x, y in line
        )
        for split, line in lines.items()
    }
    return Panel(title, f"{low:.3g}", f"{high:.3g}", f"{first:.0f}", f"{last:.0f}", placed)


def _thinned(rows: Sequence[dict[str, float]], most: int) -> list[dict[str, float]]:
    """At most `most` of the rows, at equal distances, with the last one."""
    step = max(1, -(-len(rows) // most))
    return list(rows[::-1][::step][::-1])


def _listing(metrics: Sequence[dict[str, float]]) -> str:
    """The metrics as aligned columns."""
    keys = list(dict.fromkeys(key for row in metrics for key in row))
    rows = _thinned(metrics, ROWS)
    lines = [keys, *([f"{row[key]:.5g}" if key in row else "" for key in keys] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(map(str.rjust, line, widths)) for line in lines]
    if len(rows) < len(metrics):
        text.append(f"{len(rows)} of {len(metrics)} epochs; metrics.csv has all")
    return "\n".join(text)
