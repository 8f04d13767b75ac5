"""What a command says: messages to the screen and to a run's train.log, progress, results."""

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

log = logging.getLogger("lwbench")


class Screen(logging.Handler):
    """Warnings, on whatever standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "on_screen", True):
            print(f"lwbench: {record.getMessage()}", file=sys.stderr)

    def handleError(self, record: logging.LogRecord) -> None:
        """A screen that is gone ends no run."""


class RunLog(logging.Handler):
    """While it lasts, the log goes to the run's train.log too, and so do libraries' warnings.

    A full disk costs one warning: Python's own handler would print a traceback a message. What
    could not be written is kept, and written with a later message where there is room again.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._path = path
        self._waiting = b""
        self._has_warned = False

    def __enter__(self) -> None:
        logging.captureWarnings(True)
        for name in ("lwbench", "py.warnings"):
            logging.getLogger(name).addHandler(self)

    def __exit__(self, *_: object) -> None:
        for name in ("lwbench", "py.warnings"):
            logging.getLogger(name).removeHandler(self)
        logging.captureWarnings(False)

    def emit(self, record: logging.LogRecord) -> None:
        self._waiting += f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        try:
            with open(self._path, "ab", buffering=0) as file:
                self._waiting = self._waiting[file.write(self._waiting) :]
        except OSError as error:
            if not self._has_warned:
                self._has_warned = True
                reason = error.strerror or error
                print(f"lwbench: cannot write to {self._path} ({reason})", file=sys.stderr)


log.setLevel(logging.INFO)
log.addHandler(Screen(logging.WARNING))


# on the screen


class _Screen(Console):
    """A reader may leave (`lwbench train | head -1`): what follows is discarded."""

    def on_broken_pipe(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console() -> Console:
    """Standard output. Text is printed as it is: names of users are never read as markup or emoji.

    Without a terminal the output is plain, and so wide that no line is broken.
    """
    width = None if sys.stdout.isatty() else 200
    return _Screen(markup=False, emoji=False, highlight=False, soft_wrap=True, width=width)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as 1:02:03 or 2:03."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def metric(value: int | float) -> str:
    """A count with its unit: 2.35 M, 54.12 M, 15.48 G."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.2f} {letter}"
    return f"{value}"


def gibibytes(value: float) -> str:
    return f"{value / 2**30:.2f} GiB"


class CountProgress:
    """How many of `total` are done: a bar on a terminal, a line now and then elsewhere."""

    EVERY_S = 10.0

    def __init__(self, total: int, unit: str) -> None:
        self._total, self._unit, self._done = total, unit, 0
        self._console = console()
        self._bar: Progress | None = None
        self._begin = self._last = time.monotonic()

    def __enter__(self) -> "CountProgress":
        if self._console.is_terminal:
            columns = (BarColumn(bar_width=None), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task("", total=self._total)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def more(self, count: int) -> None:
        """So many more are done."""
        self._done += count
        now = time.monotonic()
        if self._bar:
            self._bar.update(self._task, completed=self._done, description=self._line(now))
        elif now - self._last > self.EVERY_S:
            self._console.print(self._line(now))
            self._last = now

    def _line(self, now: float) -> str:
        rate = self._done / max(now - self._begin, 1e-9)
        left = duration((self._total - self._done) / max(rate, 1e-9))
        return f"{self._done:,}/{self._total:,} {self._unit}, {rate:,.0f} a second, {left} left"


class EpochProgress:
    """Reports training to the user; the engine calls it and knows nothing of terminals."""

    def __init__(self, epochs: int, train_size: int) -> None:
        self._epochs, self._train_size = epochs, train_size
        self._console = console()
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._epoch_seconds: list[float] = []

    def __enter__(self) -> "EpochProgress":
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("epoch {task.fields[epoch]}/" + str(self._epochs)),
                BarColumn(bar_width=None),
                TextColumn("{task.completed:.0f}/{task.total:.0f} images"),
                TextColumn("{task.fields[rate]}"),
                TextColumn("{task.fields[left]}"),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=self._train_size, epoch=0, rate="", left="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def epoch_starts(self, epoch: int, images_done: int) -> None:
        self._epoch, self._first, self._begin = epoch, images_done, time.monotonic()
        if self._bar:
            self._bar.update(self._task, epoch=epoch, completed=images_done)

    def images_done(self, images: int) -> None:
        """`images` of the epoch have been trained on. Cheap where there is no terminal."""
        if not self._bar:
            return
        seconds = time.monotonic() - self._begin
        rate = (images - self._first) / max(seconds, 1e-9)
        epochs_left = self._epochs - self._epoch + 1 - images / self._train_size
        left = epochs_left * self._train_size / max(rate, 1e-9)
        self._bar.update(
            self._task,
            completed=images,
            rate=f"{rate:,.0f} images/s",
            left=f"{duration(left)} left",
        )

    def epoch_ends(self, row: Mapping[str, Any]) -> None:
        self._epoch_seconds.append(time.monotonic() - self._begin)
        mean = sum(self._epoch_seconds) / len(self._epoch_seconds)
        left = mean * (self._epochs - row["epoch"])
        test = ""
        if "test_loss" in row:  # not after every epoch, see eval_every
            test = (
                f"test loss {row['test_loss']:.4f} top-1 {row['test_top1']:.2f} % "
                f"top-5 {row['test_top5']:.2f} %  "
            )
        if "raw_test_top1" in row:
            test += f"(without averaging top-1 {row['raw_test_top1']:.2f} %)  "
        self._console.print(
            f"epoch {row['epoch']}/{self._epochs}  lr {row['lr']:.4g}  "
            f"train loss {row['train_loss']:.4f} top-1 {row['train_top1']:.2f} %  {test}"
            f"{row['images_per_s']:,.0f} images/s  {duration(left)} left"
        )


def result_table(results: Sequence[dict[str, Any]], settings: Sequence[str] = ()) -> Table:
    """One row a run: its final figures, and the best epoch's beside them.

    `settings`: in what else each run differs from the others, if any does.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    has_settings = any(settings)
    for name in ("model", "data", *("settings",) * has_settings, "seed", "epochs"):
        table.add_column(name, overflow="fold")
    has_raw = any(result.get("raw") for result in results)
    raw_column = ("raw top-1 %",) * has_raw  # beside the accuracy of averaged weights
    for name in ("top-1 %", *raw_column, "top-5 %", "loss", "best top-1 %", "at epoch", "time"):
        table.add_column(name, justify="right")
    for number, result in enumerate(results):
        final, best, raw = result["final"], result["best"], result.get("raw")
        table.add_row(
            result["model"],
            result["data"],
            *(settings[number : number + 1] if has_settings else ()),
            str(result["seed"]),
            str(result["epochs"]),
            f"{final['test_top1']:.2f}",
            *((f"{raw['test_top1']:.2f}" if raw else "",) * has_raw),
            f"{final['test_top5']:.2f}",
            f"{final['test_loss']:.4f}",
            f"{best['test_top1']:.2f}",
            str(best["epoch"]),
            duration(result["seconds"]),
        )
    return table


def failure_table(rows: Sequence[tuple[str, str, str]]) -> Table:
    """One row a run that failed: its command, the reason, and where its log lies."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("failed", "reason", "log"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
