"""Normalisation and resizing as a part of the network, so that a runtime takes bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Pixels:
    """How images become a network's input.

    `side`: of the square images in pixels; `image_size`: of the network's input; `mean`, `std`: per
    channel, in units of [0, 1].
    """

    side: int
    image_size: int
    mean: Sequence[float]
    std: Sequence[float]

    def __str__(self) -> str:
        resize = f", resized to {self.image_size} px (bilinear{', antialias' * self.shrinks})"
        mean, std = ([round(value, 6) for value in values] for values in (self.mean, self.std))
        return f"mean {mean}, std {std}" + resize * (self.side != self.image_size)

    @property
    def shrinks(self) -> bool:
        """Whether images become smaller, for which resizing needs antialias."""
        return self.image_size < self.side

    def bytes_of(self, images: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 images whose normalisation gave `images`, (N, 3, S, S)."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (255 * (images * std + mean)).round().byte().permute(0, 2, 3, 1).contiguous()


class Preprocessed(nn.Module):
    """(N, side, side, 3) uint8 images in RGB -> the network's output.

    The steps are those of `data.loader.Data` for evaluation, after the central window is cut.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, pixels: Pixels) -> None:
        super().__init__()
        self.network, self.pixels = network, pixels
        mean, std = torch.tensor(pixels.mean), torch.tensor(pixels.std)
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", -mean / std)

    def forward(self, images: Tensor) -> Tensor:
        x = (images.float() * self.scale + self.shift).permute(0, 3, 1, 2)
        size = self.pixels.image_size
        if self.pixels.side != size:
            smaller = self.pixels.shrinks
            x = F.interpolate(
                x, (size, size), mode="bilinear", align_corners=False, antialias=smaller
            )
        out: Tensor = self.network(x)
        return out
