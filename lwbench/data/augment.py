"""Augmentation of whole batches on the device, equal to torchvision's functions pixel by pixel.

An image is padded and cropped, mirrored, rotated (nearest pixel, corners black), normalised, erased
in a rectangle and mixed with another one, in this order. The three geometric steps only decide
which pixel goes where, so they are one gather. The random numbers are functions of (seed, epoch,
image): see `draws`.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from .draws import Draws, generator, numpy_generator

Pixels = Annotated[int, Field(ge=0)]
Degrees = Annotated[float, Field(ge=0, le=180)]
Probability = Annotated[float, Field(ge=0, le=1)]
Alpha = Annotated[float, Field(ge=0)]

# side of a window in pixels, from which copying windows is faster on a CPU than gathering pixels
LARGE = 64
# share of the window's area, and height over width: the defaults of torchvision's RandomErasing
ERASED_AREA = (0.02, 0.33)
ERASED_RATIO = (0.3, 3.3)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What to do to training images; each step is off at zero.

    `crop_padding`: black pixels on every side before a random crop. `flip`: mirror left to right
    with probability 1/2. `rotation`: rotate by up to so many degrees either way. `erasing`: the
    probability of erasing a rectangle (to the training set's mean colour). `mixup`, `cutmix`: alpha
    of the Beta distribution of the mixing coefficient; with both, each image takes either with
    probability 1/2. Partners are neighbours in the epoch's order, the first with the second, the
    third with the fourth: an even batch size keeps them in one batch.
    """

    crop_padding: Pixels = 0
    flip: bool = False
    rotation: Degrees = 0.0
    erasing: Probability = 0.0
    mixup: Alpha = 0.0
    cutmix: Alpha = 0.0

    @property
    def mixes(self) -> bool:
        """Whether images are mixed in pairs, so that labels are soft."""
        return self.mixup > 0 or self.cutmix > 0

    def draw(self, count: int, *, stored: int, window: int, seed: int, epoch: int) -> Draws:
        """Draw an epoch's parameters for `count` images of `stored` px, cropped to `window` px."""
        places = stored + 2 * self.crop_padding - window + 1

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
        if self.erasing:
            draws["erase"] = erase_boxes(count, window, self.erasing, rng("erasing"))
        if self.mixes:
            draws |= self._draw_mix(count, window, seed, epoch)
        return Draws(**draws)

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


def cosine_and_sine(degrees: Tensor) -> Tensor:
    """Return cosine and sine of angles (N,) float64 as (N, 2) float32; counter-clockwise."""
    radians = degrees * (math.pi / 180)
    return torch.stack((radians.cos(), radians.sin()), dim=1).float()


def gather_windows(
    images: Tensor,
    top: Tensor,
    left: Tensor,
    *,
    window: int,
    padding: int = 0,
    flip: Tensor | None = None,
    rotation: Tensor | None = None,
) -> Tensor:
    """Pad, crop, mirror and rotate a batch in one gather.

    `images`: (B, S, S, 3) uint8; `top`, `left`, `flip`: (B,) int64; `rotation`: (B, 2) cosine and
    sine. Returns (B, window, window, 3) uint8. Equal to F.pad with zeros, then torchvision's crop,
    hflip and rotate (nearest, expand=False, fill 0) of each image.
    """
    if rotation is None and window >= LARGE and images.device.type == "cpu":
        return copy_windows(images, top, left, window=window, padding=padding, flip=flip)
    count, side = images.shape[:2]
    width = side + 2 * padding
    # one more black pixel at the end, for what a rotation brings in from outside
    pixels = images.new_zeros(count * width * width + 1, 3)
    inner = slice(padding, padding + side)
    pixels[:-1].view(count, width, width, 3)[:, inner, inner] = images
    # the index of a pixel is that of its window's corner plus its offset within the window
    offsets = window_offsets(window, width, flip, count, images.device)
    first = torch.arange(count, device=images.device) * width**2 + top * width + left
    if rotation is None:
        index = offsets + first[:, None]
    else:
        # torchvision's rotate() samples pixels with grid_sample; sampling their *offsets* with it
        # gives the same choice of pixels. 0 means outside, hence the shift by one.
        near = F.grid_sample(
            (offsets + 1).float().view(-1, 1, window, window).expand(count, -1, -1, -1),
            rotated_grid(rotation, window),
            mode="nearest",
            padding_mode="zeros",
            align_corners=False,
        ).view(count, -1)
        index = near.long().add_((first - 1)[:, None])
        index.masked_fill_(near == 0, len(pixels) - 1)
    return pixels.index_select(0, index.view(-1)).view(count, window, window, 3)


def copy_windows(
    images: Tensor, top: Tensor, left: Tensor, *, window: int, padding: int, flip: Tensor | None
) -> Tensor:
    """Do what `gather_windows` does without a rotation, one image at a time."""
    if padding:
        images = F.pad(images, (0, 0, padding, padding, padding, padding))
    windows = images.new_empty(len(images), window, window, 3)
    # plain numbers: indexing with tensors would wait for each of them
    mirrored = [False] * len(images) if flip is None else flip.tolist()
    for number, (row, column, mirror) in enumerate(
        zip(top.tolist(), left.tolist(), mirrored, strict=True)
    ):
        piece = images[number, row : row + window, column : column + window]
        windows[number] = piece.flip(1) if mirror else piece
    return windows


def window_offsets(
    window: int, width: int, flip: Tensor | None, count: int, device: torch.device
) -> Tensor:
    """Return each output pixel's place relative to its window's corner.

    (1, window**2) int64, or (count, window**2) where windows are mirrored.
    """
    column = torch.arange(window, device=device)
    row = column[:, None] * width
    plain = row + column
    # one row for all images, broadcast, where none is mirrored
    if flip is None:
        return plain.view(1, -1)
    return torch.stack((plain.view(-1), (row + column.flip(0)).view(-1))).index_select(0, flip)


def rotated_grid(rotation: Tensor, side: int) -> Tensor:
    """Return grid_sample's coordinates of rotated squares, (B, side, side, 2), as TF.rotate does.

    Written with torchvision's order of operations, since a rounding decides on the nearest pixel.
    """
    axis = torch.linspace(-side * 0.5 + 0.5, side * 0.5 - 0.5, side, device=rotation.device)
    cosine, sine = (rotation / (0.5 * side)).split(1, dim=1)
    grid = rotation.new_empty(len(rotation), side, side, 2)
    torch.add((cosine * axis)[:, None, :], (-sine * axis)[:, :, None], out=grid[..., 0])
    torch.add((sine * axis)[:, None, :], (cosine * axis)[:, :, None], out=grid[..., 1])
    return grid


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
