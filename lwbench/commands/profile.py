"""Count a network's parameters and MACs under each rule; -m for several networks."""

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field

from ..config import command_values, expanded
from ..errors import UsageError
from ..registry import MODELS, Spec, validated
from ..runs.runconfig import Group, ImageSize
from ..runs.sources import allow
from ._keys import Key, help_of_groups

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
        format: Literal["terminal", "markdown", "csv", "json"],
    ) -> None:
        self.image_size, self.num_classes = image_size, num_classes
        self.layers, self.format = layers, format


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
    from ..measure.profile import profile, show

    profiles, failures = [], []
    for choice, spec, options in requests:
        try:
            found = profile(
                partial(spec.build, options.num_classes),
                _name(choice, spec),
                image_size=options.image_size,
                num_classes=options.num_classes,
                layers=options.layers,
            )
        except UsageError as error:  # of several networks, the others are shown
            failures.append(f"{_name(choice, spec)}: {error}")
        else:
            profiles.append(found)
    if profiles:
        show(profiles, requests[0][2].format)
    if failures:
        raise UsageError("\n".join(failures))
    return 0


def _name(choice: str, spec: Spec) -> str:
    """The network's name; model=torchvision, model=timm and model=file stand for many networks."""
    if choice == "file":
        return str(spec.arguments["function"])
    is_library = choice == spec.builder.__name__ and "arch" in spec.arguments
    return f"{choice} {spec.arguments['arch']}" if is_library else choice


def _options(values: dict[str, Any]) -> Options:
    own = {key: value for key, value in values.items() if key not in ("model", "data")}
    return Options(**validated(Options, own, ""))
