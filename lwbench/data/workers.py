"""Worker threads that process files batch by batch, in an order independent of their number.

Threads rather than processes: decoding and resizing release Python's global interpreter lock, so
they scale; there is no worker process to be killed, no copy between processes, no second import of
torch.
"""

import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from ..errors import LwbenchError, UsageError, shown
from ..runs.machine import usable_cores
from .decode import BadImage, decode, fit_square, pixel_hash

BATCH = 64  # files per batch, for callers without a batch size
AHEAD = 3  # batches in progress while one is in use
# seconds without a single decoded image: a dead disk or network share rather than a slow one
PATIENCE_S = 120.0
TURNS = 12  # in which it is waited: a process that was suspended meanwhile has lost one of them
JOIN_S = 10.0  # seconds to wait for a thread's current file at the end

Paths = Sequence[Path | str]
Found = int | str  # the hash of an image, or why a file cannot be read
Result = TypeVar("Result")
Fit = Callable[[Tensor, int], Tensor]  # an image and its row in the batch to a square
Start = Callable[[Paths], tuple[Result, Callable[[int], None]]]
Tasks = queue.SimpleQueue["tuple[_Batch, int] | None"]


class _Batch(Generic[Result]):
    """A batch of files in progress, one task per row; the first exception fails the whole batch."""

    def __init__(self, paths: Paths, start: Start[Result]) -> None:
        self.paths = paths
        # memory for the result is allocated in the consumer's thread, filled by the workers
        self.result, self._work = start(paths)
        self.error: BaseException | None = None
        self.left = len(paths)
        self._changed = threading.Condition()

    def fill(self, row: int) -> None:
        try:
            self._work(row)
        except BaseException as error:  # raised again in the consumer's thread, by `wait`
            self.error = self.error or error
        with self._changed:
            self.left -= 1
            self._changed.notify()

    def wait(self, patience_s: float) -> Result:
        with self._changed:
            while self.left:
                before = self.left
                turns = (self._changed.wait(patience_s / TURNS) for _ in range(TURNS))
                if not any(turns) and self.left == before:
                    # some file of this batch: which one, nobody can say
                    raise Hanging(
                        f"no image decoded for {patience_s:g} s: {shown(self.paths[0])} or one "
                        "after it hangs\nis the disk or network share still there?"
                    )
        if self.error is not None:
            raise self.error
        return self.result


class Hanging(LwbenchError):
    """Reading a file takes longer than any disk would (exit code 1)."""


def batched(paths: Sequence[str]) -> list[Sequence[str]]:
    """Split the files into batches of `BATCH`."""
    return [paths[first : first + BATCH] for first in range(0, len(paths), BATCH)]


def decode_files(paths: Sequence[str], side: int, *, exact: bool = False) -> Tensor:
    """Decode all files to squares, (N, side, side, 3) uint8. Raises as `decoded_batches` does."""
    workers = min(8, usable_cores())
    return torch.cat(list(decoded_batches(batched(paths), side, workers=workers, exact=exact)))


def decoded_batches(
    batches: Sequence[Paths],
    side: int,
    *,
    workers: int,
    exact: bool = False,
    pinned: bool = False,
    patience_s: float | None = None,
    fits: Iterable[Fit] | None = None,
) -> Iterator[Tensor]:
    """Yield each batch of files as (B, side, side, 3) uint8, decoded ahead by `workers` threads.

    `fits`: for each batch, how an image becomes a square; without them it is the central one.
    `pinned`: in page-locked memory, for a copy to a GPU. Raises BadImage naming an unreadable file,
    UsageError naming an image of another size where `exact`, LwbenchError where no image is decoded
    for `patience_s` seconds.
    """

    def central(image: Tensor, _: int) -> Tensor:
        return fit_square(image, side)

    chosen = iter(fits) if fits is not None else itertools.repeat(central)

    def start(paths: Paths) -> tuple[Tensor, Callable[[int], None]]:
        fit = next(chosen)
        images = torch.empty(len(paths), side, side, 3, dtype=torch.uint8, pin_memory=pinned)

        def fill(row: int) -> None:
            image = decode(paths[row])
            if exact and image.shape[1:] != (side, side):
                height, width = image.shape[1:]
                raise UsageError(
                    f"{shown(paths[row])}: {width} x {height} px, where the set has {side} x "
                    f"{side}\nfor images of other sizes use data=folder"
                )
            images[row] = fit(image, row)

        return images, fill

    return in_threads(batches, start, workers=workers, patience_s=patience_s)


def examined(paths: Sequence[str], workers: int) -> Iterator[list[Found]]:
    """Decode every file; yield, in batches, each one's pixel hash or why it is unreadable."""

    def start(batch: Paths) -> tuple[list[Found], Callable[[int], None]]:
        found: list[Found] = [0] * len(batch)

        def look(row: int) -> None:
            try:
                found[row] = pixel_hash(decode(batch[row]))
            except BadImage as bad:
                found[row] = bad.reason

        return found, look

    return in_threads(batched(paths), start, workers=workers)


def in_threads(
    batches: Sequence[Paths],
    start: Start[Result],
    *,
    workers: int,
    patience_s: float | None = None,
) -> Iterator[Result]:
    """Yield the result of each batch, in order, once every row of it has been processed.

    `start(paths)` returns (result, work); `workers` threads call `work(row)` for every row, up to
    `AHEAD` batches ahead of the caller. With 0 workers the caller's own thread does. Raises what
    `work` raises, LwbenchError where no row is finished for `patience_s` seconds.
    """
    tasks: Tasks = queue.SimpleQueue()
    stop = threading.Event()

    def serve() -> None:
        while (task := tasks.get()) is not None and not stop.is_set():
            batch, row = (
                task  # files rather than batches, so that one slow file holds up one thread
            )
            batch.fill(row)

    # daemon threads: a read that hangs must not keep the process from ending
    threads = [threading.Thread(target=serve, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    hanging = False
    try:
        yield from _in_order(batches, start, patience_s or PATIENCE_S, tasks if workers else None)
    except Hanging:
        hanging = True
        raise
    finally:
        stop.set()
        for _ in threads:
            tasks.put(None)
        if not hanging:
            # a thread that is still decoding while the interpreter shuts down can crash it
            for thread in threads:
                thread.join(JOIN_S)


def _in_order(
    batches: Sequence[Paths],
    start: Start[Result],
    patience_s: float,
    tasks: Tasks | None,
) -> Iterator[Result]:
    started: deque[_Batch[Result]] = deque()
    for paths in batches:
        batch = _Batch(paths, start)
        for row in range(len(paths)):
            if tasks is None:
                batch.fill(row)
            else:
                tasks.put((batch, row))
        started.append(batch)
        # a batch ahead of the caller costs its memory: no more than AHEAD of them
        if len(started) > (0 if tasks is None else AHEAD):
            yield started.popleft().wait(patience_s)
    while started:
        yield started.popleft().wait(patience_s)
