"""Random numbers as functions of (what for, seed, epoch): never of a generator's history.

All of an epoch's numbers are drawn at once on the CPU and indexed by image, so that neither the
batch size, the device, the workers nor an interruption can change what happens to an image.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor


def stable_seed(*parts: object) -> int:
    """A 63-bit seed from the parts' text; the same in every process and Python version."""
    text = "/".join(str(part) for part in parts)
    content = text.encode("utf-8", "surrogateescape")  # names need not be unicode
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1


def generator(*parts: object) -> torch.Generator:
    """A fresh CPU generator of its own stream for these parts."""
    return torch.Generator().manual_seed(stable_seed(*parts))


def numpy_generator(*parts: object) -> np.random.Generator:
    """Likewise, for the distributions that torch's generators do not offer."""
    return np.random.Generator(np.random.PCG64(stable_seed(*parts)))


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch: a permutation of `count` images, (count,) int64 on the CPU."""
    return torch.randperm(count, generator=generator("order", seed, epoch))


def held_out(count: int, one_in: int, *parts: object) -> Tensor:
    """Which of `count` images to hold out: (count,) bool, one in `one_in`, at least one."""
    chosen = torch.randperm(count, generator=generator("split", *parts))[: max(1, count // one_in)]
    return torch.zeros(count, dtype=torch.bool).index_fill_(0, chosen, True)
