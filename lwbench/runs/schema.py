"""What result.json and env.json hold: the schemas that everything read from a run passes.

A run directory may be old, damaged or somebody else's. A result with an invalid field is no result;
an invalid field of the environment counts as unknown, since no figure depends on it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired, TypedDict

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

# Bounds keep every later sum, ratio and format finite; no real run comes near them.
Count = Annotated[int, Field(ge=0, le=2**53)]
Positive = Annotated[int, Field(ge=1, le=2**53)]
Threads = Annotated[int, Field(ge=1, le=1024)]  # of torch, which would start all of them
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Percent = Annotated[float, Field(ge=0, le=100)]
Loss = Annotated[float, Field(ge=-1e30, le=1e30)]  # rounding may turn 0 into -1e-9
Seconds = Annotated[float, Field(ge=0, le=1e12)]
Rate = Annotated[float, Field(ge=0, le=1e12)]  # per second
# JSON may hold code points that no file or terminal can: they are shown escaped
Text = Annotated[str, AfterValidator(lambda s: s.encode("utf-8", "backslashreplace").decode())]
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]  # ISO 8601, UTC


class Row(TypedDict):
    """A row of metrics.csv: one epoch. Losses are mean cross-entropy, accuracies percent."""

    epoch: int  # from 1
    lr: float  # at the last step
    train_loss: float  # over the epoch, with the weights as they were at each step
    train_top1: float
    # of the epochs that are evaluated; with ema= of the averaged weights
    test_loss: NotRequired[float]
    test_top1: NotRequired[float]
    test_top5: NotRequired[float]
    # with data.validation= on the held-out training images
    validation_loss: NotRequired[float]
    validation_top1: NotRequired[float]
    # with ema= of the weights themselves
    raw_test_loss: NotRequired[float]
    raw_test_top1: NotRequired[float]
    raw_test_top5: NotRequired[float]
    images_per_s: float  # in training, without the evaluation
    seconds: float  # of training
    # of networks with deformable layers: |offset| in pixels on the first 128 test images
    offset_mean: NotRequired[float]
    offset_max: NotRequired[float]


class Tested(BaseModel):
    """Figures on test images: accuracies in percent, the loss as mean cross-entropy."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    test_loss: Loss
    test_top1: Percent
    test_top5: Percent

    def value(self, kind: str) -> float:
        """Return an accuracy or error in percent: kind top1, top5, top1_error or top5_error."""
        accuracy: float = getattr(self, f"test_{kind.removesuffix('_error')}")
        return 100 - accuracy if kind.endswith("_error") else accuracy


class Figures(Tested):
    """What an epoch reached."""

    epoch: Positive
    train_top1: Percent


class Result(BaseModel):
    """result.json: what a finished run reached."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    identity: Text
    model: Text
    data: Text
    seed: Seed
    epochs: Positive
    precision: Text
    device: Text
    params: Positive
    seconds: Seconds
    images_per_s: Rate
    final: Figures
    best: Figures
    held_out: Figures | None = None  # of the epoch that is best on held-out training images
    # training images that the final weights were evaluated on, for the confusion matrix; None:
    # all of them, recorded before this field existed
    train_evaluated: Count | None = None
    raw: Figures | None = None  # of the last weights themselves, where `final` is of averaged ones
    finished: Time | None = None  # None: recorded before this field existed


class _Lenient(BaseModel):
    """A model whose invalid fields take their default.

    Their names are appended to the validation context, where that is a list.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _default_where_invalid(
        cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> Any:
        try:
            return handler(value)
        except ValidationError:
            name = info.field_name or ""
            if isinstance(info.context, list):
                info.context.append(name)
            return cls.model_fields[name].get_default(call_default_factory=True)


class Start(_Lenient):
    """One start of a run: the code, command and machine, and how much was trained in it.

    `epochs` and `steps` (optimizer steps, those of finished epochs included) count what was saved;
    None where a run was recorded before they were.
    """

    command: Text | None = None
    config_dir: Text | None = None  # the absolute folder of --config-dir
    process: Text | None = None  # "process <id> on <host>"
    started: Time | None = None
    python: Text | None = None
    versions: dict[Text, Text | None] = {}
    system: Text | None = None
    cpu: Text | None = None
    cores: Positive | None = None
    git_revision: Text | None = None  # None for an installed wheel
    git_dirty: bool | None = None
    device: Text | None = None
    threads: Threads | None = None
    convolutions: Text | None = None  # "library" or a compiler and its version: layers.accelerated
    processes: Positive | None = None  # that trained together; each had a part of every batch
    cuda_graph: bool | None = None  # whether steps were replayed; None on CPUs
    epochs: Count | None = None
    steps: Count | None = None

    @property
    def has_trained(self) -> bool:
        """False for a start that ended before its first saved step."""
        return self.steps != 0


class Images(_Lenient):
    """The images of a run.

    `digest`: of pixels and labels where they were held in memory, else of the files' names and
    sizes; then `content` is one of the files' bytes. `encoded`: of class names, labels and the
    encoded images in order, equal in every layout that keeps these; None where images were held in
    memory, and in records from before it existed. `fingerprint`: of names, sizes and times.
    """

    digest: Text | None = None
    root: Text | None = None
    train_size: Count | None = None
    test_size: Count | None = None
    classes: Count | None = None
    class_names: tuple[Text, ...] = ()  # empty where they are not recorded
    fingerprint: Text | None = None
    content: Text | None = None
    encoded: Text | None = None
    left_out: tuple[Text, ...] = ()  # unreadable files, each with the reason


class Search(BaseModel):
    """The search that a run is a trial of: it chose values of `keys` by `objective`."""

    model_config = ConfigDict(frozen=True)

    objective: Text
    keys: tuple[Text, ...]

    @property
    def text(self) -> str:
        """What was chosen on what."""
        return f"values of {', '.join(self.keys)} on held-out training images ({self.objective})"


class Environment(_Lenient):
    """env.json: every start of a run, oldest first, and the images it was made with.

    `search`: None for a run that is no trial of a search.
    """

    starts: tuple[Start, ...] = ()
    data: Images = Images()
    search: Search | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_a_single_start(cls, content: Any) -> Any:
        """Version 0.1 recorded the last start alone, at the top of the file."""
        if not isinstance(content, Mapping) or "starts" in content:
            return content
        start = {key: value for key, value in content.items() if key in Start.model_fields}
        return {"starts": [start] if start else [], "data": content.get("data", {})}

    @property
    def threads(self) -> int | None:
        """The number of torch threads, which every start of a run shares."""
        return next((start.threads for start in self.starts if start.threads), None)

    @property
    def trained(self) -> tuple[Start, ...]:
        """The starts that trained, whose code and machines the result comes from; else all."""
        return tuple(start for start in self.starts if start.has_trained) or self.starts
