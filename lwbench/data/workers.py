"""Files worked on by threads, batch by batch, in an order that no number of threads can change.

Threads rather than processes: decoding and resizing run outside Python's lock, so they scale, and
there is no worker process to be killed, no copy between processes and no second import of torch.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import LwbenchError, shown
from .decode import decode, fit_square

BATCH = 64  # files, where nobody asks for another number
AHEAD = 3  # batches under way while one is used
PATIENCE_S = 120.0  # without a single image done: a dead disk or network share, not a slow one

Paths = Sequence[Path | str]
Result = TypeVar("Result")
Start = Callable[[Paths], tuple[Result, Callable[[int], None]]]


class _Batch:
    """Files under work, a row each; who fails, fails for all."""

    def __init__(self, paths: Paths, start: Start) -> None:
        self.paths = paths
        self.result, self._work = start(paths)
        self.error: BaseException | None = None
        self.left = len(paths)
        self._changed = threading.Condition()

    def fill(self, row: int) -> None:
        try:
            self._work(row)
        except BaseException as error:  # raised again where the batch is asked for
            self.error = self.error or error
        with self._changed:
            self.left -= 1
            self._changed.notify()

    def wait(self, patience_s: float) -> object:
        with self._changed:
            while self.left:
                before = self.left
                self._changed.wait(patience_s)
                if self.left == before:
                    raise LwbenchError(
                        f"no image decoded for {patience_s:g} s: {shown(self.paths[0])} or one "
                        "after it hangs\nis the disk or network share still there?"
                    )
        if self.error is not None:
            raise self.error
        return self.result


def batched(paths: Sequence[str]) -> list[Sequence[str]]:
    """The files in batches, as the threads take them."""
    return [paths[first : first + BATCH] for first in range(0, len(paths), BATCH)]


def decoded_batches(
    batches: Sequence[Paths],
    side: int,
    *,
    workers: int,
    pinned: bool = False,
    patience_s: float | None = None,
) -> Iterator[Tensor]:
    """Each batch of files as (B, side, side, 3) uint8, decoded ahead by `workers` threads.

    `pinned`: in page-locked memory, for a copy to a GPU. Raises BadImage naming a file that is no
    image, LwbenchError where nothing moves.
    """

    def start(paths: Paths) -> tuple[Tensor, Callable[[int], None]]:
        images = torch.empty(len(paths), side, side, 3, dtype=torch.uint8, pin_memory=pinned)

        def fill(row: int) -> None:
            images[row] = fit_square(decode(paths[row]), side)

        return images, fill

    return in_threads(batches, start, workers=workers, patience_s=patience_s)


def in_threads(
    batches: Sequence[Paths],
    start: Start[Result],
    *,
    workers: int,
    patience_s: float | None = None,
) -> Iterator[Result]:
    """What `start` gives for each batch, once its second part has been called for every row.

    `start(paths)` returns (result, work); `workers` threads call `work(row)` some batches ahead,
    with none the caller's thread does. Raises what `work` raises, LwbenchError where nothing moves.
    """
    tasks: queue.SimpleQueue = queue.SimpleQueue()
    stop = threading.Event()

    def serve() -> None:
        while (task := tasks.get()) is not None and not stop.is_set():
            task[0].fill(task[1])

    # daemons: a read that hangs must not keep the process from ending
    threads = [threading.Thread(target=serve, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield from _in_order(batches, start, patience_s or PATIENCE_S, tasks if workers else None)
    finally:
        stop.set()
        for _ in threads:
            tasks.put(None)


def _in_order(
    batches: Sequence[Paths],
    start: Start[Result],
    patience_s: float,
    tasks: queue.SimpleQueue | None,
) -> Iterator[Result]:
    started: deque[_Batch] = deque()
    for paths in batches:
        batch = _Batch(paths, start)
        for row in range(len(paths)):
            tasks.put((batch, row)) if tasks else batch.fill(row)
        started.append(batch)
        if len(started) > (AHEAD if tasks else 0):
            yield started.popleft().wait(patience_s)
    while started:
        yield started.popleft().wait(patience_s)
