"""Records of latency: what `bench` measured on this machine, and what was imported from another.

A record is `<out>/latency/<network>/<id>/latency.json`, or `imported.json` for results of a phone
or a board. The two have names of their own, so that neither is ever taken for the other.
"""

import hashlib
import json
import logging
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from ..errors import UsageError, explained, shown
from .files import explained_writes, read_json, write_json
from .identity import identifying_keys
from .records import ARCHIVE
from .schema import Count, Positive, Rate, Seconds, Seed, Start, Text, Threads, Time

log = logging.getLogger("lwbench")

FOLDER = "latency"
DRIFT_LIMIT = 0.05  # of the reference kernel's time; beyond it a record is marked
Milliseconds = Annotated[float, Field(gt=0, le=1e9)]


class Block(BaseModel):
    """Consecutive calls of one case: their median, and the reference kernel's time around them.

    `process`: the number of the case's process, from 0.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    median_ms: Milliseconds
    calls: Positive
    reference_ms: Milliseconds
    process: Count = 0


class Setting(NamedTuple):
    """What networks are compared under, besides the device."""

    runtime: str = "eager"
    batch_size: int = 1
    threads: int | None = 1
    deploy: bool = False


class Latency(BaseModel):
    """The latency of a network under one runtime, batch size and number of threads.

    `device`: the processor, the GPU, or the phone; `network`: builder and arguments, empty where
    they are not known; `weights`: "random", the tag of public weights or a file's digest.
    `interval_ms`: of the median p50, at level 1 - `alpha`. `drift`: by how much the reference
    kernel's time varied around the blocks, as a share. `session`: cases with the same text were
    measured in turn by one command, so that their blocks may be compared one by one. `load_s`: from
    a file or builder to the first answer. `peak_bytes`: resident memory of the case's process, or
    of the GPU. `imported_from`: the file that a result came from which was not measured here.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False, protected_namespaces=())

    name: Text
    network: dict[Text, JsonValue] = {}
    weights: Text = "random"
    num_classes: Positive
    image_size: Positive
    runtime: Text
    batch_size: Positive
    threads: Threads | None = None
    device: Text
    deploy: bool = False
    p50_ms: Milliseconds
    p95_ms: Milliseconds | None = None
    interval_ms: tuple[Milliseconds, Milliseconds] | None = None
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    blocks: tuple[Block, ...] = ()
    load_s: Seconds | None = None
    peak_bytes: Count | None = None
    params: Count | None = None
    macs: Count | None = None  # plain, of one image
    drift: Rate | None = None
    governor: Text | None = None
    session: Text | None = None
    seed: Seed | None = None
    start: Start = Start()
    measured: Time
    imported_from: Text | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "Latency":
        low, high = self.interval_ms or (self.p50_ms, self.p50_ms)
        if not low <= self.p50_ms <= high:
            raise ValueError(f"p50_ms={self.p50_ms} is not within interval_ms")
        if self.p95_ms is not None and self.p95_ms < self.p50_ms:
            raise ValueError(f"p95_ms={self.p95_ms} is below p50_ms={self.p50_ms}")
        return self

    @property
    def images_per_s(self) -> float:
        """The throughput at this batch size."""
        return 1000 * self.batch_size / self.p50_ms

    @property
    def has_drifted(self) -> bool:
        """Whether the machine's speed changed too much while this was measured."""
        return self.drift is not None and self.drift > DRIFT_LIMIT

    @property
    def setting(self) -> Setting:
        """What it was measured under."""
        return Setting(self.runtime, self.batch_size, self.threads, self.deploy)

    @property
    def place(self) -> str:
        """Device and setting in words: `AMD EPYC, onnx, batch 1, 1 thread`."""
        words = [self.device, self.runtime, f"batch {self.batch_size}"]
        if self.threads is not None:
            words.append(f"{self.threads} thread{'s' * (self.threads > 1)}")
        return ", ".join(words + ["deploy form"] * self.deploy + ["imported"] * self.is_imported)

    @property
    def processes_ms(self) -> list[list[float]]:
        """The medians of the blocks of each process."""
        return [
            [block.median_ms for block in self.blocks if block.process == number]
            for number in sorted({block.process for block in self.blocks})
        ]

    @property
    def is_imported(self) -> bool:
        """Whether it was measured elsewhere."""
        return self.imported_from is not None

    @property
    def key(self) -> str:
        """The network, number of classes and input size, which decide on its cells and runs."""
        return network_key(self.network, self.num_classes, self.image_size)


