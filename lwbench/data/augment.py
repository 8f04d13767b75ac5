"""Augmentation of whole batches on the device, equal to torchvision's functions pixel by pixel.

An image is cropped (padded, or a window of random area that is resized: `crops`), mirrored, rotated
(nearest pixel, corners black), changed in its colours (`policies`), normalised, erased in a
rectangle and mixed with another one, in this order. The geometric steps but resizing only decide
which pixel goes where, so they are one gather. The random numbers are functions of (seed, epoch,
image): see `draws`.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor

from ..errors import UsageError
from .crops import RATIO, RandomCrops
from .draws import Draws, generator, numpy_generator
from .geometry import cosine_and_sine, gather_windows
from .policies import BINS, draw_jitter, draw_operations, jittered, operated

Pixels = Annotated[int, Field(ge=0)]
Degrees = Annotated[float, Field(ge=0, le=180)]
Probability = Annotated[float, Field(ge=0, le=1)]
Alpha = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Ratio = Annotated[float, Field(gt=0, le=100)]


def _ascending(values: list[float]) -> list[float]:
    if len(values) != 2 or values[0] > values[1]:
        raise ValueError("expected the smallest and the largest value, such as [0.08, 1]")
    return values


Shares = Annotated[list[Share], AfterValidator(_ascending)]
Ratios = Annotated[list[Ratio], AfterValidator(_ascending)]

JITTER = ("brightness", "contrast", "saturation", "hue")
# share of the window's area, and height over width: the defaults of torchvision's RandomErasing
ERASED_AREA = (0.02, 0.33)
ERASED_RATIO = (0.3, 3.3)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What to do to training images; each step is off at zero, false or None.

    `crop_padding`: black pixels on every side before a random crop. `crop_scale`: a random resized
    crop of the whole image instead, the smallest and largest share of its area; `crop_ratio`: its
    width over height, [3/4, 4/3] if None. `flip`: mirror left to right with probability 1/2.
    `rotation`: rotate by up to so many degrees either way. `brightness`, `contrast`, `saturation`,
    `hue`: greatest changes of torchvision's ColorJitter. `trivial_augment`: one random operation of
    random strength. `rand_augment`: so many random operations of strength `rand_magnitude`, of 30.
    `erasing`: the probability of erasing a rectangle (to the training set's mean colour). `mixup`,
    `cutmix`: alpha of the Beta distribution of the mixing coefficient; with both, each image takes
    either with probability 1/2. Partners are neighbours in the epoch's order, the first with the
    second, the third with the fourth: an even batch size keeps them in one batch. Raises UsageError
    for steps that exclude each other.
    """

    crop_padding: Pixels = 0
    crop_scale: Shares | None = None
    crop_ratio: Ratios | None = None
    flip: bool = False
    rotation: Degrees = 0.0
    brightness: Probability = 0.0
    contrast: Probability = 0.0
    saturation: Probability = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    trivial_augment: bool = False
    rand_augment: Annotated[int, Field(ge=0, le=16)] = 0
    rand_magnitude: Annotated[int, Field(ge=0, lt=BINS)] = 9
    erasing: Probability = 0.0
    mixup: Alpha = 0.0
    cutmix: Alpha = 0.0

    def __post_init__(self) -> None:
        if self.crop_scale and self.crop_padding:
            raise UsageError(
                "data.augment.crop_scale crops the image itself, so that crop_padding has no "
                "effect: set data.augment.crop_padding=0"
            )
        if self.trivial_augment and self.rand_augment:
            raise UsageError("data.augment.trivial_augment and rand_augment exclude each other")

    @property
    def crops(self) -> RandomCrops | None:
        """The random resized crops, which are of whole images; None where they are off."""
        if self.crop_scale is None:
            return None
        (low, high), (flat, wide) = self.crop_scale, self.crop_ratio or RATIO
        return RandomCrops((low, high), (flat, wide))

    @property
    def mixes(self) -> bool:
        """Whether images are mixed in pairs, so that labels are soft."""
        return self.mixup > 0 or self.cutmix > 0

    def draw(self, count: int, *, stored: int, window: int, seed: int, epoch: int) -> Draws:
        """Draw an epoch's parameters for `count` images of `stored` px, cropped to `window` px."""
        # a resized crop has the size of the window already
        places = 1 if self.crop_scale else stored + 2 * self.crop_padding - window + 1

        # one stream per step, so that switching a step on changes no draw of the others
        def rng(step: str) -> torch.Generator:
            return generator(step, seed, epoch)

        # drawn even where only one place is possible: the stream costs nothing
        corner = torch.randint(places, (2, count), generator=rng("crop"))
        draws = {"top": corner[0], "left": corner[1]}
        if self.flip:
            draws["flip"] = torch.randint(2, (count,), generator=rng("flip"))
        if self.rotation:
            # float64, as torchvision computes its angles in Python
            unit = torch.rand(count, generator=rng("rotation"), dtype=torch.float64) * 2 - 1
            draws["rotation"] = cosine_and_sine(unit * self.rotation)
        if crops := self.crops:
            draws["crop"] = crops.draw(count, rng("resized crop"))
        if any(self._jitter.values()):
            draws["jitter"] = draw_jitter(count, rng("jitter"), **self._jitter)
        if per_image := int(self.trivial_augment) or self.rand_augment:
            draws["operations"] = draw_operations(count, per_image, rng("operations"))
        if self.erasing:
            draws["erase"] = erase_boxes(count, window, self.erasing, rng("erasing"))
        if self.mixes:
            draws |= self._draw_mix(count, window, seed, epoch)
        return Draws(**draws)

    @property
    def _jitter(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in JITTER}

    def _draw_mix(self, count: int, window: int, seed: int, epoch: int) -> dict[str, Tensor]:
        rng = numpy_generator("mix", seed, epoch)
        # one of the two for each image, at random where both are on
        blend = torch.full((count,), bool(self.mixup))
        if self.mixup and self.cutmix:
            blend = torch.from_numpy(rng.random(count) < 0.5)
        mixup, cutmix = (
            torch.from_numpy(rng.beta(alpha, alpha, count)) if alpha else torch.ones(count).double()
            for alpha in (self.mixup, self.cutmix)
        )
        centre = torch.from_numpy(rng.integers(0, window, (count, 2)))
        box = cut_boxes(cutmix, centre, window)
        # clipping at the borders makes a rectangle smaller: labels are mixed by what is really left
        area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
        mixing = torch.where(blend, mixup, 1 - area / window**2).float()
        return {"mixing": mixing, "blend": blend, "box": box}

    def crop(self, images: Tensor, draws: Draws, window: int) -> Tensor:
        """Apply the geometric steps: (B, S, S, 3) uint8 to (B, window, window, 3) uint8."""
        return gather_windows(
            images,
            draws.top,
            draws.left,
            window=window,
            padding=self.crop_padding,
            flip=draws.flip,
            rotation=draws.rotation,
        )

    def recolour(self, windows: Tensor, draws: Draws) -> Tensor:
        """Apply colour jitter and random operations: (B, H, H, 3) uint8 to the same."""
        if draws.jitter is None and draws.operations is None:
            return windows
        strength = None if self.trivial_augment else self.rand_magnitude
        changed = torch.empty_like(windows)
        jitter, operations = (d if d is None else d.cpu() for d in (draws.jitter, draws.operations))
        for row, window in enumerate(windows):
            image = window.permute(2, 0, 1)
            if jitter is not None:
                image = jittered(image, jitter[row])
            if operations is not None:
                image = operated(image, operations[row], strength)
            changed[row] = image.permute(1, 2, 0)
        return changed

    def finish(self, x: Tensor, draws: Draws) -> Tensor:
        """Erase and mix normalised images, (B, 3, H, H); `x` may be overwritten."""
        if draws.erase is not None:
            # after normalisation 0 is the training set's mean colour
            x = x.masked_fill_(inside(draws.erase, x.shape[-1]), 0)
        if draws.mixing is None or draws.box is None or draws.blend is None:
            return x
        # the order of the epoch is random, so the neighbour is a random image
        partner = x.index_select(0, partners(len(x), x.device))
        mixing = draws.mixing.to(x.dtype).view(-1, 1, 1, 1)
        blended = partner * (1 - mixing) + x * mixing
        # both mixtures of the whole batch and a choice: fewer kernels than two halves of it
        cut = torch.where(inside(draws.box, x.shape[-1]), partner, x)
        return torch.where(draws.blend.view(-1, 1, 1, 1), blended, cut)


