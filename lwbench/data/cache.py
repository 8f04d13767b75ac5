"""Decoded images on disk, so that only the first start of a run decodes them.

Small sets are one .npz file with all arrays and their digest (`cached_arrays`). Sets that would
stream are one file per split (`cached_squares`): the (N, S, S, 3) uint8 array as it is in memory,
followed by 8 bytes of sha256 per image. A damaged file is made again; runs share the files.
"""

import hashlib
import logging
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..runs.cache import cache_folder, exclusive, warn_not_cached
from ..runs.files import replacing
from ..runs.machine import usable_cores
from .listing import Listing
from .source import content_digest
from .workers import batched, decoded_batches

log = logging.getLogger("lwbench")

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
# of the formats and of what decoding gives; another number makes the files again
ARRAYS_VERSION = 1
SQUARES_VERSION = 1

TAG_BYTES = 8  # of an image's digest
CHECK_ALL_BYTES = 2 << 30  # larger files are checked at evenly spaced images, see `is_damaged`
CHECKED = 4096

Arrays = dict[str, np.ndarray]


def cached_arrays(
    name: str, fingerprint: str, cache: str | None, make: Callable[[], tuple[list[str], Arrays]]
) -> tuple[list[str], Arrays, str]:
    """Return class names, arrays and their digest from the cache, or from `make`, which it caches.

    `fingerprint`: of the files that the arrays are made from; `cache`: a folder, or the user's
    cache. A folder that cannot be written costs the cache and a warning, never the run.
    """
    path = cache_folder(cache) / f"{name}-{fingerprint[:16]}-v{ARRAYS_VERSION}.npz"
    # processes of a sweep start at the same time: one decodes, the others wait and read
    with exclusive(path) as problem:
        if (found := _cached_arrays(path)) is not None:
            return found
        log.info("data %s: decoding the images once into %s", name, path)
        class_names, arrays = make()
        digest = content_digest(class_names, *(arrays[key] for key in ARRAYS))
        try:
            if problem is not None:
                raise problem
            save_arrays(path, class_names, arrays, digest)
        except OSError as error:
            warn_not_cached(path, error, "the next start decodes again")
    return class_names, arrays, digest


def _cached_arrays(path: Path) -> tuple[list[str], Arrays, str] | None:
    try:
        return load_arrays(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        # a folder that cannot be entered is no damage
        if os.path.exists(path):
            log.warning("%s: damaged (%s), decoding the images again", path, error)
        return None


def load_arrays(path: Path) -> tuple[list[str], Arrays, str]:
    """Read a file of `save_arrays`. Raises ValueError where the content has another digest."""
    with np.load(path, allow_pickle=False) as file:
        class_names = file["class_names"].tolist()
        arrays = {key: file[key] for key in ARRAYS}
        digest = str(file["digest"])
    # zip's own checksums do not cover everything that a damaged disk can do
    if content_digest(class_names, *(arrays[key] for key in ARRAYS)) != digest:
        raise ValueError("its digest does not match")
    return class_names, arrays, digest


def save_arrays(path: Path, class_names: list[str], arrays: Arrays, digest: str) -> None:
    """Write arrays, class names and digest atomically. Raises OSError."""
    with replacing(path) as file:
        content = {"class_names": np.array(class_names), "digest": np.array(digest), **arrays}
        np.savez(file, allow_pickle=False, **content)


def cached_squares(name: str, listing: Listing, side: int, cache: str) -> Tensor | None:
    """Return the listing's images as squares, (N, side, side, 3) uint8, mapped from `cache`.

    None, with a warning, where the cache cannot hold them: then they stream. Raises UsageError
    naming an unreadable file.
    """
    file = f"{name}-{side}px-{listing.cache_key}-v{SQUARES_VERSION}.bin"
    path = cache_folder(cache) / file
    # the number of images is in the key by way of the paths, their size by name
    shape = (len(listing.paths), side, side, 3)
    with exclusive(path) as problem:
        try:
            if not _is_intact(path, shape):
                if problem is not None:
                    raise problem
                write_squares(path, listing.paths, side)
            # copy on write: torch wants writable memory, and the file must stay as it is
            return torch.from_numpy(np.memmap(path, np.uint8, "c", shape=shape))
        except OSError as error:
            warn_not_cached(path, error, "images stream")
            return None


def _is_intact(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        if not is_damaged(path, shape):
            return True
    except FileNotFoundError:
        return False
    except OSError as error:
        log.warning("%s: cannot be read (%s)", path, error.strerror or error)
        return False
    log.warning("%s: damaged, decoding the images again", path)
    return False


def write_squares(path: Path, paths: list[str], side: int) -> None:
    """Decode all files into a new cache file.

    Raises OSError, before anything is decoded where the disk has too little free space.
    """
    need = len(paths) * (side * side * 3 + TAG_BYTES)
    free = shutil.disk_usage(path.parent).free
    if need > free:
        raise OSError(28, f"it needs {need / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free")
    log.info("decoding %d images once into %s (%.1f GiB)", len(paths), path, need / 2**30)
    # collected, since their place is known only behind the last image
    tags = bytearray()
    with replacing(path) as file:
        for images in decoded_batches(batched(paths), side, workers=usable_cores()):
            for image in images.numpy():
                tags += tag(image)
            file.write(images.numpy().data)
        file.write(tags)


def is_damaged(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether the file's size or the digest of an image is wrong."""
    count, image_bytes = shape[0], shape[1] * shape[2] * shape[3]
    # a file cut short by a full disk is found without reading it
    if path.stat().st_size != count * (image_bytes + TAG_BYTES):
        return True
    content = np.memmap(path, np.uint8, "r")
    images = content[: count * image_bytes].reshape(count, image_bytes)
    tags = content[count * image_bytes :].reshape(count, TAG_BYTES)
    # reading a large file at each start would take longer than the cache saves: then 4,096 evenly
    # spaced images stand for all
    step = 1 if images.nbytes <= CHECK_ALL_BYTES else max(1, count // CHECKED)
    return any(tag(images[row]) != tags[row].tobytes() for row in range(0, count, step))


def tag(image: np.ndarray) -> bytes:
    """Return the digest of one image's pixels, as stored behind the images."""
    return hashlib.sha256(np.ascontiguousarray(image).data).digest()[:TAG_BYTES]
