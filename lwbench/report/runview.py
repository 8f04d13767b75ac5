"""A run as the page shows it: facts, command, curves, files. What cannot be read says so.

Plain texts and numbers, not yet escaped: the template does that.
"""

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..errors import LwbenchError
from ..runs.records import Record
from ..runs.schema import Environment, Images, Start
from ..tables.studies import hardware, revisions

POINTS = 40  # of a curve at most, so that a page of a thousand runs stays small
ROWS = 20  # of metrics, too
LONGEST = 6000  # characters of a file that are shown
# what reading a damaged file raises: not UTF-8, not CSV, nested too deep, of other types within
DAMAGE = (LwbenchError, OSError, ValueError, csv.Error, RecursionError, TypeError, AttributeError)

Read = TypeVar("Read")


@dataclass(frozen=True)
class Panel:
    """A small plot: `lines` are SVG points by split (test, train), in a box of 320 x 150."""

    title: str
    bottom: str
    top: str
    first: str
    last: str
    lines: list[tuple[str, str]]


@dataclass(frozen=True)
class Picture:
    """A drawn picture: a matplotlib figure, and the same as a data URI for the page."""

    title: str
    name: str  # of its files, in words
    figure: Any
    source: str


@dataclass
class RunView:
    """One run, opened."""

    title: str
    command: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    files: list[tuple[str, str]] = field(default_factory=list)  # name, content
    problems: list[str] = field(default_factory=list)  # what is missing or damaged


def view(record: Record, select: str = "final") -> RunView:
    """The run with its curves, without pictures. Damaged files become `problems`."""
    shown = RunView(_title(record, select))
    _read(shown, "env.json", lambda: _check_environment(record))
    metrics = _read(shown, "metrics.csv", lambda: _metrics(record)) or []
    # `python -m lwbench` calls itself by its file's name
    starts = record.starts
    command = (starts and starts[-1].command) or "not recorded"
    shown.command = re.sub(r"^__main__\.py ", "python -m lwbench ", command)
    shown.facts = _facts(record)
    shown.panels = [
        panel
        for title, key in (("loss", "loss"), ("top-1 (%)", "top1"))
        if (panel := _panel(title, key, metrics)) is not None
    ]
    if metrics:
        shown.files.append((f"metrics ({len(metrics)} epochs)", _listing(metrics)))
    for name, file in (("configuration", "config.yaml"), ("environment", "env.json")):
        if (text := _read(shown, file, partial(_text, record.run.path / file))) is not None:
            shown.files.append((name, text))
    shown.problems = list(dict.fromkeys(shown.problems))
    return shown


def outline(record: Record, select: str = "final") -> RunView:
    """The run in a line, and where it lies: for pages of very many runs."""
    return RunView(_title(record, select), facts=[("directory", str(record.run.path))])


def _title(record: Record, select: str) -> str:
    result = record.result
    chosen = getattr(result, select)
    where = "kept" if record.kept else "local"
    return (
        f"seed {result.seed}: top-1 {chosen.test_top1:.2f} % at epoch {chosen.epoch} ({select}), "
        f"{result.precision}, {where}, {record.run.path.name}"
    )


def _read(shown: RunView, name: str, read: Callable[[], Read]) -> Read | None:
    try:
        return read()
    except FileNotFoundError:
        shown.problems.append(f"{name} is missing")
    except DAMAGE as error:
        shown.problems.append(f"{name} cannot be read: {' '.join(str(error).split())[:200]}")
    return None


def _check_environment(record: Record) -> None:
    if record.environment == Environment():
        _text(record.run.path / "env.json")  # missing, or not UTF-8
        raise ValueError("it holds nothing that is known")


def _metrics(record: Record) -> list[dict[str, float]]:
    if not record.metrics:
        _text(record.run.path / "metrics.csv")
        raise ValueError("it holds no epoch")
    return record.metrics


def _text(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\n... cut: {len(text):,} characters"


def _facts(record: Record) -> list[tuple[str, str]]:
    result, best = record.result, record.result.best
    last = record.starts[-1] if record.starts else Start()
    facts = {
        "directory": record.run.path,
        "top-5": f"{result.final.test_top5:.2f} % (final)",
        "best epoch": f"{best.epoch}: top-1 {best.test_top1:.2f} % (chosen on the test images)",
        "epochs": result.epochs,
        "time": f"{result.seconds:,.0f} s, {result.images_per_s:,.0f} images/s",
        "device": ", ".join(hardware([record])),
        "threads": record.environment.threads,
        "system": last.system,
        "started": ", ".join(start.started or "unknown" for start in record.starts),
        "finished": result.finished,
        "revision": ", ".join(revisions([record])),
        "versions": _versions(last),
        "images": _images(record.data),
    }
    return [(name, str(value)) for name, value in facts.items() if value not in (None, "")]


def _versions(start: Start) -> str:
    found = [f"{name} {text}" for name, text in start.versions.items() if text]
    return ", ".join([f"Python {start.python}", *found] if start.python else found)


def _images(data: Images) -> str:
    if data == Images():
        return ""
    sizes = f"{data.train_size} to train on, {data.test_size} to test on"
    return f"{sizes}, digest {(data.digest or '')[:12]}"


# --- curves -------------------------------------------------------------------------------------


def _panel(title: str, key: str, metrics: Sequence[dict[str, float]]) -> Panel | None:
    rows = _thinned([row for row in metrics if _finite(row, "epoch")], POINTS)
    lines = {split: _points(rows, f"{split}_{key}") for split in ("train", "test")}
    points = [point for line in lines.values() for point in line]
    if not points:
        return None
    (first, last), (low, high) = ((min(axis), max(axis)) for axis in zip(*points, strict=True))
    across, up = 268 / ((last - first) or 1), 116 / ((high - low) or 1)

    def place(epoch: float, value: float) -> str:
        return f"{44 + (epoch - first) * across:.1f},{128 - (value - low) * up:.1f}"

    return Panel(
        title, f"{low:.3g}", f"{high:.3g}", f"{first:.0f}", f"{last:.0f}",
        [(split, " ".join(place(*point) for point in line)) for split, line in lines.items()],
    )  # fmt: skip


def _points(rows: Sequence[dict[str, float]], key: str) -> list[tuple[float, float]]:
    return [(row["epoch"], row[key]) for row in rows if _finite(row, key)]


def _finite(row: dict[str, float], key: str) -> bool:
    return abs(row.get(key, float("inf"))) < 1e30  # neither NaN nor infinite, nor beyond drawing


def _thinned(rows: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the rows, evenly apart, the last among them."""
    step = -(-len(rows) // most)
    return list(rows[::-1][::step][::-1]) if rows else []


def _listing(metrics: Sequence[dict[str, float]]) -> str:
    keys = list(dict.fromkeys(key for row in metrics for key in row))
    rows = _thinned(metrics, ROWS)
    lines = [keys, *([f"{row[key]:.5g}" if key in row else "" for key in keys] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [_line(line, widths) for line in lines]
    if len(rows) < len(metrics):
        text.append(f"{len(rows)} of {len(metrics)} epochs; metrics.csv has all")
    return "\n".join(text)


def _line(texts: Iterable[str], widths: Sequence[int]) -> str:
    return "  ".join(text.rjust(width) for text, width in zip(texts, widths, strict=True))