def soft_labels(labels: Tensor, mixing: Tensor, num_classes: int) -> Tensor:
    """Return the labels of mixed images, (B, num_classes) float32: each row sums to one."""
    own = F.one_hot(labels, num_classes).float()
    partner = own.index_select(0, partners(len(labels), labels.device))
    return partner * (1 - mixing[:, None]) + own * mixing[:, None]


def partners(count: int, device: torch.device) -> Tensor:
    """Return each image's neighbour in pairs, (count,) int64; an odd last image is its own."""
    # x ^ 1 exchanges 0 and 1, 2 and 3, ...
    return (torch.arange(count, device=device) ^ 1).clamp_max_(count - 1)


def erase_boxes(
    count: int, side: int, probability: float, rng: torch.Generator, attempts: int = 10
) -> Tensor:
    """Draw rectangles to erase as RandomErasing does: (count, 4) int64, empty where none.

    The first of ten attempts that fits the image is taken, so nearly every image that is drawn is
    erased.
    """
    area = torch.empty(count, attempts).uniform_(*ERASED_AREA, generator=rng) * side**2
    low, high = (math.log(ratio) for ratio in ERASED_RATIO)
    ratio = torch.empty(count, attempts).uniform_(low, high, generator=rng).exp()
    height, width = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (height < side) & (width < side)
    chosen = fits.long().argmax(1, keepdim=True)  # the first that fits
    height, width = height.gather(1, chosen)[:, 0], width.gather(1, chosen)[:, 0]
    corner = torch.rand(2, count, generator=rng)
    top = (corner[0] * (side - height + 1)).long()
    left = (corner[1] * (side - width + 1)).long()
    # drawn last: the probability changes which images are erased, not where
    erased = (torch.rand(count, generator=rng) < probability) & fits.any(1)
    return torch.stack((top, left, top + height, left + width), dim=1) * erased[:, None]


def cut_boxes(mixing: Tensor, centre: Tensor, side: int) -> Tensor:
    """Return CutMix's rectangles around `centre` (N, 2), clipped to the image: (N, 4) int64.

    The formula of torchvision.transforms.v2.CutMix: half sides int(side * sqrt(1 - mixing) / 2).
    """
    # as torchvision: the share of the area is 1 - mixing, before clipping
    half = (0.5 * (1 - mixing).sqrt() * side).long()[:, None]
    return torch.cat(((centre - half).clamp_min(0), (centre + half).clamp_max(side)), dim=1)


def inside(box: Tensor, side: int) -> Tensor:
    """Return which pixels lie in each image's rectangle: (N, 1, side, side) bool."""
    place = torch.arange(side, device=box.device)
    top, left, bottom, right = (edge[:, None] for edge in box.unbind(1))
    rows, columns = (place >= top) & (place < bottom), (place >= left) & (place < right)
    return (rows[:, :, None] & columns[:, None, :])[:, None]
