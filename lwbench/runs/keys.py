"""Keys of a configuration: what values they take, and which belong together."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, PositiveFloat

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


def _threads(value: Any) -> int | Literal["auto"]:
    if value == "auto" or (type(value) is int and 1 <= value <= 1024):
        return value
    raise ValueError("expected auto or a number from 1 to 1024")


def _evaluate_train(value: Any) -> bool | Literal["auto", "sample"]:
    if value is True or value is False or value in ("auto", "sample"):
        return value
    raise ValueError("expected auto, true, false or sample")


Threads = Annotated[int | Literal["auto"], PlainValidator(_threads)]
EvaluateTrain = Annotated[bool | Literal["auto", "sample"], PlainValidator(_evaluate_train)]
ImageSize = Annotated[int, Field(gt=0, le=8192)]  # pixels; a larger value would take all memory


class Keys(BaseModel):
    """Keys with values of exactly these types."""

    # strict: `epochs=5.0` or `force=1` is a mistake rather than a number or a truth value
    model_config = ConfigDict(
        extra="ignore", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=()
    )


class CheckpointKeys(Keys):
    """Keys under `checkpoint`. `every`: seconds between two checkpoints, also within an epoch."""

    model_config = ConfigDict(extra="forbid")

    every: PositiveFloat = 300.0


class Group(BaseModel):
    """One option of a group (model, data, optimizer, scheduler): a builder and its arguments."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    builder: str

    @property
    def spec(self) -> dict[str, Any]:
        """Builder and arguments; recipe and augmentation of a data set have other readers."""
        extra = self.model_extra or {}
        return {"builder": self.builder} | {
            key: value
            for key, value in extra.items()
            if key not in ("recipe", "augment", "validation")
        }


class DistillationKeys(Keys):
    """Keys under `distillation`, for a `teacher`: see `engine.distill.Teacher`.

    `network`: what it is, see `runs.teacher.with_teacher`; `model`: its network, if it is no run.
    """

    model_config = ConfigDict(extra="forbid")

    temperature: PositiveFloat = 4.0
    weight: Annotated[float, Field(gt=0, le=1)] = 0.9
    network: str | None = None
    model: Group | None = None
