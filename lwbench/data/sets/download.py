"""Download of an archive into the user's data folder; errors say how to place it by hand."""

import logging
import os
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from ...errors import UsageError
from ..tree import is_folder

log = logging.getLogger("lwbench")
TIMEOUT_S = 10


def download_once(
    fetch: Callable[[Path], object], *, name: str, url: str, size: str, folder: Path, tree: str
) -> None:
    """Download and unpack `folder/tree` atomically; one process downloads, others wait for it.

    `fetch(place)`: torchvision's own download with its checksum, which unpacks `place/tree`. An
    incomplete download fails its checksum and is fetched again. Raises UsageError where the server
    cannot be reached, the folder cannot be written or the archive does not match its checksum, with
    the path, the size, the address and what to do.
    """
    by_hand = f"place it by hand: unpack {url} ({size}) in {folder}, or set data.root"
    staging = folder / ".download"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # runs of a sweep that start together must not download into each other's files
        with FileLock(folder / ".download.lock"):
            if is_folder(folder / tree):
                return  # another process has downloaded it while this one waited
            # torchvision waits for a silent server without limit: a first request fails fast
            request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "lwbench"})
            urllib.request.urlopen(request, timeout=TIMEOUT_S).close()
            log.info("data %s: downloading %s (%s) into %s", name, url, size, folder)
            # torchvision would take the remains of an interrupted unpacking for the complete set
            shutil.rmtree(staging / tree, ignore_errors=True)
            with safe_extraction():
                fetch(staging)
            (folder / tree).parent.mkdir(parents=True, exist_ok=True)
            # in one step, so that a killed process leaves either nothing or the complete set
            os.replace(staging / tree, folder / tree)
            shutil.rmtree(staging, ignore_errors=True)
    except (OSError, urllib.error.URLError, RuntimeError, tarfile.TarError) as error:
        reason = str(getattr(error, "reason", "") or error).split("\n")[0]
        raise UsageError(
            f"data {name} is not in {folder} and cannot be downloaded ({reason})\n{by_hand}"
        ) from None


@contextmanager
def safe_extraction() -> Iterator[None]:
    """Prevent tar archives from writing outside their folder, making devices or linking elsewhere.

    Python before 3.14 extracts whatever an archive contains, and torchvision does not restrict it.
    """
    before = tarfile.TarFile.__dict__.get("extraction_filter")
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        # set back exactly: the attribute's absence means Python's default
        if before is None:
            del tarfile.TarFile.extraction_filter
        else:
            tarfile.TarFile.extraction_filter = before
