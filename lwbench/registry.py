"""Registries: name -> builder, where the builder's signature is the schema of its configuration.

A builder's positional arguments are facts that only the program knows (`num_classes`, a model's
parameters); its keyword-only arguments are what a user may set. They are checked against their
annotations once, by `Registry.spec`, before anything is built.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from .errors import UsageError, explained, nearest

Builder = Callable[..., Any]
B = TypeVar("B", bound=Builder)
Fraction = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Spec:
    """A validated choice of a builder and its arguments; nothing is built yet."""

    builder: Builder
    arguments: dict[str, Any]
    change: Callable[[Any], Any] | None = None  # made to what the builder returns

    def build(self, *facts: Any) -> Any:
        """Call the builder with the program's facts and the validated arguments."""
        built = self.builder(*facts, **self.arguments)
        return self.change(built) if self.change else built


class Registry:
    """Builders of one kind, found in the modules of one package, which is imported on first use.

    `change`: "module:function" of a function that changes what any builder of this kind has built;
    its keyword-only arguments can be set for all of them. `entry_points`: the group under which
    installed packages offer builders of this kind.
    """

    def __init__(
        self, kind: str, package: str, *, change: str | None = None, entry_points: str = ""
    ) -> None:
        self.kind = kind
        self._package = package
        self._change = change
        self._entry_points = entry_points
        self._builders: dict[str, Builder] = {}

    def register(self, builder: B) -> B:
        """Register a builder under its function's name. Raises ValueError if the name is taken."""
        name = builder.__name__
        if name in self._builders:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._builders[name] = builder
        return builder

    def installed(self) -> dict[str, metadata.EntryPoint]:
        """Builders that installed packages offer, by name; the packages are not imported."""
        if not self._entry_points:
            return {}
        return {point.name: point for point in metadata.entry_points(group=self._entry_points)}

    def packages(self) -> list[str]:
        """The names of the packages that offer them."""
        return sorted({point.dist.name for point in self.installed().values() if point.dist})

    def names(self) -> list[str]:
        """Return the names of all builders; imports the package, but not those of `installed`."""
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
            importlib.import_module(f"{self._package}.{module.name}")
        return sorted({*self._builders, *self.installed()})

    def builder(self, name: str) -> Builder:
        """Return the builder of that name. Raises UsageError with the nearest names."""
        names = self.names()
        if name not in self._builders:
            if name not in names:
                raise UsageError(f"no {self.kind} builder {name!r}{nearest(name, names)}")
            return self._load(self.installed()[name])
        return self._builders[name]

    def _load(self, point: metadata.EntryPoint) -> Builder:
        where = f"{self.kind} builder {point.name!r} of the installed package {package_of(point)}"
        try:
            builder = point.load()
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0][:200]
            raise UsageError(f"{where}: {type(error).__name__}: {reason}") from error
        if not callable(builder):
            raise UsageError(f"{where}: {point.value} cannot be called")
        return builder

    def spec(self, config: dict[str, Any]) -> Spec:
        """Validate `config`: its `builder` names the builder, the other keys are its arguments.

        Raises UsageError where a key is unknown or a value has the wrong type or range.
        """
        if not isinstance(config.get("builder"), str):
            raise UsageError(f"{self.kind} names no builder")
        builder = self.builder(config["builder"])
        arguments = {key: value for key, value in config.items() if key != "builder"}
        change = None
        if self._change:
            module, _, name = self._change.partition(":")
            function = getattr(importlib.import_module(module), name)
            shared = {key: arguments.pop(key) for key in keyword_only(function) & arguments.keys()}
            if any(value is not None for value in shared.values()):
                change = partial(function, **validated(function, shared, where=self.kind))
        return Spec(builder, validated(builder, arguments, where=self.kind), change)

    def build(self, config: dict[str, Any], *facts: Any) -> Any:
        """Validate and build in one step, for a configuration that is used once."""
        return self.spec(config).build(*facts)


MODELS = Registry(
    "model",
    "lwbench.models",
    change="lwbench.layers.stem:with_stem_stride",
    entry_points="lwbench.models",
)
DATASETS = Registry("data", "lwbench.data.sets")
OPTIMIZERS = Registry("optimizer", "lwbench.engine.optimizers")
SCHEDULERS = Registry("scheduler", "lwbench.engine.schedules")


def package_of(point: metadata.EntryPoint) -> str:
    """The distribution that offers an entry point, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.module


def keyword_only(builder: Builder) -> set[str]:
    """The names of a builder's keyword-only arguments, which a user may set."""
    parameters = inspect.signature(builder).parameters.values()
    return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}


@cache
def schema(builder: Builder) -> type[BaseModel]:
    """Return a pydantic model of the builder's keyword-only arguments."""
    function = builder.__init__ if inspect.isclass(builder) else builder
    hints = get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(builder).parameters.values())
    fields: dict[str, Any] = {
        p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default)
        for p in parameters
        if p.kind is p.KEYWORD_ONLY
    }
    # strict, so that `epochs=5.0` or `dropout=true` is reported rather than converted
    # `**arguments` of a network in a user's file, which checks them itself
    is_open = any(p.kind is p.VAR_KEYWORD for p in parameters)
    extra: Literal["allow", "forbid"] = "allow" if is_open else "forbid"
    settings = ConfigDict(extra=extra, strict=True, protected_namespaces=(), allow_inf_nan=False)
    return create_model(builder.__name__, __config__=settings, **fields)


def validated(builder: Builder, arguments: dict[str, Any], where: str) -> dict[str, Any]:
    """Return `arguments`, checked against the builder's signature, with defaults filled in.

    Raises UsageError naming each wrong key as `where.key` (`key` alone where `where` is empty).
    """
    model = schema(builder)
    try:
        checked = model.model_validate(arguments)
    except ValidationError as error:
        raise explained(error.errors(), model.model_fields, where) from None
    arguments = {name: getattr(checked, name) for name in model.model_fields}
    return arguments | (checked.model_extra or {})
