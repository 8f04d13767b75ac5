"""Checkpoints: tensors and plain data, whole or refused, read without running pickled code.

torch notices neither a flipped bit nor, always, a cut. So the file carries a sha256 of itself, in
the one place that a zip archive, which is what torch writes, has for a text: the comment at its
end. It stays one file, moved into place in one step, that torch.load and unzip read as any other.
"""

import hashlib
import io
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import DamagedError, UsageError
from ..runs.files import write_atomically

log = logging.getLogger("lwbench")
_END = b"PK\5\6"  # a zip archive's last record: 22 bytes, the last two of them the comment's length
_COMMENT = 7 + 64  # "sha256:" and as many digits


def packed(state: dict[str, Any]) -> bytes:
    """`state` (tensors, numbers, text, lists, mappings) as a file's content, digest included."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    archive = buffer.getvalue()[:-2] + _COMMENT.to_bytes(2, "little")
    return archive + _digest(archive)


def save(path: Path, content: bytes, previous: Path | None = None) -> None:
    """Write what `packed` made to `path` in one step; what stood there moves to `previous`."""
    write_atomically(path, content, previous)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint, ours or another tool's, onto the CPU.

    Raises UsageError where it is missing, DamagedError where it is damaged or not plain data.
    """
    try:
        content = path.read_bytes()
        _check_digest(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UsageError(f"no checkpoint at {path}") from None
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedError(f"{path} is not a readable checkpoint: {reason[:200]}") from None
    if not isinstance(state, dict):
        raise DamagedError(f"{path} is not a checkpoint: it holds a {type(state).__name__}")
    return state


def load_newest(last: Path, previous: Path) -> dict[str, Any] | None:
    """The last checkpoint, or the one before it where the last is damaged; None without any.

    The one before then takes the damaged one's place, or the next save would put that in its own.
    Raises DamagedError where neither can be read.
    """
    if not last.exists() and not previous.exists():
        return None
    try:
        return load(last)
    except UsageError as error:
        if not previous.exists():
            raise DamagedError(f"{error}\nnone before it: force=true starts over") from None
        state = load(previous)
        log.warning("%s; going on from the one before it", error)
        previous.replace(last)
        return state


def _digest(archive: bytes) -> bytes:
    return b"sha256:" + hashlib.sha256(archive).hexdigest().encode()


def _check_digest(content: bytes) -> None:
    """Raises ValueError for an archive that was cut or changed. Other tools' have no digest."""
    if not content.startswith(b"PK"):
        return
    end = content.rfind(_END) + 22
    if end < 22 or len(content) != end + int.from_bytes(content[end - 2 : end], "little"):
        raise ValueError("it is cut off")
    if content[end:] not in (b"", _digest(content[:end])):
        raise ValueError("its digest does not match its content")


def weights(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The network's weights in a checkpoint of ours, of other tools, or in a bare state dict."""
    for key in ("model", "state_dict"):
        if isinstance(state.get(key), dict):
            state = state[key]
            break
    prefixes = ("module.", "_orig_mod.")
    return {_without(str(key), prefixes): value for key, value in state.items()}


def _without(key: str, prefixes: tuple[str, ...]) -> str:
    for prefix in prefixes:
        key = key.removeprefix(prefix)
    return key


def load_weights(model: nn.Module, state: dict[str, Any], where: Path) -> None:
    """Put a checkpoint's weights into `model`. Raises UsageError as `check_fits` does."""
    check_fits(model, state, where)
    model.load_state_dict(weights(state))


def check_fits(model: nn.Module, state: dict[str, Any], where: Path) -> None:
    """Raises UsageError naming what differs: a class count, or the first key or shape that does."""
    given, own = weights(state), model.state_dict()
    for key in own.keys() & given.keys():
        ours, theirs = own[key].shape, getattr(given[key], "shape", None)
        if ours == theirs:
            continue
        if theirs and ours[1:] == theirs[1:]:
            raise UsageError(
                f"{where} is of a network with {theirs[0]} classes or channels at {key!r}, "
                f"this one has {ours[0]}; choose the model and data it was trained with"
            )
        raise UsageError(f"{where}: {key!r} has shape {theirs}, this network needs {tuple(ours)}")
    if missing := sorted(own.keys() - given.keys()):
        raise UsageError(
            f"{where} is of another network: it has no {missing[0]!r} ({len(missing)} are missing)"
        )
    if extra := sorted(given.keys() - own.keys()):
        raise UsageError(
            f"{where} is of another network: it has {extra[0]!r} too ({len(extra)} extra keys)"
        )
