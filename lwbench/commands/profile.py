"""Count a network's parameters and MACs under each rule; -m for several networks."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ..config import command_values, expanded
from ..errors import UsageError
from ..logs import log
from ..registry import DATASETS, MODELS, Spec, validated
from ..runs.keys import Group, ImageSize
from ..runs.sources import allow
from ._building import built_data
from ._keys import Key, help_of_groups

if TYPE_CHECKING:
    from torch import Tensor

FLAGS = ("-m",)
KEYS: dict[str, Key] = {}
# a larger classifier would be a mistake, and may not fit into memory
NumClasses = Annotated[int, Field(gt=0, le=1_000_000)]


def help() -> str:
    return help_of_groups("profile", "[-m] ")


class Options:
    """The keys of a profile besides the network; the signature is their schema."""

    def __init__(
        self,
        *,
        image_size: ImageSize,
        num_classes: NumClasses,
        layers: bool,
        deploy: bool,
        picture: str | None,
        format: Literal["terminal", "markdown", "csv", "json"],
    ) -> None:
        self.image_size, self.num_classes = image_size, num_classes
        self.layers, self.format = layers, format
        self.deploy = deploy
        self.picture = None if picture is None else Path(picture)


def run(arguments: list[str], flags: set[str]) -> int:
    """Print what one network costs, or a row per network with -m.

    Raises UsageError, after the others are printed, for networks that cannot be counted.
    """
    jobs = expanded(arguments, "profile") if "-m" in flags else [tuple(arguments)]
    # all are validated before the first network is built
    composed = command_values("profile", jobs)
    requests = [
        (
            choices["model"],
            MODELS.spec(Group.model_validate(values["model"]).spec),
            _options(values),
        )
        for values, choices in composed
    ]
    for values, _ in composed:
        allow(values["model"])  # a network in a file that this command names
    _check_pictures([options for _, _, options in requests])
    from ..measure.profile import show

    profiles, failures = [], []
    for (choice, spec, options), (values, choices) in zip(requests, composed, strict=True):
        try:
            found = _profile(_name(choice, spec), spec, options, values, choices)
        except UsageError as error:  # of several networks, the others are shown
            failures.append(f"{_name(choice, spec)}: {error}")
        else:
            profiles.append(found)
    if profiles:
        show(profiles, requests[0][2].format)
    if failures:
        raise UsageError("\n".join(failures))
    return 0


def _profile(
    name: str, spec: Spec, options: Options, values: dict[str, Any], choices: dict[str, str]
) -> dict[str, Any]:
    """Return the figures of one network, and draw its picture if there is to be one."""
    from ..measure.profile import profile

    size = options.image_size
    build = partial(spec.build, options.num_classes)
    found = profile(
        build,
        name,
        image_size=size,
        num_classes=options.num_classes,
        layers=options.layers or options.picture is not None,
    )
    if options.deploy:
        from ..deploy.compare import deploy_form

        found["deploy"] = deploy_form(build, size, *_images(values["data"], choices, size))
    if options.picture is not None:
        from ..measure.picture import draw

        draw(found, options.picture)
        log.info("written: %s", options.picture)
    if not options.layers:
        found.pop("layers", None)
    return found


def _images(
    data: dict[str, Any], choices: dict[str, str], size: int
) -> tuple["Tensor", str] | tuple[()]:
    """Return the first test images of the data set that is named, and its name."""
    if "data" not in choices:
        return ()
    import torch

    from ..deploy.compare import IMAGES

    group = DATASETS.spec(Group.model_validate(data).spec)
    device = torch.device("cpu")
    found = built_data(
        group, {}, image_size=size, batch_size=IMAGES, seed=0, device=device, workers=0
    )
    images, _ = next(found.eval_batches())
    return images, f"test images of {found.name}"


def _check_pictures(options: list[Options]) -> None:
    """Raise UsageError for a file that cannot be a picture, and for several pictures in one."""
    pictures = [one.picture for one in options if one.picture is not None]
    if bad := [path for path in pictures if path.suffix not in (".png", ".svg")]:
        raise UsageError(f"picture={bad[0]}: expected a file that ends in .png or .svg")
    if len(set(pictures)) < len(pictures):
        raise UsageError(f"picture={pictures[0]}: several networks cannot have one picture")


def _name(choice: str, spec: Spec) -> str:
    """The network's name; model=torchvision, model=timm and model=file stand for many networks."""
    if choice == "file":
        return str(spec.arguments["function"])
    is_library = choice == spec.builder.__name__ and "arch" in spec.arguments
    return f"{choice} {spec.arguments['arch']}" if is_library else choice


def _options(values: dict[str, Any]) -> Options:
    own = {key: value for key, value in values.items() if key not in ("model", "data")}
    return Options(**validated(Options, own, ""))
