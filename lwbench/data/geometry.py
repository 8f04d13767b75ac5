"""Crops, mirroring and rotation of whole batches, equal to torchvision's pixel by pixel.

The steps only decide which pixel goes where, so they are one gather.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

# side of a window in pixels, from which copying windows is faster on a CPU than gathering pixels
LARGE = 64


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
