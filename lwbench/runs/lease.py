"""The lease of a run directory: a lock that also holds between machines.

The kernel's lock (`flock`) ends with its process, at once, but some network file systems keep it on
one machine only, or refuse it. A lease is a file in the directory, `.lease`, which its holder
touches every few seconds. Where it was not touched for LEASE_SECONDS, its holder or its machine
counts as dead, and another process takes it over. A holder that was only paused notices this before
it replaces a file (`check_held`).
"""

import errno
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, SoftFileLease, Timeout

from ..errors import LwbenchError

log = logging.getLogger("lwbench")

LEASE_SECONDS = 60.0  # the same in every process that shares a folder; renewed every third of it
NAME = ".lease"
KERNEL_NAME = ".lock"

# what flock says of a file system that has none, or whose lock server is out of reach
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

_held: list["_Held"] = []


class LeaseLost(LwbenchError):
    """Another process has taken the run over meanwhile."""


class _Held:
    """A lease that this process holds, and the directory that it is of."""

    def __init__(self, folder: Path, lease: SoftFileLease) -> None:
        self.folder, self._lease = folder, lease

    def check(self) -> None:
        """Raise LeaseLost where the lease is another process's now.

        The file is read, because the thread that renews the lease may have been paused as well.
        """
        try:
            # opening a file asks a network file system's server for its present content
            content = (self.folder / NAME).read_text("utf-8", "replace")
        except OSError:
            content = ""
        if not self._lease.token or self._lease.token not in content:
            raise LeaseLost(
                f"{self.folder} was taken over by another process, since this one did not renew "
                f"its lease for {LEASE_SECONDS:g} s; nothing more is written here"
            )


@contextmanager
def leased(folder: Path) -> Iterator[None]:
    """Hold the lease of `folder`. Raises Timeout where another process renews it, and OSError.

    Whether one does takes LEASE_SECONDS to see, unless its process was on this machine and is dead.
    """
    lease = SoftFileLease(folder / NAME, lease_duration=LEASE_SECONDS, thread_local=False)
    try:
        lease.acquire(timeout=1)  # `is_held` of another process holds it for an instant
    except Timeout:
        log.info("waiting up to %g s for the lease of %s", LEASE_SECONDS, folder)
        lease.acquire(timeout=LEASE_SECONDS * 1.25, poll_interval=LEASE_SECONDS / 100)
    held = _Held(folder, lease)
    _held.append(held)
    try:
        yield
    finally:
        _held.remove(held)
        lease.release()  # of a lost lease, the other process's file stays


def is_held(folder: Path) -> bool:
    """Return whether a process holds the lease of `folder`, as far as can be seen at once.

    One that was last renewed long ago, by this machine's clock, counts as free: `leased` decides.
    """
    if not (folder / NAME).exists():
        return False
    try:
        with SoftFileLease(folder / NAME, lease_duration=LEASE_SECONDS, timeout=0):
            return False
    except Timeout:
        with suppress(OSError):
            return time.time() - (folder / NAME).stat().st_mtime < LEASE_SECONDS
    except OSError:  # this user may not write here, so no process of theirs does
        pass
    return False


@contextmanager
def kernel_locked(folder: Path, timeout: float) -> Iterator[None]:
    """Hold `flock` on `folder`, where its file system has it. Raises Timeout and OSError."""
    lock = FileLock(folder / KERNEL_NAME, timeout=timeout, fallback_to_soft=False)
    try:
        lock.acquire()
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in WITHOUT_LOCKS:
            raise
    except NotImplementedError:
        pass
    try:
        yield
    finally:
        lock.release()


def check_held(path: Path) -> None:
    """Raise LeaseLost where `path` lies in a directory whose lease this process has lost."""
    for held in _held:
        if path.is_relative_to(held.folder):
            held.check()
