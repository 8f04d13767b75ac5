"""Memory that a forward pass needs, computed from the lives of its tensors; nothing is measured."""

from collections.abc import Iterable, Iterator

from .walk import Walk

FLOAT32 = 4  # bytes


def peak_bytes(walk: Walk) -> int:
    """Return parameters, buffers and the largest sum of tensors that are alive at the same time.

    A tensor lives from the operator that creates it to the last one that reads it; views and
    in-place operators create none. Operators' workspaces and the allocator's rounding are not
    included.
    """
    fixed = sum(walk.bytes[storage] for storage in walk.fixed)
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for moment, touch in enumerate(walk.touches):
        for storage in (*touch.reads, *touch.writes):
            first.setdefault(storage, moment)
            last[storage] = moment
    # what comes into being and what ends at each moment; running sums give the living bytes
    change = [0] * (len(walk.touches) + 1)
    for storage in first.keys() - walk.fixed:
        change[first[storage]] += walk.bytes[storage]
        change[last[storage] + 1] -= walk.bytes[storage]
    return fixed + max(_running_sums(change))


def _running_sums(numbers: Iterable[int]) -> Iterator[int]:
    total = 0
    for number in numbers:
        total += number
        yield total


def saved_bytes(walk: Walk) -> int:
    """Return what autograd keeps of one image's forward pass, without weights."""
    return sum(walk.bytes[storage] for storage in walk.saved - walk.fixed)