class _Imported(Latency):
    """An entry of a file that is imported: unknown keys are mistakes there."""

    model_config = ConfigDict(extra="forbid")


# what an imported result cannot state: lwbench finds it, or did not measure it
NOT_IMPORTED = {"imported_from", "blocks", "session", "seed", "start", "drift"}


def network_key(network: Mapping[str, Any], num_classes: int, image_size: int) -> str:
    """Text that is equal for the same network, number of classes and input size."""
    flat = identifying_keys({f"model.{name}": value for name, value in network.items()})
    flat.pop("model.dropout", None)  # has no effect in evaluation
    return json.dumps([flat, num_classes, image_size], sort_keys=True)


def record_path(out: Path, name: str, facts: Iterable[Any], *, is_imported: bool = False) -> Path:
    """Where the record of a case is; `facts`: what distinguishes it from others of its network."""
    identity = hashlib.sha256(json.dumps(list(facts), sort_keys=True).encode()).hexdigest()[:8]
    folder = re.sub(r"[^\w.=#-]+", "_", name)[:80]
    file = "imported.json" if is_imported else "latency.json"
    return out / FOLDER / folder / identity / file


def write(found: Latency, path: Path) -> None:
    """Write a record. Raises LwbenchError where that fails."""
    with explained_writes(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found.model_dump(mode="json"))


def read(path: Path) -> Latency | None:
    """The record at `path`; None where there is none, and, with a warning, where it is damaged."""
    if not path.is_file():
        return None
    try:
        found = Latency.model_validate(read_json(path) or {})
    except ValidationError:
        log.warning("%s is damaged and left out", shown(path))
        return None
    if found.is_imported != (path.name == "imported.json"):
        log.warning("%s is left out: it was %s", shown(path), "imported" if found.is_imported
                    else "measured here")  # fmt: skip
        return None
    return found


def latencies(out: Path, *, archived: bool = True) -> list[Latency]:
    """All readable records under `out`, the newest first."""
    folders = (out, out / ARCHIVE) if archived else (out,)
    paths = [path for folder in folders for path in sorted(folder.glob(f"{FOLDER}/*/*/*.json"))]
    found = [one for path in paths if (one := read(path)) is not None]
    return sorted(found, key=lambda one: one.measured, reverse=True)


def imported(path: Path, network: Callable[[list[str]], dict[str, Any]]) -> list[Latency]:
    """The results in a file of the form in docs/deployment.md.

    `network`: builder and arguments of overrides such as `model=ldc3`. Raises UsageError naming the
    entry and the key that are wrong.
    """
    where = shown(path)
    content = read_json(path)
    if content is None:
        raise UsageError(f"import={where}: not a readable JSON file with a mapping")
    results = content.get("results")
    if not isinstance(results, list) or not results:
        raise UsageError(f"import={where}: needs a list `results` with at least one entry")
    shared = {key: value for key, value in content.items() if key != "results"}
    found = []
    for number, one in enumerate(results, 1):
        place = f"import={where}, result {number}"
        if not isinstance(one, dict):
            raise UsageError(f"{place}: expected a mapping of keys such as name and p50_ms")
        values = {**shared, **one}
        if isinstance(text := values.get("network"), str):
            try:
                values["network"] = network(shlex.split(text))
            except (UsageError, ValueError) as error:
                raise UsageError(f"{place}: network: {error}") from None
        found.append(_imported(values, place, path.name))
    return found


def _imported(values: Mapping[str, Any], where: str, file: str) -> Latency:
    if wrong := sorted(NOT_IMPORTED & values.keys()):
        raise UsageError(f"{where}: {wrong[0]} cannot be imported; it is of what lwbench measures")
    try:
        found = _Imported.model_validate({**values, "imported_from": file})
    except ValidationError as error:
        fields = _Imported.model_fields.keys() - NOT_IMPORTED
        raise explained(error.errors(), fields, f"{where} /") from None
    return Latency.model_validate(found.model_dump())
