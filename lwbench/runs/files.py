"""Atomic files: a reader or a crash never sees half of one."""

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import LwbenchError


def write_atomically(path: Path, content: str | bytes, previous: Path | None = None) -> None:
    """Replace `path` in one step, so that a reader or a crash never sees half a file.

    What stood there moves to `previous`, if given. Raises OSError, with `path` as it was.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if previous and path.exists():
            os.replace(path, previous)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def explained_writes(where: Path):
    """Within it, a write that fails is a LwbenchError that says what to do."""
    try:
        yield
    except OSError as error:
        raise LwbenchError(
            f"cannot write to {where}: {error.strerror or error}\n"
            "nothing written before is lost: make room, and the same command goes on"
        ) from None


def write_json(path: Path, content: Any) -> None:
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The mapping in `path`, or None where the file is missing or damaged."""
    try:
        content = json.loads(path.read_text("utf-8", "surrogateescape"))
    except (OSError, ValueError, RecursionError):  # the last: nested too deeply
        return None
    return content if isinstance(content, dict) else None
