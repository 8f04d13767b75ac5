"""Devices, data and networks for `train` and `eval`, built from validated configurations."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..registry import Spec, validated
from ..runs.provenance import cpu_model

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
) -> "Data":
    """The data set as batches on a device. Raises UsageError where it cannot be read."""
    from ..data.augment import Augment
    from ..data.loader import Data

    return Data(
        spec.build().load(image_size),
        image_size=image_size,
        batch_size=batch_size,
        seed=seed,
        device=device,
        augment=Augment(**validated(Augment, dict(augment), "data.augment")),
        workers=workers,
    )


def measured_cost(model: "nn.Module", image_size: int, name: str) -> "Complexity":
    """Parameters, MACs and memory at this size. Raises UsageError if it cannot take the size."""
    from ..measure.complexity import count

    try:
        return count(model, image_size=image_size)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:150]
        raise UsageError(
            f"{name} cannot take images of image_size={image_size}: {reason}"
        ) from None
