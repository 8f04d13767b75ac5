"""Packed images on disk: photographs are decoded to squares once, while they are first used.

A pack is a file per split: the (N, S, S, 3) uint8 array as it is in memory, followed by 8 bytes of
sha256 per image. It is written beside the first epoch under a name of its own, and gets its final
name when every image is in it; processes share finished packs. A damaged one is made again.
"""

import hashlib
import logging
import os
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from ..runs.cache import AUTO, OFF, cache_folder, warn_not_cached
from ..runs.files import remove_partial
from .listing import Listing
from .splits import Splits

log = logging.getLogger("lwbench")

VERSION = 1  # of the format and of what decoding gives; another number makes the packs again
TAG_BYTES = 8  # of an image's digest
CHECK_ALL_BYTES = 2 << 30  # larger packs are checked at evenly spaced images, see `is_damaged`
CHECKED = 4096
# of the default cache: the packs in it together, and the share of the free space of a new one
MOST_BYTES, MOST_SHARE = 20 * 10**9, 1 / 4

Paths = Sequence[str]
Decode = Callable[[Sequence[Paths]], Iterator[Tensor]]  # of batches of files


class Pack:
    """The squares of one split: `images` once they are complete, `batches` until then."""

    def __init__(self, path: Path, paths: Sequence[str], side: int) -> None:
        self.path, self.paths = path, paths
        self.shape = (len(paths), side, side, 3)
        self._part = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._lock = FileLock(f"{path}.lock", timeout=0)
        self._given_up = False
        self._damaged: tuple[int, int] | None = None  # which version of the file is
        # the unfinished pack, while this process writes it
        self._file: int | None = None
        self._unfinished: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """The size of the file."""
        return int(np.prod(self.shape)) + self.shape[0] * TAG_BYTES

    def images(self) -> Tensor | None:
        """Map the finished pack, (N, S, S, 3) uint8; None where there is none, or a damaged one."""
        try:
            if is_damaged(self.path, self.shape):
                log.warning("%s: damaged, decoding the images again", self.path)
                self._damaged = self._version()
                return None
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s: cannot be read (%s)", self.path, error.strerror or error)
            return None
        with suppress(OSError):
            os.utime(self.path)  # the pack that was not used for the longest time is removed first
        return self._mapped()

    def batches(self, indices: Sequence[Tensor], decode: Decode) -> Iterator[Tensor]:
        """Yield the images of the rows in each of `indices`, none of which is in two of them.

        What is not packed yet is decoded, and packed where that is possible: a full disk, a folder
        that cannot be written and another process that packs the same images cost the pack alone.
        """
        self._begin()
        absent = [index if self._file is None else index[~self._has[index]] for index in indices]
        names = [[self.paths[row] for row in rows.tolist()] for rows in absent]
        for index, rows, images in zip(indices, absent, decode(names), strict=True):
            yield self._with_packed(index, rows, images, decode)

    def _with_packed(self, index: Tensor, rows: Tensor, new: Tensor, decode: Decode) -> Tensor:
        """Pack the images `new` of `rows`; return those of `index`, of which they are a part."""
        images = new
        if len(rows) < len(index):
            if self._file is None:  # given up since this pass began
                return next(decode([[self.paths[row] for row in index.tolist()]]))
            images = torch.empty(len(index), *self.shape[1:], dtype=torch.uint8)
            is_new = torch.isin(index, rows)
            images[is_new] = new
            assert self._unfinished is not None
            images[~is_new] = torch.from_numpy(self._unfinished[index[~is_new].numpy()])
        self._write(rows, new)
        return images

    # writing

    def _begin(self) -> None:
        """Open the unfinished pack for this process, unless it cannot or another one does."""
        if self._given_up or self._file is not None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            remove_partial(self.path)
            self._file = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            # an unfinished pack is of no use to anybody else, also when this process ends early
            self._removal = weakref.finalize(self, self._part.unlink, missing_ok=True)
            os.truncate(self._file, self.nbytes)
            self._unfinished = np.memmap(self._part, np.uint8, "r", shape=self.shape)
            self._has = torch.zeros(self.shape[0], dtype=torch.bool)
            self._tags = np.zeros((self.shape[0], TAG_BYTES), dtype=np.uint8)
            self._left = self.shape[0]
        except Timeout:
            log.info("%s: another process packs these images, so they stream here", self.path)
        except OSError as error:
            self._give_up(error)

    def _write(self, rows: Tensor, images: Tensor) -> None:
        if self._file is None:
            return
        size = images[0].numel() if len(images) else 0
        try:
            for row, image in zip(rows.tolist(), images.numpy(), strict=True):
                # not by the mapping: there, a full disk would end the process with a signal
                if os.pwrite(self._file, image.data, row * size) != size:
                    raise OSError(28, os.strerror(28))
                self._tags[row] = np.frombuffer(tag(image), np.uint8)
            self._has[rows] = True
            self._left -= len(rows)
            if not self._left:
                self._finish()
        except OSError as error:
            self._give_up(error)

    def _finish(self) -> None:
        """Add the digests and give the pack its final name. Raises OSError."""
        assert self._file is not None
        tags = self._tags.tobytes()
        if os.pwrite(self._file, tags, self.nbytes - len(tags)) != len(tags):
            raise OSError(28, os.strerror(28))
        # the content must be on the disk before its name is, or a power cut leaves it damaged
        os.fsync(self._file)
        os.replace(self._part, self.path)
        self._removal.detach()
        self._close()
        log.info("%s: %d images packed", self.path, self.shape[0])

    def _give_up(self, error: OSError) -> None:
        """Warn, free the disk space, and stream from now on."""
        self._given_up = True
        if self._file is not None:
            self._removal()
            self._close()
        self._lock.release()
        warn_not_cached(self.path, error, "images stream")

    def _close(self) -> None:
        assert self._file is not None
        os.close(self._file)
        self._file, self._unfinished = None, None  # a mapping of a removed file keeps its space
        self._lock.release()

    def finished(self) -> Tensor | None:
        """Map the pack if it was finished since the start, by this process or another one."""
        if self._file is not None:
            return None
        try:
            return self._mapped() if self._version() != self._damaged else None
        except OSError:
            return None

    def _version(self) -> tuple[int, int]:
        status = self.path.stat()
        return status.st_ino, status.st_mtime_ns

    def _mapped(self) -> Tensor:
        # copy on write: torch wants writable memory, and the file must stay as it is
        return torch.from_numpy(np.memmap(self.path, np.uint8, "c", shape=self.shape))


