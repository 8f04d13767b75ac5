"""Registries: name -> builder, with the builder's signature as the schema of its configuration.

A builder's positional arguments are facts that only the program knows (`num_classes`, a model's
parameters); its keyword-only arguments are what a user may set, checked against their annotations
before anything is built.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from .errors import UsageError, nearest

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Registry:
    """Builders of one kind, found in the modules of one package, which is imported on first use."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._builders: dict[str, Callable[..., Any]] = {}

    def register(self, builder: Callable[..., Any]) -> Callable[..., Any]:
        """Enter a builder under its own name; a second one of that name is an error."""
        name = builder.__name__
        if name in self._builders:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._builders[name] = builder
        return builder

    def names(self) -> list[str]:
        """All builders' names; imports the package."""
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
            importlib.import_module(f"{self._package}.{module.name}")
        return sorted(self._builders)

    def builder(self, name: str) -> Callable[..., Any]:
        """The builder of that name. Raises UsageError with the nearest names if there is none."""
        names = self.names()
        if name not in self._builders:
            raise UsageError(f"no {self.kind} builder {name!r}{nearest(name, names)}")
        return self._builders[name]

    def build(self, config: dict[str, Any], *facts: Any) -> Any:
        """Build what `config` describes.

        Its `builder` names the builder, the rest are its arguments.

        Raises UsageError where a key is unknown or a value has the wrong type or range.
        """
        arguments = self.check(config)
        return self.builder(config["builder"])(*facts, **arguments)

    def check(self, config: dict[str, Any]) -> dict[str, Any]:
        """The arguments of `config`, validated against the builder's signature; builds nothing."""
        if not isinstance(config.get("builder"), str):
            raise UsageError(f"{self.kind} names no builder")
        arguments = {key: value for key, value in config.items() if key != "builder"}
        return validated(self.builder(config["builder"]), arguments, where=self.kind)


MODELS = Registry("model", "lwbench.models")
DATASETS = Registry("data", "lwbench.data")
OPTIMIZERS = Registry("optimizer", "lwbench.engine.optimizers")
SCHEDULERS = Registry("scheduler", "lwbench.engine.schedules")


@cache
def schema(builder: Callable[..., Any]) -> type[BaseModel]:
    """A pydantic model of the builder's keyword-only arguments."""
    function = builder.__init__ if inspect.isclass(builder) else builder
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(builder).parameters.values()
    fields: dict[str, Any] = {
        p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default)
        for p in parameters
        if p.kind is p.KEYWORD_ONLY
    }
    # strict: `epochs=5.0` or `dropout=true` is a slip, not a number
    settings = ConfigDict(extra="forbid", strict=True, protected_namespaces=(), allow_inf_nan=False)
    return create_model(builder.__name__, __config__=settings, **fields)


def validated(builder: Callable[..., Any], arguments: dict[str, Any], where: str) -> dict[str, Any]:
    """`arguments` checked against the builder's signature, defaults filled in.

    Raises UsageError naming each wrong key as `where.key` (`key` alone where `where` is empty).
    """
    model = schema(builder)
    try:
        checked = model.model_validate(arguments)
    except ValidationError as error:
        lines = [_problem(problem, model, where) for problem in error.errors()]
        raise UsageError("\n".join(lines[:2])) from None
    return {name: getattr(checked, name) for name in model.model_fields}


def _problem(problem: Any, model: type[BaseModel], where: str) -> str:
    key = ".".join(str(part) for part in ([where] if where else []) + list(problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}{nearest(str(problem['loc'][-1]), model.model_fields)}"
    if problem["type"] == "missing":
        return f"{key} is needed and not given"
    reason = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{key}={problem['input']!r}: {reason}"
