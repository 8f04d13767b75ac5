"""An image file as RGB pixels: exact where the format is, and named where it cannot be read.

torchvision's decoders are three to four times as fast as Pillow's and let other threads run
meanwhile; on 8-bit JPEG and PNG both give the same pixels. What torchvision does not read as plain
8-bit RGB or grey (palettes, alpha, 16 bits, CMYK, other formats) goes to Pillow. Every image file
of lwbench is read here: the first frame of several, alpha dropped, upright as EXIF has it.
"""

import os
import re
import stat
import warnings
from collections.abc import Callable
from functools import cache, partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UsageError, shown

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)
UNREAD = "cannot be read"  # said of a file whose content was not seen
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


class BadImage(UsageError):
    """A file that is no readable image: `path`, and the `reason` in a few words."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(
            f"{shown(path)}: not a readable image ({reason})\n"
            "restore or remove the file, and start again; lwbench check lists all such files"
        )
        self.path, self.reason = str(path), reason


def decode(path: Path | str) -> Tensor:
    """The image of a file, (3, H, W) uint8. Raises BadImage naming a file that is none."""
    try:
        # a named pipe would hang for ever, a device fill the memory
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("not a regular file")
        return decode_bytes(Path(path).read_bytes())
    except Exception as error:  # decoders raise nearly anything on damaged input
        raise BadImage(path, in_words(error)) from None


def in_words(error: Exception) -> str:
    """What is wrong with a file, in a line; the same words for the same fault."""
    if system := getattr(error, "strerror", None):
        return f"{UNREAD}: {system}"
    if type(error).__name__ == "UnidentifiedImageError":  # Pillow names the place in memory
        return "no known image format"
    text = re.sub(r"^\w+, \S+:\d+, ", "", str(error).strip())  # torchvision: its source file
    return shown(text.split("\n")[0][:120]) or type(error).__name__


def decode_bytes(content: bytes) -> Tensor:
    """An encoded image, (3, H, W) uint8; raises whatever the decoder does."""
    if not content:
        raise ValueError("the file is empty")
    fast = fast_decoder(content)
    if fast is None:
        return decode_pillow(content)
    return fast(torch.frombuffer(bytearray(content), dtype=torch.uint8))


def fast_decoder(content: bytes) -> Callable[[Tensor], Tensor] | None:
    """torchvision's decoder for this file, or None where Pillow is to read it."""
    if content.startswith(JPEG) and jpeg_components(content) in (1, 3):
        return torchvision_decoders().get("jpeg")
    # bytes 24 and 25 of a PNG: bits a channel, and 0 for grey or 2 for RGB
    if content.startswith(PNG) and content[24:25] == b"\x08" and content[25] in (0, 2):
        return torchvision_decoders().get("png")
    return None


@cache
def torchvision_decoders() -> dict[str, Callable[[Tensor], Tensor]]:
    """Its decoders, or none: 0.29 announces that a later release will move them elsewhere."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg, decode_png
    except ImportError:
        return {}
    warnings.filterwarnings("ignore", "The image decoding", DeprecationWarning)
    decoders = {"jpeg": decode_jpeg, "png": decode_png}
    upright = {"mode": ImageReadMode.RGB, "apply_exif_orientation": True}
    return {name: partial(f, **upright) for name, f in decoders.items()}


def jpeg_components(content: bytes) -> int:
    """The number of colour channels that a JPEG's frame header gives, 0 where there is none."""
    at = 2
    while at + 9 < len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return content[at + 9]
        at += 2 + length
    return 0


def decode_pillow(content: bytes) -> Tensor:
    """Likewise with Pillow: any mode to RGB, 16-bit grey scaled to 8 bits, alpha dropped."""
    from PIL import Image, ImageOps

    with Image.open(BytesIO(content)) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # Pillow would cut 16 bits off at 255
            grey = np.asarray(image).astype(np.float64) / 257
            rgb = np.repeat(grey.round().clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
        else:
            if "transparency" in image.info:  # Pillow warns where it would be lost on the way
                image = image.convert("RGBA")
            rgb = np.array(image.convert("RGB"))
    return torch.from_numpy(rgb).permute(2, 0, 1)


def fit_square(image: Tensor, side: int) -> Tensor:
    """The central square of an image, resized to `side`: (3, H, W) to (side, side, 3) uint8.

    Bilinear with antialias; within 1/255 of what Pillow's resize gives. Only the square is resized,
    so a wide image costs no more than a square one.
    """
    height, width = image.shape[1:]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = image[:, top : top + short, left : left + short]
    if short != side:
        square = F.interpolate(
            square[None], (side, side), mode="bilinear", align_corners=False, antialias=True
        )[0]
    return square.permute(1, 2, 0)
