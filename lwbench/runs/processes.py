"""Which process of a training this is: torchrun starts several, and numbers them (ranks)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from . import machine


@dataclass(frozen=True)
class Place:
    """A process among the `size` processes of a training, and among those of its machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    node: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes the run and speaks to the user."""
        return self.rank == 0


def this_place() -> Place:
    """The place that torchrun's environment variables name; a process by itself without them."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")
    try:
        place = Place(*(int(os.environ[name]) for name in names))
    except (KeyError, ValueError):
        return Place()
    return place if place.size > 1 else Place()


def own_cores() -> int:
    """Cores for this process, at least 1: its share of those of the processes on this machine."""
    return max(1, machine.usable_cores() // this_place().local_size)


def with_images_per_process(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in `images_per_process` where batch norm is local, and so depends on that number.

    Raises UsageError where there is one process only, or the batch cannot be divided equally.
    """
    if not values.get("local_batchnorm"):
        return dict(values)
    size, batch = this_place().size, values.get("batch_size")
    given = values.get("images_per_process")
    if not isinstance(batch, int):
        return dict(values)  # which the validation will say
    if size == 1 and given is None:
        raise UsageError(
            "local_batchnorm=true has no effect in one process: start several with torchrun, or "
            "leave it out"
        )
    if batch % size:
        raise UsageError(f"batch_size={batch} cannot be divided among {size} processes equally")
    if given not in (None, batch // size) and size > 1:
        raise UsageError(
            f"images_per_process={given}: {size} processes have {batch // size} images each of "
            f"batch_size={batch}"
        )
    return {**values, "images_per_process": given or batch // size}
