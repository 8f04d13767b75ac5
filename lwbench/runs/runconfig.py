"""The configuration of one training run: validated once, typed, comparable.

`lwbench.config` makes a `RunConfig` from command-line overrides; a run directory's `config.yaml` is
read back into one. Nothing after that handles the raw mapping.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    ValidationError,
)

from ..errors import UsageError, explained, nearest
from .identity import identifying_keys, lacked_by
from .keys import (
    CheckpointKeys,
    DistillationKeys,
    EvaluateTrain,
    Group,
    ImageSize,
    Keys,
    Precision,
    Seed,
    Threads,
)
from .processes import own_cores

Overrides = tuple[str, ...]  # `key=value` arguments of `lwbench train`
VARIABLE = "LWBENCH_RUN_CONFIG"


class RunConfig(Keys):
    """One training run as configured. Make it with `RunConfig.of`.

    `precision`: "auto" is bf16 on GPUs that support it and fp32 on every CPU, where depthwise
    networks train more slowly in bf16. `clip_grad_norm`: largest norm of all gradients together.
    `compile`: torch.compile, which pays off after many epochs only. `evaluate_train`: whether the
    final weights are evaluated on all training images, on a sample or on none. `accumulate`:
    batches whose gradients make one optimizer step. `ema`: largest decay of the moving average of
    the weights. `eval_every`: epochs from one evaluation to the next. `teacher`: a run's directory.
    `weights`: where the initial weights are; `weights_id`: what they are, see `runs.weights_id`.
    `freeze`: patterns of names of parameters that are not trained. `head_lr_factor`: a multiple of
    the learning rate, for the last layer. `local_batchnorm`: whether each process of a training on
    several devices normalises by its own images; `images_per_process`: their number, filled in.
    """

    seed: Seed = 0
    epochs: PositiveInt
    batch_size: PositiveInt
    image_size: ImageSize
    device: str = "auto"
    precision: Precision = "auto"
    out: str = "outputs"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip_grad_norm: PositiveFloat | None = None
    compile: bool = False
    accumulate: PositiveInt = 1
    ema: Annotated[float, Field(ge=0, lt=1)] | None = None
    eval_every: PositiveInt = 1
    teacher: str | None = None
    distillation: DistillationKeys = DistillationKeys()
    workers: NonNegativeInt | None = None
    threads: Threads = "auto"
    evaluate_train: EvaluateTrain = "auto"
    jobs: PositiveInt = 1
    force: bool = False
    extend: bool = False
    checkpoint: CheckpointKeys = CheckpointKeys()
    weights: str | None = None
    weights_id: str | None = None
    weights_partial: bool = False
    freeze: str | list[str] | None = None
    head_lr_factor: PositiveFloat | None = None
    local_batchnorm: bool = False
    images_per_process: PositiveInt | None = None
    model: Group
    data: Group
    optimizer: Group
    scheduler: Group

    _values: dict[str, Any] = PrivateAttr(default_factory=dict)
    _choices: dict[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def of(
        cls, values: Mapping[str, Any], choices: Mapping[str, str] | None = None, where: str = ""
    ) -> "RunConfig":
        """Validate a resolved configuration.

        `choices`: the option chosen in each group, where it is known (a stored configuration has
        none). `where`: a file to name in errors. Raises UsageError naming the key that is unknown,
        missing, or of a wrong type or range.
        """
        if unknown := [key for key in values if key not in cls.model_fields]:
            hint = nearest(str(unknown[0]), cls.model_fields)
            raise UsageError(f"{where}: " * bool(where) + f"unknown key {unknown[0]!r}{hint}")
        return cls._validated(values, choices or {}, where)

    @classmethod
    def stored(cls, values: Mapping[str, Any], where: str) -> "RunConfig":
        """The configuration in a run directory; keys of another version are allowed.

        Raises UsageError as `of` does.
        """
        return cls._validated(values, {}, where)

    @classmethod
    def _validated(
        cls, values: Mapping[str, Any], choices: Mapping[str, str], where: str
    ) -> "RunConfig":
        try:
            config = cls.model_validate(dict(values))
        except ValidationError as error:
            raise explained(error.errors(), cls.model_fields, where) from None
        config._values, config._choices = dict(values), dict(choices)
        return config

    # A sweep hands the configuration to the process of a run, which need not compose it again.

    @property
    def as_environment(self) -> dict[str, str]:
        """The configuration as an environment variable of a process."""
        return {VARIABLE: json.dumps([self._values, self._choices])}

    @classmethod
    def from_environment(cls) -> "RunConfig | None":
        """The configuration that the parent process passed on, if any; used once."""
        text = os.environ.pop(VARIABLE, None)
        return cls.of(*json.loads(text)) if text else None

    # names

    @property
    def model_name(self) -> str:
        """The name of the network's configuration file, or of the function in a user's file."""
        name = self._choices["model"]
        return str(self.model.spec["function"]) if name == "file" else name

    @property
    def data_name(self) -> str:
        """The data set's name in paths and tables: its own (`data.name`) or its file's."""
        return str((self.data.model_extra or {}).get("name") or self._choices["data"])

    @property
    def experiment(self) -> str | None:
        """The recipe that was chosen; None where there is none, or where it is not known."""
        return self._choices.get("experiment")

    @property
    def data_root(self) -> str | None:
        """Where the images are, as an absolute path; None for the default place."""
        root = (self.data.model_extra or {}).get("root")
        return str(Path(root).resolve()) if root else None

    @property
    def validation(self) -> float:
        """The share of training images that is held out (`data.validation`). Raises UsageError."""
        share = (self.data.model_extra or {}).get("validation") or 0.0
        if not isinstance(share, int | float) or not 0 <= share <= 0.5:
            raise UsageError(
                f"data.validation={share}: expected a share from 0 to 0.5, such as 0.1"
            )
        return float(share)

    @property
    def augment(self) -> dict[str, Any]:
        """The keys under `data.augment`."""
        return dict((self.data.model_extra or {}).get("augment") or {})

    @property
    def lr(self) -> float:
        """The base learning rate."""
        return float((self.optimizer.model_extra or {})["lr"])

    @property
    def frozen(self) -> list[str]:
        """The patterns under `freeze`."""
        return [self.freeze] if isinstance(self.freeze, str) else list(self.freeze or ())

    @property
    def num_workers(self) -> int:
        """Threads of this process that decode images; one per core unless the user says otherwise.

        Processes that torchrun starts on one machine divide its cores.
        """
        return own_cores() if self.workers is None else self.workers

    # content and comparison

    @property
    def values(self) -> dict[str, Any]:
        """The whole resolved configuration, as `config.yaml` holds it."""
        return self._values

    @cached_property
    def flat(self) -> dict[str, Any]:
        """Dotted keys and their values, in the order of the configuration."""
        return dict(_flattened(self._values))

    @cached_property
    def identifying(self) -> dict[str, Any]:
        """The dotted keys that can change the result, without those that are switched off."""
        return identifying_keys(self.flat)

    @cached_property
    def identity(self) -> str:
        """Eight hex digits: a hash of `identifying`."""
        text = json.dumps(self.identifying, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def check_effect(self, overrides: Iterable[str]) -> None:
        """Raise UsageError for an override of a key that has no effect, since another is off."""
        for key in map(override_key, overrides):
            # a group may be chosen for another place: model@distillation.model
            if needed := lacked_by(key.rpartition("@")[2], self.flat):
                raise UsageError(f"{key} has no effect without {needed}")

    def differences(self, other: "RunConfig") -> list[str]:
        """The keys that can change the result and differ, in the order of the configuration."""
        ours, theirs = self.identifying, other.identifying
        return [key for key in ours | theirs if ours.get(key) != theirs.get(key)]

    def written(self, keys: Iterable[str]) -> Overrides:
        """The keys with their values as overrides of a command line: `epochs=10`."""
        # the identity of weights is no key of the command line: their location is
        names = ("weights" if key == "weights_id" else key for key in keys)
        return tuple(f"{name}={_text(self.flat.get(name))}" for name in names)

    def changed(self, changes: Mapping[str, Any]) -> "RunConfig":
        """A copy with other values under dotted keys, validated again."""
        values = dict(self._values)
        for key, value in changes.items():
            group, _, name = key.rpartition(".")
            if group:
                values[group] = {**values.get(group, {}), name: value}
            else:
                values[name] = value
        copy = RunConfig._validated(values, self._choices, "")
        if changes.keys() <= {"seed", "out"}:  # thousands of planned runs differ in these alone
            copy.__dict__["identity"] = self.identity
        return copy


def override_key(override: str) -> str:
    """The dotted key that a `key=value` argument sets."""
    return override.partition("=")[0].lstrip("+~")


def _flattened(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
