"""Records of weights that were trained elsewhere and evaluated here, beside those of runs.

`eval weights=` writes one as `<out>/<data>/<model>/evaluated-<id>.json` where it evaluated all test
images of a published data set. Tables show the figure in a field of its own: nothing was trained.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import JsonValue, ValidationError

from .files import explained_writes, read_json, write_json
from .identity import identifying_keys
from .images import unlike_published_tests
from .records import ARCHIVE
from .runconfig import Overrides, RunConfig
from .schema import Images, Positive, Start, Tested, Text, Time
from .weights_id import tag_of

log = logging.getLogger("lwbench")


class Evaluated(Tested):
    """What given weights of a network reached on the test images of a data set.

    `network`: builder and arguments; `weights`: the tag of public weights, or the digest of the
    file `file`; `steps`: how images were prepared, "" as in training; `image_size`: of the
    network's input, px; `start`: code, versions, machine and command.
    """

    model: Text
    network: dict[Text, JsonValue]
    data: Text
    images: Images
    weights: Text
    file: Text | None = None
    steps: Text = ""
    image_size: Positive
    precision: Text
    start: Start = Start()
    evaluated: Time

    @property
    def id(self) -> str:
        """Eight hex digits of what can change the figures."""
        facts = [self.key, self.weights, self.steps, self.precision]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def key(self) -> str:
        """The data set, network and input size, which decide on the cells that it belongs to."""
        return _key(self.data, self.network, self.image_size)

    @property
    def whose(self) -> str:
        """`public weights <tag>`, or which file's."""
        if tag_of(self.weights):
            return f"public weights {self.weights}"
        return f"weights of {self.file} ({self.weights})"

    def text(self, kind: str) -> str:
        """`evaluated, public weights <tag>: 71.88 %`."""
        return f"evaluated, {self.whose}: {self.value(kind):.2f} %"

    def as_json(self, kind: str) -> dict[str, Any]:
        """For programs: the accuracy or error `kind` in percent, and what it is of."""
        keys = ("weights", "file", "steps", "image_size", "precision", "evaluated")
        is_public = tag_of(self.weights) is not None
        facts = {key: getattr(self, key) for key in keys}
        return {"value": self.value(kind), "is_public": is_public} | facts


def write(found: Evaluated, out: Path) -> Path:
    """Write the record and return its path. Raises LwbenchError where that fails."""
    path = out / found.data / found.model / f"evaluated-{found.id}.json"
    with explained_writes(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found.model_dump())
    return path


def evaluations(out: Path, *, archived: bool = True) -> list[Evaluated]:
    """All records under `out`, the newest first.

    What is damaged, or is not of all test images as published, is left out with a warning.
    """
    found = []
    for folder in (out, out / ARCHIVE) if archived else (out,):
        for path in sorted(folder.glob("*/*/evaluated-*.json")):
            try:
                one = Evaluated.model_validate(read_json(path) or {})
            except ValidationError:
                log.warning("%s is damaged and left out", path)
                continue
            if how := unlike_published_tests(one.images, one.data):
                log.warning("%s is left out: %s", path, how)
            else:
                found.append(one)
    return sorted(found, key=lambda one: one.evaluated, reverse=True)


def by_configuration(
    configs: Mapping[Overrides, RunConfig], found: Iterable[Evaluated]
) -> dict[Overrides, tuple[Evaluated, ...]]:
    """The evaluations of each configuration's very network, data set and input size."""
    by_key: dict[str, dict[str, Evaluated]] = {}
    for one in found:
        by_key.setdefault(one.key, {}).setdefault(one.id, one)
    keys = {
        train: _key(config.data_name, config.model.spec, config.image_size)
        for train, config in configs.items()
        if by_key
    }
    return {train: tuple(by_key[key].values()) for train, key in keys.items() if key in by_key}


def _key(data: str, network: Mapping[str, Any], image_size: int) -> str:
    flat = identifying_keys({f"model.{name}": value for name, value in network.items()})
    flat.pop("model.dropout", None)  # has no effect in evaluation
    return json.dumps([data, flat, image_size], sort_keys=True)
