"""Measure latency where networks run, and compare networks; lists by comma, without -m."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from ..config import command_values, expanded
from ..errors import LwbenchError, UsageError, shown
from ..logs import console
from ..registry import validated
from ..runs import latencies
from ..runs.directory import Run
from ..runs.keys import Group, ImageSize
from ..runs.provenance import cpu_model
from ..runs.runconfig import override_key
from ..runs.schema import Threads
from ..runs.weights_id import identity_of
from ._bench_case import EXPORTED, Case
from ._keys import Key, help_of_groups
from .profile import NumClasses

FLAGS: tuple[str, ...] = ()
KEYS: dict[str, Key] = {}
CLASSES = 1000  # where neither run nor weights say how many
OF_THE_RUN = ("model", "weights", "image_size", "num_classes")
OF_THE_COMMAND = (
    "seconds", "processes", "alpha", "seed", "force", "out", "import", "picture", "format",
)  # fmt: skip


def help() -> str:
    return help_of_groups("bench")


class Options:
    """The keys of a case and of the command, besides the network; the signature is their schema."""

    def __init__(
        self,
        *,
        run: str | None,
        weights: str | None,
        runtime: Literal["eager", "compile", "onnx", "openvino"],
        batch_size: PositiveInt,
        threads: Threads,
        device: str,
        image_size: ImageSize,
        num_classes: NumClasses | None,
        deploy: bool,
        seconds: PositiveFloat,
        processes: Annotated[int, Field(ge=1, le=100)],
        alpha: Annotated[float, Field(gt=0, lt=0.5)],
        seed: NonNegativeInt,
        force: bool,
        out: str,
        picture: str | None,
        format: Literal["terminal", "markdown", "csv", "json"],
        trust_code: bool,
    ) -> None:
        self.run, self.weights, self.runtime = run, weights, runtime
        self.batch_size, self.threads, self.device = batch_size, threads, device
        self.image_size, self.num_classes, self.deploy = image_size, num_classes, deploy
        self.processes = processes
        self.seconds, self.alpha, self.seed, self.force = seconds, alpha, seed, force
        self.out, self.format, self.trust_code = Path(out), format, trust_code
        self.picture = None if picture is None else Path(picture)
        if self.picture is not None and self.picture.suffix not in (".png", ".svg"):
            raise UsageError(f"picture={picture}: expected a file that ends in .png or .svg")
        if runtime in EXPORTED and device != "cpu":
            raise UsageError(f"runtime={runtime} is measured on the CPU, not on device={device}")


@dataclass(frozen=True)
class Planned:
    """A case with what its record says of the network, and where the record is."""

    case: Case
    network: dict[str, Any]
    weights: str
    path: Path


def run(arguments: list[str], flags: set[str]) -> int:
    """Measure the cases that have no record, and print all of them; 1 where one failed."""
    jobs = expanded(arguments, "bench")
    composed = command_values("bench", jobs)
    if composed[0][0]["import"] is not None:
        return _import(arguments, composed[0][0])
    _check_shared(arguments, [values for values, _ in composed])
    planned = list(_planned(jobs, composed))
    options = _options(composed[0][0])
    missing = [one for one in planned if options.force or latencies.read(one.path) is None]
    if missing:
        from ._bench_records import measure

        measure(missing, options)
    from ._bench_output import show

    found = [
        record.model_copy(update={"name": one.case.name})
        for one in planned
        if (record := latencies.read(one.path)) is not None
    ]
    show(found, options)
    if left := len(planned) - len(found):
        raise LwbenchError(f"{left} of {len(planned)} cases could not be measured: see above")
    return 0


def _options(values: dict[str, Any]) -> Options:
    own = {k: v for k, v in values.items() if k not in ("model", "data", "import")}
    return Options(**validated(Options, own, ""))


def _check_shared(arguments: Sequence[str], values: Sequence[dict[str, Any]]) -> None:
    for key in OF_THE_COMMAND:
        if any(one[key] != values[0][key] for one in values):
            raise UsageError(f"{key} is of the whole command and takes one value")
    typed = {override_key(argument).partition(".")[0] for argument in arguments}
    if "run" in typed and (wrong := [key for key in OF_THE_RUN if key in typed]):
        raise UsageError(f"{wrong[0]!r} belongs to the run")


def _planned(
    jobs: Sequence[Sequence[str]], composed: Sequence[tuple[dict[str, Any], dict[str, str]]]
) -> Iterator[Planned]:
    """The cases in the order of the command; a network that is named twice has two names."""
    times: Counter[tuple[Any, ...]] = Counter()  # the very same case
    shown_as: Counter[tuple[Any, ...]] = Counter()  # the same name, as of two runs
    for job, (values, choices) in zip(jobs, composed, strict=True):
        options = _options(values)
        if options.run is not None:
            network, name, size, classes = _of_run(options.run)
            model, weights = {}, identity_of(options.run)
        else:
            model = values["model"]
            network = Group.model_validate(model).spec
            name, size = _name(choices["model"], model, job), options.image_size
            classes = options.num_classes or CLASSES
            weights = identity_of(options.weights) if options.weights else "random"
        setting = (options.runtime, options.batch_size, options.threads, options.deploy)
        where = (*setting, options.device, size, classes)
        shown_as[name, where] += 1
        facts = [latencies.network_key(network, classes, size), weights, *where, cpu_model()]
        times[tuple(facts)] += 1
        path = latencies.record_path(options.out, name, [*facts, times[tuple(facts)]])
        if (number := shown_as[name, where]) > 1:
            name = f"{name}#{number}"
        case = Case(
            name=name, choice=choices["model"], model=model, run=options.run,
            weights=options.weights, num_classes=classes, image_size=size,
            runtime=options.runtime, batch_size=options.batch_size, threads=options.threads,
            device=options.device, deploy=options.deploy, seed=options.seed,
            trust_code=options.trust_code,
        )  # fmt: skip
        yield Planned(case, network, weights, path)


def _of_run(path: str) -> tuple[dict[str, Any], str, int, int]:
    """Network, name, image size and number of classes of a run. Raises UsageError."""
    run = Run(Path(path))
    config, recorded, data = run.read_config(), run.read_result(), run.environment().data
    classes = len(data.class_names) or data.classes
    if not classes:
        raise UsageError(f"{shown(path)}: env.json does not say how many classes the network has")
    name = recorded.model if recorded else run.path.absolute().parent.name
    return config.model.spec, name, config.image_size, classes


def _name(choice: str, model: dict[str, Any], job: Sequence[str]) -> str:
    """The network's name with the arguments that the command sets: `mb0 stem=ldc`."""
    words = [str(model["function"]) if choice == "file" else choice]
    if choice == model["builder"] and "arch" in model:
        words.append(str(model["arch"]))
    for override in job:
        key, _, value = override.partition("=")
        name = key.lstrip("+").removeprefix("model.")
        if name != key.lstrip("+") and name not in ("path", "function", "arch", "digest"):
            words.append(f"{name}={value}")
    return " ".join(words)


def _import(arguments: Sequence[str], values: dict[str, Any]) -> int:
    others = {override_key(argument) for argument in arguments} - {"import", "out"}
    if others:
        raise UsageError(f"{min(others)} cannot be combined with import=, which measures nothing")
    out = Path(str(values["out"]))

    def network(overrides: list[str]) -> dict[str, Any]:
        ((composed, _),) = command_values("bench", [overrides])
        return Group.model_validate(composed["model"]).spec

    for one in latencies.imported(Path(str(values["import"])), network):
        facts = [one.key, one.weights, *one.setting, one.device]
        path = latencies.record_path(out, one.name, facts, is_imported=True)
        latencies.write(one, path)
        console().print(f"imported     {one.name}: {one.p50_ms:g} ms ({one.place}), {path}")
    return 0
