"""Data sets that fit in memory, decoded once: a .npz file with all arrays and their digest.

A damaged file is made again; runs share the files. Sets of photographs are in `pack`.
"""

import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..runs.cache import cache_folder, exclusive, warn_not_cached
from ..runs.files import replacing
from .source import content_digest

log = logging.getLogger("lwbench")

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
ARRAYS_VERSION = 1  # of the format and of what decoding gives; another number makes the files again

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
