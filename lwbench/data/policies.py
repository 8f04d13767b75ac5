"""Colour jitter, TrivialAugment and RandAugment, image by image with torchvision's kernels.

Müller, Hutter: TrivialAugment: tuning-free yet state-of-the-art data augmentation, ICCV 2021
(its "wide" form); Cubuk et al.: RandAugment, NeurIPS 2020. Operations, their strengths and their
order are those of torchvision.transforms.v2; outside the image is black, pixels are the nearest.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

BINS = 31  # strengths that an operation can have
OPERATIONS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness",
    "color", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
# operations that are reversed for half of the images
SIGNED = frozenset(OPERATIONS[1:10])
# The greatest strength: shear as a tangent, translation in pixels (of RandAugment as a share of
# the image's side), rotation in degrees, change of a factor, bits that posterizing removes.
WIDE = dict.fromkeys(("shear_x", "shear_y", *OPERATIONS[6:10]), 0.99) | {
    "translate_x": 32.0, "translate_y": 32.0, "rotate": 135.0, "posterize": 6.0,
}  # fmt: skip
RAND = dict.fromkeys(OPERATIONS[6:10], 0.9) | {
    "shear_x": 0.3, "shear_y": 0.3, "translate_x": 150 / 331, "translate_y": 150 / 331,
    "rotate": 30.0, "posterize": 4.0,
}  # fmt: skip


def draw_jitter(
    count: int,
    rng: torch.Generator,
    *,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> Tensor:
    """Draw factors of brightness, contrast and saturation, a shift of hue, and their order.

    (count, 8) float32: the adjustments are made in the order of the last four numbers. A factor
    is within 1 +- the given value, and not negative.
    """
    draws = torch.rand(count, 8, generator=rng)
    for column, (centre, width) in enumerate(
        ((1.0, brightness), (1.0, contrast), (1.0, saturation), (0.0, hue))
    ):
        low = max(centre - width, 0.0) if centre else -width
        draws[:, column].mul_(centre + width - low).add_(low)
    return draws


def jittered(image: Tensor, draw: Tensor) -> Tensor:
    """Adjust the colours of an image, (3, H, W) uint8, by a row of `draw_jitter`."""
    from torchvision.transforms.v2 import functional

    adjust = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    factors = draw[:4].tolist()
    for which in draw[4:].argsort().tolist():
        # what is switched off has the neutral value exactly, and need not be computed
        if factors[which] != (0.0 if which == 3 else 1.0):
            image = adjust[which](image, factors[which])
    return image


def draw_operations(count: int, per_image: int, rng: torch.Generator) -> Tensor:
    """Draw operation, strength and sign: (count, per_image, 3) int64."""
    shape = (count, per_image)
    bounds = (len(OPERATIONS), BINS, 2)
    return torch.stack([torch.randint(n, shape, generator=rng) for n in bounds], dim=2)


def operated(image: Tensor, draw: Tensor, strength: int | None) -> Tensor:
    """Apply the operations of a row of `draw_operations` to an image, (3, H, W) uint8.

    `strength`: of RandAugment, the same for all operations, from 0 to 30; None for TrivialAugment,
    whose strengths are drawn.
    """
    kernels = _kernels()
    for number, drawn, is_reversed in draw.tolist():
        name = OPERATIONS[number]
        greatest = WIDE if strength is None else RAND
        value = _magnitude(name, drawn if strength is None else strength, greatest, image.shape[1:])
        if name in SIGNED and is_reversed:
            value = -value
        image = kernels[name](image, value)
    return image


def _magnitude(name: str, number: int, greatest: Mapping[str, float], size: torch.Size) -> float:
    """The strength with this number, of `BINS` at equal distances, as torchvision rounds it."""
    if name == "posterize":
        return int((8 - torch.arange(BINS) / ((BINS - 1) / greatest[name])).round()[number])
    if name == "solarize":
        # a threshold, from which brightness is inverted: 1 changes nothing
        return float(torch.linspace(1.0, 0.0, BINS)[number])
    top = greatest.get(name)
    if top is None:
        return 0.0
    if greatest is RAND and name.startswith("translate"):
        top *= size[1] if name == "translate_x" else size[0]
    return float(torch.linspace(0.0, top, BINS)[number])


def _kernels() -> dict[str, Callable[[Tensor, float], Tensor]]:
    from torchvision.transforms.v2 import functional as f

    def affine(image: Tensor, **changes: Any) -> Tensor:
        still = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]}
        return f.affine(image, **(still | changes))

    def degrees(tangent: float) -> float:
        return math.degrees(math.atan(tangent))

    return {
        "identity": lambda x, _: x,
        "shear_x": lambda x, v: affine(x, shear=[degrees(v), 0.0], center=[0, 0]),
        "shear_y": lambda x, v: affine(x, shear=[0.0, degrees(v)], center=[0, 0]),
        "translate_x": lambda x, v: affine(x, translate=[int(v), 0]),
        "translate_y": lambda x, v: affine(x, translate=[0, int(v)]),
        "rotate": lambda x, v: f.rotate(x, v),
        "brightness": lambda x, v: f.adjust_brightness(x, 1 + v),
        "color": lambda x, v: f.adjust_saturation(x, 1 + v),
        "contrast": lambda x, v: f.adjust_contrast(x, 1 + v),
        "sharpness": lambda x, v: f.adjust_sharpness(x, 1 + v),
        "posterize": lambda x, v: f.posterize(x, int(v)),
        "solarize": lambda x, v: f.solarize(x, 255 * v),
        "autocontrast": lambda x, _: f.autocontrast(x),
        "equalize": lambda x, _: f.equalize(x),
    }