def packs(name: str, splits: Splits, side: int, cache: str | None) -> tuple[list[Pack | None], str]:
    """Return the pack of each split, or None where its images are decoded in every epoch.

    With them, a line on what was chosen. `cache`: a folder; "auto" for the user's cache, where the
    packs fit; None or "false" for no packs.
    """
    if cache in OFF:
        return [None, None], ""
    folder = cache_folder(cache)
    parts = [
        # a set to evaluate on has no training images
        _pack(f"{name}-{part}", listing, side, folder) if listing.paths else None
        for part, listing in splits.parts
    ]
    found = [pack for pack in parts if pack]
    missing = sum(pack.nbytes for pack in found if not pack.path.exists())
    size = f"{sum(pack.nbytes for pack in found) / 1e9:.2g} GB"
    switch = "data.cache=null decodes them in every epoch"
    if not missing:
        return parts, f"decoded images, {size}, in {folder}; {switch}"
    most = min(MOST_BYTES, _free(folder) * MOST_SHARE) if cache == AUTO else _free(folder)
    if missing > most:
        limit = f"of which {most / 1e9:.2g} GB may be used"
        line = f"images are decoded in every epoch: keeping them takes {size} in {folder}, {limit}"
        return [None, None], line + "; data.cache=<folder> names a place" * (cache == AUTO)
    if cache == AUTO:
        _make_room(folder, missing, keep={pack.path for pack in found})
    return parts, f"images are decoded once, into {folder} ({size}); {switch}"


def _pack(name: str, listing: Listing, side: int, folder: Path) -> Pack:
    # the number of images is in the key by way of the paths
    file = f"{name}-{side}px-{listing.cache_key}-v{VERSION}.bin"
    return Pack(folder / file, listing.paths, side)


def _free(folder: Path) -> float:
    """Free bytes where `folder` is or will be; unknown counts as enough, writing will tell."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return float("inf")


def _make_room(folder: Path, need: int, keep: set[Path]) -> None:
    """Remove the packs that were not used for the longest time, so that `MOST_BYTES` hold all."""
    try:
        others = [path for path in folder.glob("*px-*.bin") if path not in keep]
        by_age = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in others)
        used = need + sum(path.stat().st_size for path in keep if path.exists())
        used += sum(size for _, size, _ in by_age)
        for _, size, path in by_age:
            if used <= MOST_BYTES:
                return
            path.unlink(missing_ok=True)
            used -= size
    except OSError:
        pass  # another process removed one, or this user may not: the new pack needs no room made


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
