"""Random resized crops: a window of random area and shape of the whole image, then resized.

Szegedy et al.: Going deeper with convolutions, CVPR 2015, as torchvision's RandomResizedCrop does
it: the first of ten windows that fits into the image.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ATTEMPTS = 10
RATIO = (3 / 4, 4 / 3)  # torchvision's default


@dataclass(frozen=True)
class RandomCrops:
    """Windows whose share of the image's area is in `scale`, and width over height in `ratio`."""

    scale: tuple[float, float]
    ratio: tuple[float, float] = RATIO

    def draw(self, count: int, rng: torch.Generator) -> Tensor:
        """Draw for `count` images of any size: (count, 22) float32.

        Ten shares of the area, ten ratios, and the place of the window as shares of the room that
        it has: the sizes of image files are not known before they are decoded.
        """
        low, high = torch.tensor(self.ratio).log().tolist()
        area = torch.empty(count, ATTEMPTS).uniform_(*self.scale, generator=rng)
        ratio = torch.empty(count, ATTEMPTS).uniform_(low, high, generator=rng).exp_()
        place = torch.rand(count, 2, generator=rng)
        return torch.cat((area, ratio, place), dim=1)

    def box(self, draw: Tensor, height: int, width: int) -> tuple[int, int, int, int]:
        """Return top, left, height and width of the window in an image; `draw`: (22,)."""
        numbers = draw.tolist()
        down, right = numbers[2 * ATTEMPTS :]
        attempts = zip(numbers[:ATTEMPTS], numbers[ATTEMPTS : 2 * ATTEMPTS], strict=True)
        for share, ratio in attempts:
            area = share * height * width
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
        return self._central(height, width)

    def _central(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The largest central window whose shape is allowed."""
        low, high = self.ratio
        w, h = width, height
        if width / height < low:
            h = round(width / low)
        elif width / height > high:
            w = round(height * high)
        return (height - h) // 2, (width - w) // 2, h, w

    def cut(self, image: Tensor, draw: Tensor, side: int) -> Tensor:
        """Cut the window out of an image and resize it: (3, H, W) to (side, side, 3) uint8."""
        from torchvision.transforms.v2 import functional

        box = self.box(draw, *image.shape[1:])
        window = functional.resized_crop(image, *box, size=[side, side], antialias=True)
        return window.permute(1, 2, 0)

    def cut_all(self, images: Tensor, draws: Tensor, side: int) -> Tensor:
        """Do so with a batch: (B, S, S, 3) uint8 and (B, 22) to (B, side, side, 3) uint8."""
        windows = images.new_empty(len(images), side, side, 3)
        # numbers are read one by one, which on a GPU would wait for it each time
        for row, (image, draw) in enumerate(zip(images, draws.cpu(), strict=True)):
            windows[row] = self.cut(image.permute(2, 0, 1), draw, side)
        return windows
