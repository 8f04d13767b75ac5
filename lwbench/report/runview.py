"""A run as the page shows it: facts, command, curves, files, and which of them cannot be read.

Plain texts and numbers; the template escapes them.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..runs.records import Record
from ..runs.schema import Environment, Figures

POINTS = 40  # most points of a curve, so that a page of a thousand runs stays small
ROWS = 20  # most rows of metrics that are listed
LONGEST = 6000  # characters of a file that are shown
FILES = {"metrics.csv": "", "config.yaml": "configuration", "env.json": "environment"}  # titles
LARGEST = 1e30  # a greater loss is not drawn: differences of such values overflow


class Panel(NamedTuple):
    """A small plot: `lines` are SVG paths by split (test, train), in a box of 640 x 300."""

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
    """One run as far as the page shows it: all of it, or a line where it is not `is_open`."""

    record: Record
    select: str
    is_open: bool
    panels: list[Panel] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)  # content by name
    problems: list[str] = field(default_factory=list)  # what is missing or damaged

    @property
    def figures(self) -> Figures:
        """What the chosen epoch reached."""
        figures: Figures = getattr(self.record.result, self.select)
        return figures

    @property
    def commands(self) -> list[str]:
        """The commands of the starts; `python -m lwbench` was recorded by its file's name."""
        found = self._all("command") or ["not recorded"]
        return [re.sub(r"^__main__\.py ", "python -m lwbench ", command) for command in found]

    @property
    def systems(self) -> list[str]:
        """The operating systems of the starts."""
        return self._all("system")

    @property
    def versions(self) -> list[str]:
        """Python and the libraries, each with its versions in the order of the starts."""
        found: dict[str, dict[str, None]] = {}
        for start in self.record.starts:
            for name, text in {"Python": start.python, **start.versions}.items():
                if text:
                    found.setdefault(name, {})[text] = None
        return [f"{name} {' then '.join(texts)}" for name, texts in found.items()]

    def _all(self, key: str) -> list[str]:
        """The different values that the starts recorded."""
        values = (getattr(start, key) for start in self.record.starts)
        return list(dict.fromkeys(value for value in values if value))


def view(record: Record, select: str, is_open: bool, like: RunView | None = None) -> RunView:
    """The run with its curves, without pictures. Damaged files become `problems`.

    `like`: a run of the same identity that shows its configuration; this one shows what differs.
    """
    shown = RunView(record, select, is_open)
    if not is_open:
        return shown
    if metrics := record.metrics:
        panels = (_panel("loss", "loss", metrics), _panel("top-1 (%)", "top1", metrics))
        shown.panels = [panel for panel in panels if panel is not None]
        shown.files[f"metrics ({len(metrics)} epochs)"] = _listing(metrics)
    is_known = {"env.json": record.environment != Environment(), "metrics.csv": bool(metrics)}
    for name, title in FILES.items():
        try:
            text = (record.run.path / name).read_text(encoding="utf-8")
            if not is_known.get(name, True):
                raise ValueError("it holds nothing that is known")
        except FileNotFoundError:
            shown.problems.append(f"{name} is missing")
        except (OSError, ValueError) as error:
            shown.problems.append(f"{name} cannot be read: {' '.join(str(error).split())[:200]}")
        else:
            cut = f"\n... cut: {len(text):,} characters" if len(text) > LONGEST else ""
            if like is not None and name == "config.yaml":
                text = _differing(text, like)
            shown.files |= {title: text[:LONGEST] + cut} if title else {}
    return shown


def _differing(text: str, like: RunView) -> str:
    """The lines that differ from another run's configuration; all where they do not correspond."""
    lines, others = text.splitlines(), like.files.get(FILES["config.yaml"], "").splitlines()
    if len(lines) != len(others):
        return text
    pairs = zip(lines, others, strict=True)
    differing = [line for line, other in pairs if line != other]
    return "\n".join((f"that of {like.record.run.path.name}, except", *differing))


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
    across, up = 536 / ((last - first) or 1), 232 / ((high - low) or 1)
    placed = {
        split: _path([(88 + (x - first) * across, 256 - (y - low) * up) for x, y in line])
        for split, line in lines.items()
        if line
    }
    return Panel(title, f"{low:.3g}", f"{high:.3g}", f"{first:.0f}", f"{last:.0f}", placed)


def _path(points: Sequence[tuple[float, float]]) -> str:
    """An SVG path through points, in whole units: the first place, then the steps to the next."""
    rounded = [(round(x), round(y)) for x, y in points]
    steps = (f"l{c - a} {d - b}" for (a, b), (c, d) in itertools.pairwise(rounded))
    return "".join(("M{} {}".format(*rounded[0]), *steps))


def _thinned(rows: Sequence[dict[str, float]], most: int) -> list[dict[str, float]]:
    """At most `most` of the rows, at equal distances, with the last one."""
    step = max(1, -(-len(rows) // most))
    return list(rows[::-1][::step][::-1])


def _listing(metrics: Sequence[dict[str, float]]) -> str:
    """The metrics, as columns between tabs."""
    keys = list(dict.fromkeys(key for row in metrics for key in row))
    rows = _thinned(metrics, ROWS)
    lines = [keys, *([f"{row[key]:.5g}" if key in row else "" for key in keys] for row in rows)]
    text = ["\t".join(line) for line in lines]
    if len(rows) < len(metrics):
        text.append(f"{len(rows)} of {len(metrics)} epochs; metrics.csv has all")
    return "\n".join(text)
