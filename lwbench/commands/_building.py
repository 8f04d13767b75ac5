"""Devices, data and networks for `train` and `eval`, built from validated configurations."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..engine import threads
from ..errors import UsageError
from ..registry import Spec, validated
from ..runs.cache import cached
from ..runs.provenance import cpu_model
from ..runs.runconfig import RunConfig
from ._counting import content_digest

EVALUATION_SAMPLE = 10_000  # training images: an accuracy within 1 point, decoded in half a minute

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..data.loader import Data
    from ..measure.complexity import Complexity


def resolved_device(name: str) -> "torch.device":
    """The torch device of that name; "auto" is the first GPU, or the CPU. Raises UsageError."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:120]
        raise UsageError(f"device={name} is not available: {reason}; use auto or cpu") from None
    return device


def prepared_device(name: str) -> "torch.device":
    """`resolved_device`, with threads configured before torch is imported, which starts them."""
    threads.configure()
    return resolved_device(name)


def device_name(device: "torch.device") -> str:
    """The GPU's or the processor's name."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()


def built_data(
    spec: Spec,
    augment: Mapping[str, Any],
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    device: "torch.device",
    workers: int,
    validation: float = 0.0,
) -> "Data":
    """The data set as batches on a device. Raises UsageError where it cannot be read."""
    from ..data.augment import Augment
    from ..data.loader import Data

    # before the images are read, which may take long
    augmentation = Augment(**validated(Augment, dict(augment), "data.augment"))
    return Data(
        spec.build().load(image_size),
        image_size=image_size,
        batch_size=batch_size,
        seed=seed,
        device=device,
        augment=augmentation,
        workers=workers,
        validation=validation,
    )


def train_images_to_evaluate(choice: bool | str, data: "Data") -> int:
    """How many training images the final weights are evaluated on; `choice`: evaluate_train.

    "auto" is all of a set that is held in memory, and a sample of image files, where all of them
    cost an epoch of decoding. Files that are packed count as files, so that the cache changes
    nothing that is recorded.
    """
    if choice == "auto":
        choice = "sample" if data.source.train.paths else True
    most = EVALUATION_SAMPLE if choice == "sample" else data.train_size
    return min(most, data.train_size) if choice else 0


def configured_data(config: RunConfig, spec: Spec, device: "torch.device") -> "Data":
    """The data set of a run, as `built_data` makes it; `spec`: its validated builder."""
    return built_data(
        spec,
        config.augment,
        image_size=config.image_size,
        batch_size=config.batch_size,
        seed=config.seed,
        device=device,
        workers=config.num_workers,
        validation=config.validation,
    )


def measured_cost(
    model: "nn.Module", spec: Mapping[str, Any], num_classes: int, image_size: int, name: str
) -> "Complexity":
    """Parameters, MACs and memory at this size, without layers.

    Cached on disk by `spec`, the network's builder and arguments: a walk over the network takes
    longer than some epochs. Raises UsageError if the network cannot take images of this size, or
    does not return one logit per class.
    """
    from ..measure.complexity import Complexity

    def make(keys: list[str]) -> dict[str, Any]:
        facts = asdict(_counted(model, image_size, name))
        return {keys[0]: facts | {"layers": []}}

    key = json.dumps([spec, num_classes, image_size])
    cost = Complexity(**cached("costs", content_digest(), [key], make)[key])
    if cost.out_shape != [1, num_classes]:
        raise UsageError(
            f"{name} returns a tensor of shape {tuple(cost.out_shape)} for one image; a classifier "
            f"of {num_classes} classes returns (1, {num_classes})"
        )
    return cost


def _counted(model: "nn.Module", image_size: int, name: str) -> "Complexity":
    from ..measure.complexity import count

    try:
        return count(model, image_size=image_size)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:400]
        raise UsageError(
            f"{name} cannot take images of image_size={image_size}: {reason}"
        ) from None


def check_batch_of_one(model: "nn.Module", image_size: int) -> None:
    """Raises UsageError where batch norm sees a single value per channel with one image.

    Tried on a copy without data, so that it costs milliseconds.
    """
    import torch

    from ..measure.data_free import data_free

    copy = data_free(model).train()
    try:
        copy(torch.zeros(1, 3, image_size, image_size, device="meta"))
    except Exception as error:
        if "more than 1 value per channel" not in str(error):
            return  # a network that cannot run without data; the first step will tell
        raise UsageError(
            "batch_size=1: this network's batch norm cannot train on one image at "
            f"image_size={image_size}; use a batch_size of 2 or more"
        ) from None
