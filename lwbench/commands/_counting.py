"""Counts of networks, cached by content; torch is loaded for those that are in no cache."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..config import command_values
from ..errors import UsageError
from ..logs import log
from ..paths import conf_files, conf_folder
from ..registry import MODELS
from ..runs.cache import cached, digest
from ..runs.network_file import digests
from ..runs.sources import allow, check_allowed, read_sources
from ..tables.cells import CountRequest, Counts

Counter = Callable[[list[CountRequest]], dict[CountRequest, Counts]]


def cached_counts(requests: Iterable[CountRequest], count: Counter) -> dict[CountRequest, Counts]:
    """The requested counts; `count` is called once, with those that are not cached.

    A cache is valid for one state of the networks, their configuration files, the rules
    and the libraries that networks come from; any change starts a new file.
    """
    by_key = {_key(request): request for request in requests}

    def make(keys: list[str]) -> dict[str, Counts]:
        return {_key(r): counts for r, counts in count([by_key[key] for key in keys]).items()}

    found = cached("counts", content_digest(), by_key, make)
    return {by_key[key]: counts for key, counts in found.items()}


def content_digest() -> str:
    """A short hash of everything that a count depends on."""
    package = Path(__file__).resolve().parent.parent
    names = ("layers", "models", "measure", "deploy")
    files = [path for name in names for path in (package / name).rglob("*.py")]
    files += [*conf_files("model").values(), conf_folder() / "profile.yaml"]
    return digest(sorted(files), ("torchvision", "timm", *MODELS.packages()))


def _key(request: CountRequest) -> str:
    key = [*request.model, request.num_classes, request.image_size]
    key += ["deploy"] if request.is_deployed else []
    return json.dumps([*key, *digests(request.model)])


def counted(
    requests: Sequence[CountRequest], *, trust_code: bool = False
) -> dict[CountRequest, Counts]:
    """Parameters, and MACs under each rule, of the requested networks.

    A network that cannot be counted is left out with a warning, so that it costs a table one cell.
    `trust_code`: whether code of networks in files of the user's, which a table names, may run.
    """
    jobs = [
        [*r.model, f"num_classes={r.num_classes}", f"image_size={r.image_size}"] for r in requests
    ]
    found = command_values("profile", jobs)
    counts = {}
    for request, (values, _) in zip(requests, found, strict=True):
        try:
            if trust_code:
                allow(values["model"])
            counts[request] = _counts(values, request.is_deployed)
        except UsageError as error:
            log.warning("no count of %s: %s", " ".join(request.model), error)
    return counts


def counts_of(
    model: Mapping[str, Any], num_classes: int, image_size: int, *, is_deployed: bool = False
) -> Counts | None:
    """Counts of a network that is given by builder and arguments; None if it cannot be counted."""

    def make(keys: list[str]) -> dict[str, Any]:
        values = {"model": dict(model), "num_classes": num_classes, "image_size": image_size}
        try:
            return {keys[0]: _counts(values, is_deployed)}
        except UsageError as error:
            log.warning("no count: %s", error)
            return {}

    key = json.dumps([model, num_classes, image_size, is_deployed], sort_keys=True)
    found: Counts | None = cached("counts", content_digest(), [key], make).get(key)
    return found


def counter(keys: Mapping[str, str]) -> Counter:
    """`counted` for a command with the key `trust_code`."""
    return partial(counted, trust_code=keys.get("trust_code") == "true")


def check_trusted(group: Mapping[str, Any], keys: Mapping[str, str]) -> None:
    """Raise UsageError where a run would need the code of a file that the command does not name."""
    if keys.get("trust_code") == "true":
        allow(group)
    if group.get("builder") == "file":
        check_allowed(read_sources(Path(group["path"])))


def _counts(values: dict[str, Any], is_deployed: bool) -> Counts:
    from ..deploy.fuse import fuse
    from ..measure.complexity import count
    from ..measure.data_free import measured
    from ..registry import MODELS

    spec, size = MODELS.spec(values["model"]), values["image_size"]
    cost = measured(
        lambda: spec.build(values["num_classes"]),
        lambda model: count(
            fuse(model, image_size=size) if is_deployed else model, image_size=size
        ),
    )
    return {
        "params": cost.params,
        "macs": cost.macs,
        "pointwise": cost.pointwise,
        "depthwise": cost.depthwise,
        "activations": cost.activations,
    }
