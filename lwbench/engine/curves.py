"""Training curves for TensorBoard.

Written in the caller's thread. torch's SummaryWriter writes in a thread of its own: where the disk
is full it prints a traceback, and leaves a torn record that hides all that follow it.
"""

import errno
import io
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from ..runs.schema import Row

# Tag -> column of metrics.csv. TensorBoard groups plots by what is before the slash.
TAGS = {
    "train/loss": "train_loss",
    "train/top1": "train_top1",
    "test/loss": "test_loss",
    "test/top1": "test_top1",
    "test/top5": "test_top5",
    "raw/loss": "raw_test_loss",
    "raw/top1": "raw_test_top1",
    "raw/top5": "raw_test_top5",
    "lr": "lr",
    "images_per_s": "images_per_s",
    "offset/mean": "offset_mean",
    "offset/max": "offset_max",
}


class Curves:
    """Writes an events file in `folder` that replaces, for TensorBoard, those of earlier starts."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._epochs = folder, 0  # epochs that are in the file
        self._path: Path | None = None

    def write(self, rows: Sequence[Row]) -> None:
        """Add the rows of metrics.csv that are not there yet, all or none. Raises OSError."""
        events = [_event(row) for row in rows[self._epochs :]]
        if self._path is None:
            # An earlier file may be torn, or hold epochs that a resumed run trains again. A START
            # makes TensorBoard drop all that earlier files say of this step and later ones.
            start = SessionLog(status=SessionLog.START)
            version = Event(wall_time=time.time(), step=1, file_version="brain.Event:2")
            events = [version, Event(wall_time=time.time(), step=1, session_log=start), *events]
        self._append(events)
        # only now: what could not be written is written with the next epoch
        self._epochs = len(rows)

    def _append(self, events: Sequence[Event]) -> None:
        buffer = io.BytesIO()
        writer = RecordWriter(buffer)
        for event in events:
            writer.write(event.SerializeToString())
        content = buffer.getbuffer()
        path = self._path or self._folder / self._new_name()
        # unbuffered: a full disk is noticed here, where the file can be cut back to whole records
        with open(path, "ab", buffering=0) as file:
            end = file.tell()
            try:
                if file.write(content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            except OSError:
                file.truncate(end)
                raise
        self._path = path

    def _new_name(self) -> str:
        """Return a name behind all others in TensorBoard's order, which is alphabetical.

        Names hold a time; where the clock was set back, the newest one's successor is taken.
        """
        names = (path.name.split(".")[3] for path in self._folder.glob("events.out.tfevents.*"))
        stamp = max([int(time.time()), *(int(name) + 1 for name in names if name.isdigit())])
        return f"events.out.tfevents.{stamp:010}.{platform.node()}.{os.getpid()}"


def _event(row: Mapping[str, Any]) -> Event:
    values = [
        Summary.Value(tag=tag, simple_value=row[key]) for tag, key in TAGS.items() if key in row
    ]
    return Event(step=row["epoch"], wall_time=time.time(), summary=Summary(value=values))
