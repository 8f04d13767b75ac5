"""Augmentation of whole batches on the device, equal to torchvision's functions pixel by pixel.

An image is padded and cropped, mirrored, turned (nearest pixel, corners black), normalised, erased
in a rectangle and mixed with another one, in this order. The three geometric steps only say which
pixel goes where, so they are one gather. What happens to an image is drawn for (seed, epoch, image)
alone: see `draws`.
"""

import math
from dataclasses import dataclass, fields
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from .draws import generator, numpy_generator

Pixels = Annotated[int, Field(ge=0)]
Degrees = Annotated[float, Field(ge=0, le=180)]
Probability = Annotated[float, Field(ge=0, le=1)]
Alpha = Annotated[float, Field(ge=0)]

LARGE = 64  # pixels of a window: from there on copies beat a gather of single pixels on a CPU
ERASED_SHARE = (0.02, 0.33)  # of the window's area, and
ERASED_RATIO = (0.3, 3.3)  # height over width: torchvision.transforms.RandomErasing's defaults


@dataclass(frozen=True)
class Draws:
    """What an epoch does to each of N images; a step that is switched off is None.

    `top`, `left`: (N,) int64, the crop's corner in the padded image. `flip`: (N,) int64, 0 or 1.
    `turn`: (N, 2) float32, cosine and sine of the angle. `erase`, `box`: (N, 4) int64, the
    rectangle to erase or to take from the partner: top, left, bottom, right. `share`: (N,) float32,
    the image's own part in a mixture; `blend`: (N,) bool, mixup (True) rather than cutmix.
    """

    top: Tensor
    left: Tensor
    flip: Tensor | None = None
    turn: Tensor | None = None
    erase: Tensor | None = None
    box: Tensor | None = None
    share: Tensor | None = None
    blend: Tensor | None = None

    def to(self, device: torch.device) -> "Draws":
        """The same on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def take(self, index: Tensor) -> "Draws":
        """What happens to the images of `index`, (B,) int64."""
        return self._map(lambda tensor: tensor.index_select(0, index))

    def _map(self, change) -> "Draws":
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return Draws(**{name: None if v is None else change(v) for name, v in values})


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What to do to training images; each step is off at zero.

    `crop_padding`: black pixels on every side before a random crop. `flip`: mirror left to right
    with probability 1/2. `rotation`: turn by up to so many degrees either way. `erasing`: the
    probability of erasing a rectangle (to the training set's mean colour). `mixup`, `cutmix`: alpha
    of the Beta distribution of an image's share; with both, each image takes either with
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
        """Whether images are mixed in pairs, and labels soft."""
        return self.mixup > 0 or self.cutmix > 0

    def draw(self, count: int, *, stored: int, window: int, seed: int, epoch: int) -> Draws:
        """An epoch's draws for `count` images of `stored` px, cropped to `window` px."""
        places = stored + 2 * self.crop_padding - window + 1

        def rng(step: str) -> torch.Generator:  # a stream a step: one more changes no other
            return generator(step, seed, epoch)

        corner = torch.randint(places, (2, count), generator=rng("crop"))
        draws = {"top": corner[0], "left": corner[1]}
        if self.flip:
            draws["flip"] = torch.randint(2, (count,), generator=rng("flip"))
        if self.rotation:
            unit = torch.rand(count, generator=rng("rotation"), dtype=torch.float64) * 2 - 1
            draws["turn"] = turn(unit * self.rotation)
        if self.erasing:
            draws["erase"] = erase_boxes(count, window, self.erasing, rng("erasing"))
        if self.mixes:
            draws |= self._draw_mix(count, window, seed, epoch)
        return Draws(**draws)

    def _draw_mix(self, count: int, window: int, seed: int, epoch: int) -> dict[str, Tensor]:
        rng = numpy_generator("mix", seed, epoch)
        blend = torch.full((count,), bool(self.mixup))
        if self.mixup and self.cutmix:
            blend = torch.from_numpy(rng.random(count) < 0.5)
        share = [
            torch.from_numpy(rng.beta(alpha, alpha, count)) if alpha else torch.ones(count).double()
            for alpha in (self.mixup, self.cutmix)
        ]
        centre = torch.from_numpy(rng.integers(0, window, (count, 2)))
        box = cut_boxes(share[1], centre, window)
        area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
        cut_share = 1 - area / window**2  # what is left of it, after clipping at the borders
        share = torch.where(blend, share[0], cut_share).float()
        return {"share": share, "blend": blend, "box": box}

    def crop(self, images: Tensor, draws: Draws, window: int) -> Tensor:
        """The geometric steps: (B, S, S, 3) uint8 to (B, window, window, 3) uint8."""
        return gather_windows(
            images,
            draws.top,
            draws.left,
            window=window,
            padding=self.crop_padding,
            flip=draws.flip,
            turn=draws.turn,
        )

    def finish(self, x: Tensor, draws: Draws) -> Tensor:
        """Erasing and mixing of normalised images, (B, 3, H, H), in place where it can be."""
        if draws.erase is not None:
            x = x.masked_fill_(inside(draws.erase, x.shape[-1]), 0)
        if draws.share is None:
            return x
        partner = x.index_select(0, partners(len(x), x.device))
        share = draws.share.to(x.dtype).view(-1, 1, 1, 1)
        blended = partner * (1 - share) + x * share
        cut = torch.where(inside(draws.box, x.shape[-1]), partner, x)
        return torch.where(draws.blend.view(-1, 1, 1, 1), blended, cut)


