"""Memory that a network needs, computed from the lives of its tensors; nothing is measured here."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .walk import Walk

if TYPE_CHECKING:
    from .complexity import Complexity

FLOAT32 = 4  # bytes


def peak_bytes(walk: Walk) -> int:
    """Parameters, buffers and the largest sum of tensors that are alive at the same time.

    A tensor lives from the operator that makes it to the last one that reads it; views and in-place
    operators make no new one. Operators' own workspace and the allocator's rounding are not in it.
    """
    fixed = sum(walk.bytes[storage] for storage in walk.fixed)
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for moment, touch in enumerate(walk.touches):
        for storage in (*touch.reads, *touch.writes):
            first.setdefault(storage, moment)
            last[storage] = moment
    change = [0] * (len(walk.touches) + 1)
    for storage in first.keys() - walk.fixed:
        change[first[storage]] += walk.bytes[storage]
        change[last[storage] + 1] -= walk.bytes[storage]
    return fixed + max(_running_sums(change))


def _running_sums(numbers: Iterable[int]) -> Iterable[int]:
    total = 0
    for number in numbers:
        total += number
        yield total


def saved_bytes(walk: Walk) -> int:
    """What autograd keeps of one image's forward pass until the backward pass, without weights."""
    return sum(walk.bytes[storage] for storage in walk.saved - walk.fixed)


def training_bytes(
    complexity: "Complexity", batch_size: int, optimizer_states_per_param: int = 1
) -> int:
    """An estimate of what training in float32 needs, in bytes, beside interpreter and libraries.

    Weights, gradients and the optimizer's states (SGD with momentum 1 a parameter, Adam 2); per
    image, what autograd keeps and the working tensors of the largest moment, whose gradients are as
    large as they are. Interpreter, torch and torchvision take another 0.7 to 0.8 GiB. On a CPU the
    peak of LDC3, MobileNetV3-Small, MobileNetV2 and ResNet-50 lay within 20 % of it where the
    allocator returned freed memory (MALLOC_MMAP_THRESHOLD_=262144, or tensors above 32 MiB); with
    glibc's defaults and small batches fragments add up to two thirds.
    """
    fixed = FLOAT32 * (complexity.params + complexity.buffers)
    working = complexity.peak_bytes - fixed
    states = FLOAT32 * complexity.params * (1 + optimizer_states_per_param)
    return fixed + states + batch_size * (complexity.saved_bytes + working)
