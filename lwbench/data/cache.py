"""Decoded images kept on disk, so that only the first start of a run decodes them.

A pack is one file that holds its own digest: one that is damaged is made anew.
"""

import logging
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .keep import exclusive, keeping_folder, not_kept, replacing
from .source import content_digest

log = logging.getLogger("lwbench")
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
VERSION = 1  # of the format and of what decoding yields; another number makes packs anew

Pack = tuple[list[str], dict[str, np.ndarray], str]


def packed(
    name: str,
    stamp: str,
    cache: str | None,
    make: Callable[[], tuple[list[str], dict[str, np.ndarray]]],
) -> Pack:
    """Class names, arrays and their digest: from the cache where it has them, else from `make`.

    `stamp`: what the content depends on; `cache`: a folder, or the user's one. A folder that cannot
    be written costs the cache and one line, never the run.
    """
    path = keeping_folder(cache) / f"{name}-{stamp[:16]}-v{VERSION}.npz"
    with exclusive(path) as problem:
        if (kept := _kept(path)) is not None:
            return kept
        log.info("data %s: decoding the images once into %s", name, path)
        class_names, arrays = make()
        digest = content_digest(class_names, *(arrays[key] for key in ARRAYS))
        try:
            if problem is not None:
                raise problem
            save(path, class_names, arrays, digest)
        except OSError as error:
            not_kept(path, error, "the next start decodes again")
    return class_names, arrays, digest


def _kept(path: Path) -> Pack | None:
    """The pack of that path, None where there is none or it is damaged."""
    try:
        return load(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        if os.path.exists(path):
            log.warning("%s: damaged (%s), decoding the images again", path, error)
        return None


def load(path: Path) -> Pack:
    """Read a pack and compare its digest. Raises ValueError where they differ."""
    with np.load(path, allow_pickle=False) as file:
        class_names = file["class_names"].tolist()
        arrays = {key: file[key] for key in ARRAYS}
        digest = str(file["digest"])
    if content_digest(class_names, *(arrays[key] for key in ARRAYS)) != digest:
        raise ValueError("its digest does not match")
    return class_names, arrays, digest


def save(path: Path, class_names: list[str], arrays: dict[str, np.ndarray], digest: str) -> None:
    """Write a pack, which only then takes its place. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        np.savez(file, class_names=np.array(class_names), digest=np.array(digest), **arrays)
