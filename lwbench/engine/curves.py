"""Training curves for TensorBoard.

Written in the caller's thread: torch's SummaryWriter has one of its own, whose failure on a full
disk goes to the screen as a traceback, and which leaves a torn record that hides all after it.
"""

import io
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from ..runs.directory import Row

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
    """An events file in `folder` that takes the place of all that earlier ones say."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._epochs = folder, 0
        self._path: Path | None = None

    def write(self, rows: Sequence[Row]) -> None:
        """Add the rows of metrics.csv that are not there yet, all or none. Raises OSError."""
        events = [_event(row) for row in rows[self._epochs :]]
        if self._path is None:  # earlier files may be torn: TensorBoard drops what they hold
            start = SessionLog(status=SessionLog.START)
            version = Event(wall_time=time.time(), step=1, file_version="brain.Event:2")
            events = [version, Event(wall_time=time.time(), step=1, session_log=start), *events]
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

    def _stamps(self) -> list[int]:
        names = [path.name for path in self._folder.glob("events.out.tfevents.*")]
        return [int(stamp) for name in names if (stamp := name.split(".")[3]).isdigit()]

    def _new_name(self) -> str:
        """Behind all others in TensorBoard's order, the alphabet, whatever the clock says."""
        stamp = max([int(time.time()), *(stamp + 1 for stamp in self._stamps())])
        return f"events.out.tfevents.{stamp:010}.{platform.node()}.{os.getpid()}"


def _event(row: Row) -> Event:
    values = [
        Summary.Value(tag=tag, simple_value=row[key]) for tag, key in TAGS.items() if key in row
    ]
    return Event(step=row["epoch"], wall_time=time.time(), summary=Summary(value=values))