def soft_labels(labels: Tensor, draws: Draws, num_classes: int) -> Tensor:
    """The mixed images' labels, (B, num_classes) float32: each row sums to one."""
    own = F.one_hot(labels, num_classes).float()
    partner = own.index_select(0, partners(len(labels), labels.device))
    return partner * (1 - draws.share[:, None]) + own * draws.share[:, None]


def partners(count: int, device: torch.device) -> Tensor:
    """Each image's neighbour in pairs, (count,) int64; an odd last image is its own."""
    return (torch.arange(count, device=device) ^ 1).clamp_max_(count - 1)


def turn(degrees: Tensor) -> Tensor:
    """Cosine and sine of angles (N,) float64, (N, 2) float32; counter-clockwise as TF.rotate."""
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
    turn: Tensor | None = None,
) -> Tensor:
    """Pad, crop, mirror and turn a batch in one gather.

    `images`: (B, S, S, 3) uint8; `top`, `left`, `flip`: (B,) int64; `turn`: (B, 2) cosine and sine.
    Returns (B, window, window, 3) uint8. Equal to F.pad with zeros, then torchvision's crop, hflip
    and rotate (nearest, expand=False, fill 0) of each image.
    """
    if turn is None and window >= LARGE and images.device.type == "cpu":
        return sliced_windows(images, top, left, window=window, padding=padding, flip=flip)
    count, side = images.shape[:2]
    width = side + 2 * padding
    # one black pixel more at the end, for what a turn brings in from outside
    pixels = images.new_zeros(count * width * width + 1, 3)
    inner = slice(padding, padding + side)
    pixels[:-1].view(count, width, width, 3)[:, inner, inner] = images
    offsets = window_offsets(window, width, flip, count, images.device)
    first = torch.arange(count, device=images.device) * width**2 + top * width + left
    if turn is None:
        index = offsets + first[:, None]
    else:
        # sampling the *offsets* with the sampler that rotate() uses makes them its own choice
        near = F.grid_sample(
            (offsets + 1).float().view(-1, 1, window, window).expand(count, -1, -1, -1),
            turned_grid(turn, window),
            mode="nearest",
            padding_mode="zeros",
            align_corners=False,
        ).view(count, -1)
        index = near.long().add_((first - 1)[:, None])
        index.masked_fill_(near == 0, len(pixels) - 1)
    return pixels.index_select(0, index.view(-1)).view(count, window, window, 3)


def sliced_windows(
    images: Tensor, top: Tensor, left: Tensor, *, window: int, padding: int, flip: Tensor | None
) -> Tensor:
    """`gather_windows` without a turn, an image at a time."""
    if padding:
        images = F.pad(images, (0, 0, padding, padding, padding, padding))
    windows = images.new_empty(len(images), window, window, 3)
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
    """Each output pixel's place relative to its window's corner: (1 or count, window**2) int64."""
    column = torch.arange(window, device=device)
    row = column[:, None] * width
    plain = row + column
    if flip is None:
        return plain.view(1, -1)
    return torch.stack((plain.view(-1), (row + column.flip(0)).view(-1))).index_select(0, flip)


def turned_grid(turn: Tensor, side: int) -> Tensor:
    """grid_sample's coordinates for turned squares: (B, side, side, 2), as TF.rotate makes them."""
    axis = torch.linspace(-side * 0.5 + 0.5, side * 0.5 - 0.5, side, device=turn.device)
    cosine, sine = (turn / (0.5 * side)).split(1, dim=1)
    grid = turn.new_empty(len(turn), side, side, 2)
    torch.add((cosine * axis)[:, None, :], (-sine * axis)[:, :, None], out=grid[..., 0])
    torch.add((sine * axis)[:, None, :], (cosine * axis)[:, :, None], out=grid[..., 1])
    return grid


def erase_boxes(
    count: int, side: int, probability: float, rng: torch.Generator, attempts: int = 10
) -> Tensor:
    """Rectangles to erase as RandomErasing chooses them: (count, 4) int64, empty where none.

    The first of ten tries that fits the image is taken, so nearly every image that is drawn is
    erased.
    """
    area = torch.empty(count, attempts).uniform_(*ERASED_SHARE, generator=rng) * side**2
    bounds = [math.log(ratio) for ratio in ERASED_RATIO]
    ratio = torch.empty(count, attempts).uniform_(*bounds, generator=rng).exp()
    height, width = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
    fits = (height < side) & (width < side)
    chosen = fits.long().argmax(1, keepdim=True)
    height, width = height.gather(1, chosen)[:, 0], width.gather(1, chosen)[:, 0]
    corner = torch.rand(2, count, generator=rng)
    top = (corner[0] * (side - height + 1)).long()
    left = (corner[1] * (side - width + 1)).long()
    erased = (torch.rand(count, generator=rng) < probability) & fits.any(1)
    return torch.stack((top, left, top + height, left + width), dim=1) * erased[:, None]


def cut_boxes(share: Tensor, centre: Tensor, side: int) -> Tensor:
    """CutMix's rectangles around `centre` (N, 2), clipped to the image: (N, 4) int64.

    The formula of torchvision.transforms.v2.CutMix: half sides int(side * sqrt(1 - share) / 2).
    """
    half = (0.5 * (1 - share).sqrt() * side).long()[:, None]
    return torch.cat(((centre - half).clamp_min(0), (centre + half).clamp_max(side)), dim=1)


def inside(box: Tensor, side: int) -> Tensor:
    """Which pixels lie in each image's rectangle: (N, 1, side, side) bool."""
    place = torch.arange(side, device=box.device)
    top, left, bottom, right = (edge[:, None] for edge in box.unbind(1))
    rows, columns = (place >= top) & (place < bottom), (place >= left) & (place < right)
    return (rows[:, :, None] & columns[:, None, :])[:, None]
