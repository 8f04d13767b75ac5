"""On-disk cache for expensive, deterministic results."""

import hashlib
import json
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..paths import cache_home
from .files import read_json, write_json

MAX_ENTRIES = 50_000  # of one file; the oldest are dropped
MAX_FILES = 8  # of one name, one per state of what the results depend on; the oldest are removed


def cached(
    name: str, state: str, keys: Iterable[str], make: Callable[[list[str]], dict[str, Any]]
) -> dict[str, Any]:
    """Plain data by key, from the file of `name` in the user's cache.

    `state`: a digest of everything that the results depend on; another state has another file.
    `make` is called once, with the keys that are not cached; a key that it leaves out is not in the
    result.
    """
    keys = list(dict.fromkeys(keys))
    path = cache_home() / f"{name}-{state}.json"
    known = read_json(path) or {}
    if missing := [key for key in keys if key not in known]:
        known |= json.loads(json.dumps(make(missing)))  # the same types, fresh or read back
        kept = dict(list(known.items())[-max(MAX_ENTRIES, len(keys)) :])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, kept)
            _remove_oldest(path.parent, name)
        except OSError:
            pass  # without a cache the next command takes longer; its result is the same
    return {key: known[key] for key in keys if key in known}


def _remove_oldest(folder: Path, name: str) -> None:
    files = sorted(folder.glob(f"{name}-*.json"), key=lambda path: path.stat().st_mtime)
    for path in files[:-MAX_FILES]:
        path.unlink(missing_ok=True)


def digest(files: Iterable[Path], libraries: Iterable[str]) -> str:
    """A short hash of files, in the given order, and of installed versions."""
    content = hashlib.sha256()
    for path in files:
        content.update(path.name.encode() + path.read_bytes())
    for library in libraries:
        content.update(f"{library} {_version(library)}".encode())
    return content.hexdigest()[:16]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
