"""Checkpoints: tensors and plain data, complete or refused, read without running pickled code.

torch notices neither a flipped bit nor, always, a truncated file. So each file carries its sha256
in the one place that a zip archive, which is what torch writes, has for text: the comment at its
end.
It stays a single file, replaced in one step, that torch.load and unzip read as any other.
"""

import hashlib
import logging
import os
import re
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
import torch

from ..errors import DamagedError, UsageError
from ..runs.files import replacing

log = logging.getLogger("lwbench")
_END = b"PK\5\6"  # a zip archive's last record: 22 bytes, the last two of them the comment's length
_LONGEST_END = 22 + 0xFFFF  # with the longest comment
_PIECE = 1 << 20  # bytes read at once
_COMMENT = 7 + 64  # "sha256:" and as many digits


def save(path: Path, state: dict[str, Any], previous: Path | None = None) -> None:
    """Write `state` (tensors, numbers, text, lists, mappings) to `path` in one step.

    What stood at `path` moves to `previous`, if given. No copy of the tensors is made in memory.
    Raises OSError, with `path` as it was.
    """
    with replacing(path, previous) as file:
        archive = _Archive(file)
        # torch.save calls nothing but write and flush
        torch.save(state, cast(IO[bytes], archive))
        archive.close()


class _Archive:
    """The file that torch.save writes a zip archive to; adds the archive's digest as a comment."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest = file, hashlib.sha256()
        # The archive ends with the length of its comment, which torch writes as 0. The digest
        # covers the length, so the last two bytes are held back until the archive is complete.
        self._held = b""
        self._error: BaseException | None = None

    def write(self, data: bytes | memoryview) -> int:
        """Take the next bytes of the archive. Errors are raised by `close`."""
        # The caller is C++ code, which answers an exception by writing the rest of the archive and
        # raises another error, without the reason: so errors are kept for `close`.
        if self._error is None:
            try:
                self._take(memoryview(data).cast("B"))
            except BaseException as error:
                self._error = error
        return len(data)

    def flush(self) -> None:
        """Do nothing; the file is flushed when it is complete."""

    def close(self) -> None:
        """Write the end and the digest. Raises the error that ended writing."""
        if self._error is not None:
            raise self._error
        self._emit(_COMMENT.to_bytes(2, "little"))
        self._file.write(_comment(self._digest))

    def _take(self, piece: memoryview) -> None:
        if len(piece) < 2:
            piece = memoryview(self._held + piece)
        else:
            # as nearly always: a tensor comes as one piece, and is not copied
            self._emit(self._held)
        self._emit(piece[:-2])
        self._held = bytes(piece[-2:])

    def _emit(self, piece: bytes | memoryview) -> None:
        self._digest.update(piece)
        self._file.write(piece)


def load(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, ours or another tool's, on the CPU.

    Raises UsageError where it is missing, DamagedError where it is damaged or not plain data.
    """
    try:
        with open(path, "rb") as file:
            _check_digest(file)
            file.seek(0)
            # weights_only: tensors and plain data; pickled code would run as soon as it is read
            with torch.serialization.safe_globals(_NUMPY_NUMBERS):
                state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"no checkpoint at {path}") from None
    except Exception as error:  # torch raises exceptions of many types for damaged files
        raise DamagedError(_unreadable(path, error)) from None
    if not isinstance(state, dict):
        raise DamagedError(f"{path} is not a checkpoint: it holds a {type(state).__name__}")
    return state


def load_newest(last: Path, previous: Path) -> dict[str, Any] | None:
    """Return the last checkpoint, or the previous one where the last is damaged; None without any.

    Raises DamagedError where neither can be read.
    """
    if not last.exists() and not previous.exists():
        return None
    try:
        return load(last)
    except UsageError as error:
        problem = error
    try:
        state = load(previous)
    except UsageError:
        raise DamagedError(
            f"{problem}\nthere is no readable one before it; to train this run from the beginning, "
            f"delete {last.parent}"
        ) from None
    log.warning("%s; resuming from the checkpoint before it", problem)
    # or the next save would move the damaged file there, and leave no good one for a while
    previous.replace(last)
    return state


def _check_digest(file: BinaryIO) -> None:
    """Raise ValueError for an archive that was truncated or changed after it was written."""
    # files of old versions of torch are not archives
    if file.read(2) != b"PK":
        return
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - _LONGEST_END))
    tail = file.read()
    # behind this record there is nothing but the comment: anything else, or less, is damage
    found = tail.rfind(_END)
    length, comment = tail[found + 20 : found + 22], tail[found + 22 :]
    if found < 0 or len(comment) != int.from_bytes(length, "little"):
        raise ValueError("it is truncated")
    # other tools write no comment
    if not comment:
        return
    file.seek(0)
    digest, left = hashlib.sha256(), start + found + 22
    while left > 0:
        piece = file.read(min(left, _PIECE))
        digest.update(piece)
        # nothing is read where the file has become shorter meanwhile
        left -= len(piece) or left
    if comment != _comment(digest):
        raise ValueError("its digest does not match its content")


def _comment(digest: "hashlib._Hash") -> bytes:
    return b"sha256:" + digest.hexdigest().encode()


def _unreadable(path: Path, error: Exception) -> str:
    """Say why a file is no checkpoint; of objects that only code in it could restore, which."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # torch colours parts of its messages
    if found := re.search(r"GLOBAL ([\w.]+)|Unsupported (?:class|global): ([\w.]+)", text):
        name = found[1] or found[2]
        return (
            f"{path} holds an object of type {name}, which could only be read by running code from "
            "the file\nwhere it was written, save the weights alone: "
            'torch.save(model.state_dict(), "weights.pt")'
        )
    reason = text.splitlines()[0] if text else type(error).__name__
    return f"{path} is not a readable checkpoint: {reason[:200]}"


def _number(dtype: np.dtype, content: bytes) -> float | int | bool:
    """A NumPy scalar, which many tools store beside the weights, as a plain number."""
    if dtype.kind not in "iufb":
        raise ValueError(f"a NumPy scalar of type {dtype}")
    value: float | int | bool = np.frombuffer(content, dtype)[0].item()
    return value


# What torch.load may call for a NumPy scalar: the function above, and NumPy's numeric types, which
# hold a size and a byte order.
_NUMPY_NUMBERS: list[Any] = [
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(code)) for code in "?bBhHiIlLqQefd"},
]
