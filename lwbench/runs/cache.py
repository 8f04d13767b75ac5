"""What is dear to make and a pure function of its request: kept between commands, by content."""

import hashlib
import json
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..paths import cache_home
from .files import read_json, write_json


def cached(
    name: str, keys: Iterable[str], make: Callable[[list[str]], dict[str, Any]]
) -> dict[str, Any]:
    """Plain data by key, from the file `name` in the user's cache.

    `make` is called once, with the keys that are not in it; a key that it leaves out stays unknown.
    """
    keys = list(dict.fromkeys(keys))
    path = cache_home() / f"{name}.json"
    known = read_json(path) or {}
    if missing := [key for key in keys if key not in known]:
        known |= json.loads(json.dumps(make(missing)))  # the same types, fresh or read back
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, known)
        except OSError:
            pass  # a cache that cannot be written costs time, not a result
    return {key: known[key] for key in keys if key in known}


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
