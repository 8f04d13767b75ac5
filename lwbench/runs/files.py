"""Atomic files: neither a reader nor a crash ever sees half of one."""

import glob
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import LwbenchError
from .lease import check_held


@contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Open a file, also for reading, that replaces `path` when the block ends without an error.

    What stood at `path` moves to `previous`, if given. Raises OSError, and LeaseLost in a run
    directory that another process has taken over, with `path` as it was.
    """
    # named after the process: two that write without a lock must not share a partial file
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "w+b") as file:
            yield file
            file.flush()
            # the content must be on the disk before its name is, or a power cut leaves it empty
            os.fsync(file.fileno())
        # Checked when the partial file is complete: whoever takes the directory over later than
        # this removes that file, so that the step below fails.
        check_held(path)
        if previous and path.exists():
            os.replace(path, previous)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path` by text or bytes in one step. Raises OSError, with `path` as it was."""
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    with replacing(path) as file:
        file.write(data)


def remove_partial(path: Path) -> None:
    """Remove what killed processes left of their attempts to write `path`. Needs its lock."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        part.unlink(missing_ok=True)


@contextmanager
def explained_writes(where: Path) -> Iterator[None]:
    """Turn a failed write within the block into a LwbenchError that says what to do."""
    try:
        yield
    except OSError as error:
        raise LwbenchError(
            f"cannot write to {where}: {error.strerror or error}\n"
            "nothing written before is lost: free some space, then the same command continues"
        ) from None


def write_json(path: Path, content: Any) -> None:
    """Replace `path` by `content` as JSON. Raises OSError, with `path` as it was."""
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the mapping in `path`, or None where the file is missing or damaged."""
    try:
        content = json.loads(path.read_text("utf-8", "surrogateescape"))
    except (OSError, ValueError, RecursionError):  # the last: nested too deeply
        return None
    return content if isinstance(content, dict) else None
