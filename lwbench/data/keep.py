"""What is kept on disk for the next start: by one process at a time, whole or absent."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from ..paths import cache_home

log = logging.getLogger("lwbench")


def keeping_folder(cache: str | None) -> Path:
    """The folder that `data.cache` names, or the user's one."""
    return Path(os.path.expanduser(cache)) if cache else cache_home()


@contextmanager
def exclusive(path: Path) -> Iterator[OSError | None]:
    """Hold `path` for this process, waiting for another one that does; it need not exist.

    Yields what is wrong where the folder cannot be written: then nobody can be kept out of it.
    """
    lock = FileLock(f"{path}.lock")
    problem = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            log.warning("%s: waiting for another process that writes it", path)
            lock.acquire()
    except OSError as error:
        problem = error
    try:
        yield problem
    finally:
        lock.release()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` at the end; to be used by one process at once.

    What a killed process has left of it is written over. Raises OSError.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def not_kept(path: Path, problem: OSError, consequence: str) -> None:
    """Say that a file is not kept, why, and what follows from it."""
    log.warning("%s: not kept (%s), %s", path, problem.strerror or problem, consequence)
