"""Counts of networks, kept between commands and keyed by content: only a miss needs torch."""

import hashlib
import json
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .folders import cache_home
from .results.tables import CountRequest, Counts
from .runs import read_json, write_json

Counter = Callable[[list[CountRequest]], dict[CountRequest, Counts]]


def cached_counts(
    requests: Iterable[CountRequest], conf: Path, count: Counter
) -> dict[CountRequest, Counts]:
    """The counts asked for; `count` is called once, with those that are not known yet.

    What is kept is valid for one state of the networks, their configuration files (`conf`), the
    rules and the libraries that networks come from; any change starts a new file.
    """
    requests = list(dict.fromkeys(requests))
    path = cache_home() / f"counts-{content_digest(conf)}.json"
    known = read_json(path) or {}
    missing = [request for request in requests if _key(request) not in known]
    if missing:
        known |= {_key(request): counts for request, counts in count(missing).items()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, known)
        except OSError:
            pass  # a cache that cannot be written costs time, not a result
    return {r: known[_key(r)] for r in requests if _key(r) in known}


def content_digest(conf: Path) -> str:
    """A short hash of everything that a count depends on."""
    package = Path(__file__).resolve().parent
    files = [f for room in ("layers", "models", "measure") for f in (package / room).rglob("*.py")]
    digest = hashlib.sha256()
    for path in sorted([*files, *(conf / "model").rglob("*.yaml"), conf / "profile.yaml"]):
        digest.update(path.name.encode() + path.read_bytes())
    for library in ("torchvision", "timm"):
        digest.update(f"{library} {_version(library)}".encode())
    return digest.hexdigest()[:16]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _key(request: CountRequest) -> str:
    return json.dumps([*request.model, request.num_classes, request.image_size])
