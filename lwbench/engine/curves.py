"""Training curves for TensorBoard.

Written in the caller's thread: torch's SummaryWriter has one of its own, whose failure on a full
disk goes to the screen as a traceback, and which leaves a torn record that hides all after it.
"""

import io
import os
import platform
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

TAGS = {
    "train/loss": "train_loss",
    "train/top1": "train_top1",
    "test/loss": "test_loss",
    "test/top1": "test_top1",
    "test/top5": "test_top5",
    "lr": "lr",
    "images_per_s": "images_per_s",
    "offset/mean": "offset_mean",
    "offset/max": "offset_max",
}


class Curves:
    """An events file in `folder` that replaces what earlier ones say after `epochs_done` epochs."""

    def __init__(self, folder: Path, epochs_done: int) -> None:
        self._folder, self._epochs = folder, epochs_done
        self._path: Path | None = None

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Add the rows of metrics.csv that are not there yet, all or none. Raises OSError."""
        events = [_event(row) for row in rows[self._epochs :]]
        if self._path is None:
            step = self._epochs + 1
            events = [
                Event(step=step, wall_time=time.time(), file_version="brain.Event:2"),
                Event(step=step, session_log=SessionLog(status=SessionLog.START)),
                *events,
            ]
        self._append(events)
        self._epochs = len(rows)

    def _append(self, events: list[Event]) -> None:
        buffer = io.BytesIO()
        writer = RecordWriter(buffer)
        for event in events:
            writer.write(event.SerializeToString())
        path = self._path or self._folder / self._new_name()
        with open(path, "ab", buffering=0) as file:
            end = file.tell()
            try:
                if file.write(buffer.getbuffer()) < len(buffer.getbuffer()):
                    raise OSError(28, os.strerror(28), str(path))
            except OSError:
                file.truncate(end)
                raise
        self._path = path

    def _new_name(self) -> str:
        """Behind all others in TensorBoard's order, the alphabet, whatever the clock says."""
        stamps = [int(path.name.split(".")[3]) for path in self._folder.glob("events.out.*")]
        stamp = max([int(time.time()), *(stamp + 1 for stamp in stamps)])
        return f"events.out.tfevents.{stamp:010}.{platform.node()}.{os.getpid()}"


def _event(row: dict[str, Any]) -> Event:
    values = [
        Summary.Value(tag=tag, simple_value=row[key]) for tag, key in TAGS.items() if key in row
    ]
    return Event(step=row["epoch"], wall_time=time.time(), summary=Summary(value=values))
