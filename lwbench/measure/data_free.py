"""Networks without their data: shapes are enough for counting, and the meta device stores no more.

A pass over VGG16 then costs milliseconds and no memory. Some networks need data nevertheless: they
compute with tensors while they are built (RegNet), or read a value back into Python.
"""

import copy
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from ..errors import CodeError, UsageError, user_place

log = logging.getLogger(__name__)
T = TypeVar("T")


class DataNeededError(UsageError):
    """A network that was built without data cannot be run without data."""


def outline(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network without data, or with data if it computes while it is built.

    `build` is called a second time in that case. Raises UsageError as `built` does.
    """
    try:
        with torch.device("meta"):
            return build()
    except Exception as error:
        # code of the user's that fails may only miss data
        if isinstance(error, UsageError) and not isinstance(error, CodeError):
            raise
        log.debug("not built without data: %s", error)
        return built(build)


def built(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network. Raises UsageError with the reason if its arguments do not allow it."""
    try:
        return build()
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"the network cannot be built: {_reason(error)}") from error


def measured(build: Callable[[], nn.Module], figure: Callable[[nn.Module], T]) -> T:
    """Return `figure` of the network, which is built with data only if it cannot do without.

    Raises UsageError if it cannot be built, and what `figure` raises.
    """
    try:
        return figure(outline(build))
    except DataNeededError:
        return figure(built(build))


def data_free(model: nn.Module, device: str = "meta") -> nn.Module:
    """Return a float32 copy in evaluation mode on a device; on "meta" without data."""
    model = getattr(model, "_orig_mod", model)  # what torch.compile has wrapped
    memo: dict[int, Any] = {}
    if device == "meta":
        # entered in deepcopy's memo as already copied, so that no weight is ever held twice
        for tensor in (*model.parameters(), *model.buffers()):
            bare = tensor.detach().to("meta")
            parameter = isinstance(tensor, nn.Parameter)
            memo[id(tensor)] = nn.Parameter(bare, tensor.requires_grad) if parameter else bare
    return copy.deepcopy(model, memo).to(device).float().eval()


def without_data(run: Callable[[str], T], model: nn.Module, image: tuple[int, int, int]) -> T:
    """Return `run("meta")`, or `run("cpu")` if that fails; `image` is (channels, height, width).

    Raises UsageError if the network cannot run on such an image, and DataNeededError if a network
    without data might run had it been built with data.
    """
    try:
        return run("meta")
    except Exception as error:
        first = error
        log.debug("no pass without data: %s", error)
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        # There is nothing to run on the CPU. Where the failure is not about missing data it would
        # come again with data, so it is the one to show.
        kind = DataNeededError if _is_about_data(first) else UsageError
        raise kind(_refusal(image, first)) from first
    try:
        return run("cpu")
    except Exception as error:
        raise UsageError(_refusal(image, error)) from error


def _is_about_data(error: Exception) -> bool:
    """Return whether an operator failed because meta tensors hold no values."""
    return isinstance(error, NotImplementedError) or "meta" in str(error).lower()


def _refusal(image: tuple[int, int, int], error: Exception) -> str:
    size = " x ".join(map(str, image))
    return f"the network does not run on a {size} image: {_reason(error)}"


def _reason(error: Exception) -> str:
    """Return the first line of an error's message, or its type if it has none.

    An error in a network's file of the user's comes with its type, file and line.
    """
    reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    place = user_place(error)
    return f"{place}: {type(error).__name__}: {reason}" if place else reason
