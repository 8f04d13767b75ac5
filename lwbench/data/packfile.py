"""A packed cache of decoded squares for sets that stream: decoded once, then read as memory.

The file is the (N, S, S, 3) uint8 array as it is, followed by 8 bytes of sha256 an image.
Runs share it.
"""

import hashlib
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .keep import exclusive, keeping_folder, not_kept, replacing
from .stream import batched, decoded_batches
from .tree import Listing

log = logging.getLogger("lwbench")
VERSION = 1
TAG = 8  # bytes of digest an image
CHECK_ALL_BYTES = 2 << 30  # larger caches are checked at evenly spaced images: see `damaged`
CHECKED = 4096


def packed_images(name: str, listing: Listing, side: int, cache: str) -> Tensor | None:
    """The listing's images as squares, (N, side, side, 3) uint8 mapped from `cache`.

    None, with a line in the log, where the cache cannot hold them: then they stream. Raises
    UsageError naming a file that is no image.
    """
    path = keeping_folder(cache) / f"{name}-{side}px-{listing.key}-v{VERSION}.bin"
    shape = (len(listing.paths), side, side, 3)
    with exclusive(path) as problem:
        try:
            if not _intact(path, shape):
                if problem is not None:
                    raise problem
                write(path, listing.paths, side)
            return torch.from_numpy(np.memmap(path, np.uint8, "c", shape=shape))
        except OSError as error:
            not_kept(path, error, "images stream")
            return None


def _intact(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        if not damaged(path, shape):
            return True
    except FileNotFoundError:
        return False
    except OSError as error:  # not to be read, or no room for the folder
        log.warning("%s: cannot be read (%s)", path, error.strerror or error)
        return False
    log.warning("%s: damaged, decoding the images again", path)
    return False


def write(path: Path, paths: list[str], side: int) -> None:
    """Decode all files into a new cache. Raises OSError, before any work where space lacks."""
    need = len(paths) * (side * side * 3 + TAG)
    free = shutil.disk_usage(path.parent).free
    if need > free:
        raise OSError(28, f"it needs {need / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free")
    log.info("decoding %d images once into %s (%.1f GiB)", len(paths), path, need / 2**30)
    tags = bytearray()
    with replacing(path) as file:
        for images in decoded_batches(batched(paths), side, workers=os.cpu_count() or 1):
            for image in images.numpy():
                tags += tag(image)
            file.write(images.numpy())
        file.write(tags)


def damaged(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether the size or the digest of an image is wrong.

    Up to 2 GiB every image is read; in larger files 4,096 evenly spaced ones, since reading all at
    each start would take longer than what the cache saves.
    """
    count, image_bytes = shape[0], shape[1] * shape[2] * shape[3]
    if path.stat().st_size != count * (image_bytes + TAG):
        return True
    content = np.memmap(path, np.uint8, "r")
    images = content[: count * image_bytes].reshape(count, image_bytes)
    tags = content[count * image_bytes :].reshape(count, TAG)
    step = 1 if images.nbytes <= CHECK_ALL_BYTES else max(1, count // CHECKED)
    return any(tag(images[row]) != tags[row].tobytes() for row in range(0, count, step))


def tag(image: np.ndarray) -> bytes:
    """The digest of one image's pixels."""
    return hashlib.sha256(np.ascontiguousarray(image)).digest()[:TAG]
