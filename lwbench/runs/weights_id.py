"""What stands for weights in a run's identity: a file's digest, or the tag of public weights."""

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import UsageError, shown

TAG = re.compile(r"(torchvision|timm):(\S+)")
DIGITS = 16  # hex digits of a file's sha256 that identify it


def tag_of(weights: str) -> tuple[str, str] | None:
    """Library and name of public weights (`timm:resnet18.a1_in1k`); None for a file or folder."""
    found = TAG.fullmatch(weights)
    return (found[1], found[2]) if found else None


def file_of(weights: str) -> Path:
    """The file of weights: itself, or the last weights of a run directory.

    Raises UsageError where there is none.
    """
    path = Path(weights)
    if path.is_dir():
        last = path / "checkpoints" / "last.pt"
        if not last.is_file():
            raise UsageError(
                f"weights={shown(weights)}: a folder without checkpoints/last.pt, so not a run "
                "directory with its weights\ngive a file (.pt, .pth, .safetensors), a run "
                "directory, torchvision:<weights> or timm:<network>.<tag>"
            )
        return last
    if not path.is_file():
        raise UsageError(f"no checkpoint at {shown(weights)}")
    return path


def identity_of(weights: str) -> str:
    """`sha256:<16 digits>` of a file's content, or the tag of public weights.

    Raises UsageError where the file is missing or cannot be read.
    """
    if tag_of(weights):
        return weights
    path = file_of(weights)
    try:
        stat = path.stat()
        return _digest(path.resolve(), stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise UsageError(f"weights={shown(weights)}: {error.strerror}") from None


def with_weights_id(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add `weights_id` to a configuration with `weights`, and return it.

    Raises UsageError as `identity_of` does, and for `weights_partial` without weights.
    """
    if weights := values.get("weights"):
        return {**values, "weights_id": identity_of(weights)}
    if values.get("weights_partial"):
        raise UsageError("weights_partial has no effect without weights=<file, run or public tag>")
    return values


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, time_ns: int) -> str:
    # size and time are part of the key, so that a changed file is read again
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:DIGITS]}"
