"""Random numbers as functions of (purpose, seed, epoch), independent of any generator's history.

All numbers of an epoch are drawn at once on the CPU and indexed by image, so that neither the batch
size, the device, the number of workers nor an interruption changes what happens to an image.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """What an epoch does to each of N images; a step that is switched off is None.

    `top`, `left`: (N,) int64, the crop's corner in the padded image. `flip`: (N,) int64, 0 or 1.
    `rotation`: (N, 2) float32, cosine and sine of the angle. `crop`: (N, 22) float32, see
    `crops.RandomCrops`; `jitter`, `operations`: (N, 8) and (N, K, 3), see `policies`. `erase`,
    `box`: (N, 4) int64, the rectangle to erase or to take from the partner: top, left, bottom,
    right. `mixing`: (N,) float32, the image's own coefficient in a mixture; `blend`: (N,) bool,
    mixup (True) or cutmix.
    """

    top: Tensor
    left: Tensor
    flip: Tensor | None = None
    rotation: Tensor | None = None
    crop: Tensor | None = None
    jitter: Tensor | None = None
    operations: Tensor | None = None
    erase: Tensor | None = None
    box: Tensor | None = None
    mixing: Tensor | None = None
    blend: Tensor | None = None

    def to(self, device: torch.device) -> "Draws":
        """Return the same draws on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def take(self, index: Tensor) -> "Draws":
        """Return the draws of the images in `index`, (B,) int64."""
        return self._map(lambda tensor: tensor.index_select(0, index))

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Draws":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: change(v) for k, v in values.items() if v is not None})


def stable_seed(*parts: object) -> int:
    """Return a 63-bit seed made from the parts' text.

    Unlike `hash`, it is the same in every process and Python version.
    """
    text = "/".join(str(part) for part in parts)
    # class names come from file names, which need not be valid Unicode
    content = text.encode("utf-8", "surrogateescape")
    # torch.Generator takes signed 64-bit seeds: drop one bit
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1


def generator(*parts: object) -> torch.Generator:
    """Return a fresh CPU generator whose stream depends on the parts alone."""
    return torch.Generator().manual_seed(stable_seed(*parts))


def numpy_generator(*parts: object) -> np.random.Generator:
    """Return a NumPy generator, for distributions that torch's generators do not offer."""
    # PCG64 by name: NumPy may change what default_rng stands for
    return np.random.Generator(np.random.PCG64(stable_seed(*parts)))


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Return the order of an epoch: a permutation of `count` images, (count,) int64 on the CPU."""
    return torch.randperm(count, generator=generator("order", seed, epoch))


def evaluation_sample(count: int, most: int, seed: int) -> Tensor:
    """Choose at most `most` of `count` images to evaluate: their rows in order, int64 on the CPU.

    A smaller sample of the same seed is part of a larger one.
    """
    return torch.randperm(count, generator=generator("evaluate", seed))[:most].sort().values


def held_out(count: int, one_in: int, *parts: object) -> Tensor:
    """Choose the images to hold out: (count,) bool, one in `one_in`, at least one."""
    chosen = torch.randperm(count, generator=generator("split", *parts))[: max(1, count // one_in)]
    return torch.zeros(count, dtype=torch.bool).index_fill_(0, chosen, True)
