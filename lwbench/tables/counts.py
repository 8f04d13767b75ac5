"""Counts of networks, kept between commands and keyed by content: only a miss needs torch."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from ..runs.cache import cached, digest
from .cells import CountRequest, Counts

Counter = Callable[[list[CountRequest]], dict[CountRequest, Counts]]


def cached_counts(
    requests: Iterable[CountRequest], conf: Path, count: Counter
) -> dict[CountRequest, Counts]:
    """The counts asked for; `count` is called once, with those that are not known yet.

    What is kept is valid for one state of the networks, their configuration files (`conf`), the
    rules and the libraries that networks come from; any change starts a new file.
    """
    by_key = {_key(request): request for request in requests}

    def make(keys: list[str]) -> dict[str, Counts]:
        return {_key(r): counts for r, counts in count([by_key[key] for key in keys]).items()}

    found = cached("counts", content_digest(conf), by_key, make)
    return {by_key[key]: counts for key, counts in found.items()}


def content_digest(conf: Path) -> str:
    """A short hash of everything that a count depends on."""
    package = Path(__file__).resolve().parent.parent
    files = [f for room in ("layers", "models", "measure") for f in (package / room).rglob("*.py")]
    files += [*(conf / "model").rglob("*.yaml"), conf / "profile.yaml"]
    return digest(sorted(files), ("torchvision", "timm"))


def _key(request: CountRequest) -> str:
    return json.dumps([*request.model, request.num_classes, request.image_size])
