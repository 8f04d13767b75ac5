"""Launchers: where the runs of a sweep are made, as configured in `conf/launcher`.

No key of a launcher can change a result, so none is part of a run's configuration.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from ..errors import UsageError, explained


class _Launcher(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Local(_Launcher):
    """Processes on this machine. `per_device`: runs at once on each GPU, instead of `jobs`."""

    name: Literal["local"]
    per_device: PositiveInt | None = None


class Slurm(_Launcher):
    """Job arrays of SLURM; the keys are those of `sbatch`. `time`: the limit of a job."""

    name: Literal["slurm"]
    partition: str | None
    gpus: Annotated[int, Field(ge=0)]
    cpus: PositiveInt
    time: str
    signal_before: Annotated[int, Field(ge=10, le=65535)]  # sbatch takes no more
    array_limit: PositiveInt | None
    runs_per_job: PositiveInt
    per_device: PositiveInt
    requeue: bool
    extra: list[str]
    dry_run: bool
    wait: bool

    @field_validator("time", mode="before")
    @classmethod
    def _time(cls, value: Any) -> str:
        # sbatch: minutes, [hours:]minutes:seconds or days-hours[:minutes[:seconds]]
        if not re.fullmatch(r"(\d+-)?\d+(:\d\d){0,2}", str(value)):
            raise ValueError("expected a time as sbatch takes it, such as 04:00:00 or 1-12:00:00")
        return str(value)

    @field_validator("partition")
    @classmethod
    def _partition(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[\w.,+-]+", value):
            raise ValueError("expected the name of a partition")
        return value

    @field_validator("extra")
    @classmethod
    def _extra(cls, values: list[str]) -> list[str]:
        # each becomes a line of a script: nothing may end the line or be no option
        for value in values:
            if not value.startswith("-") or not value.isprintable():
                raise ValueError("expected options of sbatch, such as --account=x")
        return values


class Ray(_Launcher):
    """Tasks of Ray. `retries`: how often a run is started again when its node is lost."""

    name: Literal["ray"]
    address: str | None
    gpus: Annotated[float, Field(ge=0)]
    cpus: Annotated[float, Field(gt=0)]
    per_device: PositiveInt
    retries: Annotated[int, Field(ge=0)]


Launcher = Local | Slurm | Ray
LOCAL = Local(name="local")
_KINDS: dict[str, type[Local] | type[Slurm] | type[Ray]] = {
    "local": Local, "slurm": Slurm, "ray": Ray,
}  # fmt: skip


def launcher(values: Mapping[str, Any], file: str) -> Launcher:
    """The launcher that the merged values of `file` and the command line describe.

    Raises UsageError for an unknown key, and for a value of a wrong type or range.
    """
    kind = _KINDS.get(str(values.get("name")))
    if kind is None:
        raise UsageError(f"{file}: name is one of {', '.join(_KINDS)}")
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise explained(error.errors(), kind.model_fields, "launcher") from None
