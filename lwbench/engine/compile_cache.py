"""A cache of code that torch.compile has made, which outlives the process."""

import atexit
import logging
import os
import shutil
import stat
import sys
import tempfile
from pathlib import Path

log = logging.getLogger("lwbench")


def use_cache(folder: Path) -> Path:
    """Return the folder in which this process may cache compiled code, until it ends.

    A process that is killed while it compiles leaves empty libraries, on which every later one
    fails. So each user of the cache leaves a mark while it runs, and a mark without its process
    means that the cache is emptied, once nobody uses it. Code in it is executed: it must be this
    user's alone. Where that cannot be had, the cache is a folder that ends with the process.
    """
    try:
        _lock(_own(folder))
    except (OSError, ImportError) as error:
        log.info("compiled code is not kept: %s", error)
        temporary = Path(tempfile.mkdtemp(prefix="lwbench-inductor-"))
        atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        return temporary
    mark = folder / f"user-{os.getpid()}"
    mark.touch()
    atexit.register(mark.unlink, missing_ok=True)
    return folder / "code"


def _own(folder: Path) -> Path:
    """Make the folder for this user alone. Raises OSError where others may write to it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.lstat()
    is_private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o022
    if not is_private or found.st_uid != os.getuid():
        raise PermissionError(f"{folder} may be written by other users")
    return folder


_held: list[int] = []  # descriptors of locks, which end with the process


def _lock(folder: Path) -> None:
    """Share the cache with other processes; empty it first if its last user was killed."""
    if sys.platform == "win32":
        raise ImportError("locks cannot be shared on this system")
    import fcntl

    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    _held.append(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass  # in use
    else:
        marks = list(folder.glob("user-*"))
        if marks:
            shutil.rmtree(folder / "code", ignore_errors=True)
        for mark in marks:
            mark.unlink(missing_ok=True)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
