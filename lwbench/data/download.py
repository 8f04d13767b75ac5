"""Fetch an archive into the user's data folder, or say at once how to place it by hand."""

import logging
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from ..errors import UsageError

log = logging.getLogger("lwbench")
TIMEOUT_S = 10


def download_once(
    fetch: Callable[[], object], *, name: str, url: str, size: str, folder: Path
) -> None:
    """Run `fetch`, torchvision's own download with its checksum, one process at a time.

    Raises UsageError where the server cannot be reached, the folder cannot be written or the
    archive does not match its checksum, with the path, the size, the address and what to do.
    """
    by_hand = f"place it by hand: unpack {url} ({size}) in {folder}, or set data.root"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".download.lock"):
            # torchvision waits without limit: a look beforehand fails fast
            request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "lwbench"})
            urllib.request.urlopen(request, timeout=TIMEOUT_S).close()
            log.info("data %s: downloading %s (%s) into %s", name, url, size, folder)
            fetch()
    except (OSError, urllib.error.URLError, RuntimeError) as error:
        reason = str(getattr(error, "reason", "") or error).split("\n")[0]
        raise UsageError(
            f"data {name} is not in {folder} and cannot be downloaded ({reason})\n{by_hand}"
        ) from None
