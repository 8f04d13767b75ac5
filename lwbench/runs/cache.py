"""On-disk cache for expensive, deterministic results, shared by all processes of a user."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..paths import cache_home
from .files import read_json, remove_partial, write_json
from .provenance import installed_version

log = logging.getLogger("lwbench")

AUTO, OFF = "auto", (None, "false")  # values of a `cache` key that are no folder
MAX_ENTRIES = 5_000  # of one file, about 20 MB of configurations; the oldest are dropped
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
    if all(key in known for key in keys):
        return {key: known[key] for key in keys}
    with exclusive(path) as problem:
        known = read_json(path) or {}  # another process may have been faster
        if missing := [key for key in keys if key not in known]:
            known |= json.loads(json.dumps(make(missing)))  # the same types, fresh or read back
            if problem is None:
                _write(path, name, known, max(MAX_ENTRIES, len(keys)))
    return {key: known[key] for key in keys if key in known}


def _write(path: Path, name: str, known: dict[str, Any], most: int) -> None:
    try:
        write_json(path, dict(list(known.items())[-most:]))
        files = sorted(path.parent.glob(f"{name}-*.json"), key=lambda file: file.stat().st_mtime)
        for file in files[:-MAX_FILES]:
            file.unlink(missing_ok=True)
    except OSError:
        pass  # without a cache the next command takes longer; its result is the same


def cache_folder(cache: str | None) -> Path:
    """Return the folder that a `cache` key names, or the user's cache."""
    return cache_home() if cache in (AUTO, *OFF) else Path(os.path.expanduser(str(cache)))


@contextmanager
def exclusive(path: Path) -> Iterator[OSError | None]:
    """Lock `path`, which need not exist, for this process, waiting for other processes.

    Yields the error where the folder cannot be written: then no lock can be held, and nothing can
    be cached.
    """
    lock = FileLock(f"{path}.lock")
    problem = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            # decoding a large set takes minutes: say why nothing happens
            log.warning("%s: waiting for another process that writes it", path)
            lock.acquire()
        remove_partial(path)
    except OSError as error:
        problem = error
    try:
        yield problem
    finally:
        lock.release()


def warn_not_cached(path: Path, problem: OSError, consequence: str) -> None:
    """Warn that a file is not cached, why, and what follows from it."""
    log.warning("%s: not cached (%s), %s", path, problem.strerror or problem, consequence)


def digest(files: Iterable[Path], libraries: Iterable[str]) -> str:
    """Return a short hash of files, in the given order, and of installed versions."""
    content = hashlib.sha256()
    for path in files:
        content.update(path.name.encode() + path.read_bytes())
    for library in libraries:
        content.update(f"{library} {installed_version(library)}".encode())
    return content.hexdigest()[:16]
