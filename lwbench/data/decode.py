"""Decoding of image files to RGB pixels; every image file that lwbench reads is decoded here.

torchvision's decoders are three to four times as fast as Pillow's and let other threads run
meanwhile; on 8-bit JPEG and PNG both give the same pixels. Everything that torchvision does not
read as plain 8-bit RGB or grey (palettes, alpha, 16 bits, CMYK, other formats) goes to Pillow.
Of several frames the first is taken, alpha is dropped, and EXIF orientation is applied.
"""

import hashlib
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
from .listing import Member

UNREAD = "cannot be read"  # how the reason begins where the system refused to open the file
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


class BadImage(UsageError):
    """An unreadable image file: its `path`, and the `reason` in a few words."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(
            f"{shown(path)}: not a readable image ({reason})\n"
            "restore the file or move it away, and start again; lwbench check lists all such files"
        )
        self.path, self.reason = str(path), reason


def decode(path: Path | str) -> Tensor:
    """Decode a file to (3, H, W) uint8. Raises BadImage naming an unreadable file."""
    try:
        return decode_bytes(read_file(path))
    except Exception as error:  # decoders raise nearly anything on damaged input
        raise BadImage(path, reason_of(error)) from None


def read_file(path: Path | str) -> bytes:
    """Read a regular file, or a member of one. Raises OSError, or ValueError for anything else."""
    if isinstance(path, Member):
        return path.read()
    # reading a named pipe would block for ever, reading a device would fill the memory
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("not a regular file")
    return Path(path).read_bytes()


def reason_of(error: Exception) -> str:
    """Describe what is wrong with a file in one line; equal faults have equal descriptions."""
    if system := getattr(error, "strerror", None):
        return f"{UNREAD}: {system}"
    if type(error).__name__ == "UnidentifiedImageError":
        # Pillow's own text contains a memory address
        return "no known image format"
    # torchvision's text begins with a function and a line of its source code
    text = re.sub(r"^\w+, \S+:\d+, ", "", str(error).strip())
    return shown(text.split("\n")[0][:120]) or type(error).__name__


def decode_bytes(content: bytes) -> Tensor:
    """Decode an encoded image to (3, H, W) uint8; raises whatever the decoder raises."""
    if not content:
        raise ValueError("the file is empty")
    fast = fast_decoder(content)
    if fast is None:
        return decode_pillow(content)
    return fast(torch.frombuffer(bytearray(content), dtype=torch.uint8))


def fast_decoder(content: bytes) -> Callable[[Tensor], Tensor] | None:
    """Return torchvision's decoder for this content, or None where Pillow has to decode it."""
    if content.startswith(JPEG) and jpeg_components(content) in (1, 3):
        return torchvision_decoders().get("jpeg")
    # bytes 24 and 25 of a PNG: bits per channel, and the colour type: 0 is grey, 2 is RGB
    if content.startswith(PNG) and content[24:25] == b"\x08" and content[25] in (0, 2):
        return torchvision_decoders().get("png")
    return None


@cache
def torchvision_decoders() -> dict[str, Callable[[Tensor], Tensor]]:
    """Return torchvision's JPEG and PNG decoders; empty where it has none.

    torchvision 0.29 announces that a later release will move them to another package.
    """
    try:
        from torchvision.io import ImageReadMode, decode_jpeg, decode_png
    except ImportError:
        return {}
    warnings.filterwarnings("ignore", "The image decoding", DeprecationWarning)
    decoders = {"jpeg": decode_jpeg, "png": decode_png}
    upright = {"mode": ImageReadMode.RGB, "apply_exif_orientation": True}
    return {name: partial(f, **upright) for name, f in decoders.items()}


def jpeg_components(content: bytes) -> int:
    """Return the number of colour channels in a JPEG's frame header, 0 where there is none."""
    at = 2  # behind the start-of-image marker; every segment is a marker and its length
    while at + 9 < len(content) and content[at] == 0xFF:
        marker, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        # frame headers are SOF0 to SOF15; the three left out are DHT, JPG and DAC
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return content[at + 9]
        at += 2 + length
    return 0


def decode_pillow(content: bytes) -> Tensor:
    """Decode with Pillow: any mode to RGB, 16-bit grey scaled to 8 bits, alpha dropped."""
    from PIL import Image, ImageOps

    with Image.open(BytesIO(content)) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):
            # Pillow's conversion would clip 16-bit values at 255
            grey = np.asarray(image).astype(np.float64) / 257
            rgb = np.repeat(grey.round().clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
        else:
            # a transparent palette goes to RGB by way of RGBA: Pillow warns about the short way
            if "transparency" in image.info:
                image = image.convert("RGBA")
            rgb = np.array(image.convert("RGB"))
    return torch.from_numpy(rgb).permute(2, 0, 1)


def fit_square(image: Tensor, side: int) -> Tensor:
    """Resize the central square of an image: (3, H, W) to (side, side, 3) uint8.

    Bilinear with antialias; within 1/255 of the result of Pillow's resize.
    """
    height, width = image.shape[1:]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    # cropped before resizing, so that a wide image costs no more than a square one
    square = image[:, top : top + short, left : left + short]
    if short != side:
        square = F.interpolate(
            square[None], (side, side), mode="bilinear", align_corners=False, antialias=True
        )[0]
    return square.permute(1, 2, 0)


def pixel_hash(image: Tensor) -> int:
    """Hash size and pixels of an image, (3, H, W) uint8, to 63 bits."""
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(pixels.data)
    return short(digest.digest())


def short(digest: bytes) -> int:
    """Return the first 63 bits of a digest, which fit into an int64."""
    return int.from_bytes(digest[:8], "big") >> 1
