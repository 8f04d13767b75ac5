"""Evaluation images as authors of weights preprocessed them: Pillow decodes, resizes and crops.

No path through tensors gives the pixels that Pillow's resizing gives, so evaluation of published
weights decodes and resizes with Pillow itself, in worker threads. The steps are torchvision's or
timm's own transforms.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from .decode import BadImage, read_file, reason_of
from .source import Channels
from .workers import Paths, in_threads

if TYPE_CHECKING:
    from PIL.Image import Image

Transform = Callable[[Any], Tensor]  # a Pillow image in RGB -> (3, S, S) float32
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Resize the shorter side to `resize` px, take the central `crop` px, normalise.

    With `antialias` off, the pixels are resized as a tensor, as early versions of torchvision did
    on request; Pillow's resizing is always antialiased.
    """

    resize: int
    crop: int
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    mean: Channels
    std: Channels

    def __str__(self) -> str:
        rough = "" if self.antialias else " without antialias"
        return (
            f"resize {self.resize}, {self.interpolation}{rough}, crop {self.crop}, "
            f"mean {tuple(self.mean)}, std {tuple(self.std)}"
        )

    def transform(self) -> Transform:
        """Return torchvision's transform of these steps."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms._presets import ImageClassification
        from torchvision.transforms.functional import pil_to_tensor

        preset = ImageClassification(
            crop_size=self.crop,
            resize_size=self.resize,
            mean=self.mean,
            std=self.std,
            interpolation=InterpolationMode(self.interpolation),
            antialias=self.antialias,
        )
        return preset if self.antialias else lambda image: preset(pil_to_tensor(image))


def opened(path: Path | str) -> "Image":
    """Decode a file as torchvision's and timm's data sets do: RGB, EXIF orientation ignored.

    Raises BadImage naming an unreadable file.
    """
    from PIL import Image

    try:
        with Image.open(BytesIO(read_file(path))) as image:
            return image.convert("RGB")
    except Exception as error:  # decoders raise nearly anything on damaged input
        raise BadImage(path, reason_of(error)) from None


def preprocessed(
    images: Sequence[str] | np.ndarray,
    labels: Tensor,
    transform: Transform,
    *,
    size: int,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches (B, 3, size, size) float32 with their labels (B,), in the order given.

    `images`: files, or pixels (N, H, W, 3) uint8. Raises BadImage naming an unreadable file.
    """
    firsts = range(0, len(labels), batch_size)
    for first, batch in zip(
        firsts, _batches(images, transform, size, batch_size, workers), strict=True
    ):
        moved = batch.to(device).contiguous(memory_format=torch.channels_last)
        yield moved, labels[first : first + batch_size].to(device)


def _batches(
    images: Sequence[str] | np.ndarray,
    transform: Transform,
    size: int,
    batch_size: int,
    workers: int,
) -> Iterator[Tensor]:
    firsts = range(0, len(images), batch_size)
    if isinstance(images, np.ndarray):
        from PIL import Image

        for first in firsts:
            pixels = images[first : first + batch_size]
            yield torch.stack([transform(Image.fromarray(each)) for each in pixels])
        return

    def start(paths: Paths) -> tuple[Tensor, Callable[[int], None]]:
        batch = torch.empty(len(paths), 3, size, size)

        def fill(row: int) -> None:
            batch[row] = transform(opened(paths[row]))

        return batch, fill

    yield from in_threads([images[f : f + batch_size] for f in firsts], start, workers=workers)
