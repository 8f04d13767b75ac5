"""How a training in several processes (ranks) ends: one message, whoever has failed or died."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import LwbenchError, PeerLostError
from ..runs.processes import Place
from .signals import Interrupted

END_S = 3.0  # seconds to wait for the other ranks to say why they end


class SilentError(LwbenchError):
    """An error that another rank tells the user about."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code


class Ending:
    """The end of one rank, about which it tells the others by `store`, which outlives them.

    torchrun holds the store, and stops all ranks by SIGTERM once one has failed.
    """

    def __init__(self, place: Place, store: Any) -> None:
        self._place, self._store = place, store
        self._has_exchanged = False
        if store is not None:
            store.set(f"process/{place.rank}", f"{platform.node()}\n{os.getpid()}")

    @contextmanager
    def one_message(self) -> Iterator[None]:
        """Let one rank alone report an error, that with the cause; the others raise SilentError."""
        if self._place.size == 1:
            yield
            return
        try:
            yield
        except Interrupted as interruption:
            if not interruption.step_finished and self._others_failed():
                raise SilentError(1) from None  # torchrun ends the others once one has failed
            raise
        except Exception as error:
            if not self._has_exchanged:
                self._has_exchanged = True
                self._exchange_reasons(error)
            raise

    def _others_failed(self) -> bool:
        with suppress(Exception):
            return any(
                self._store.check([f"end/{r}"])
                for r in range(self._place.size)
                if r != self._place.rank
            )
        return False

    def _exchange_reasons(self, error: Exception) -> None:
        """Exchange the reasons; return if this rank's error is the one to be shown."""
        is_lost = isinstance(error, PeerLostError) or _is_connection(error)
        try:
            self._store.set(f"end/{self._place.rank}", "lost" if is_lost else "own")
            ends = self._ends()
        except Exception:  # the store was on the rank or host that died
            raise PeerLostError(
                "rank 0 or its machine has died; the same command resumes"
            ) from error
        failed = [rank for rank, end in ends.items() if end == "own"]
        if failed:
            if failed[0] != self._place.rank:
                raise SilentError(getattr(error, "exit_code", 1)) from None
            return
        if self._place.rank != min(rank for rank, end in ends.items() if end):
            raise SilentError(1) from None
        raise PeerLostError(f"{self._dead(ends)}; the same command resumes") from error

    def _ends(self) -> dict[int, str]:
        """Why each rank ends: "own" error, a "lost" one, or "" where it has not said within 3 s."""
        keys = {rank: f"end/{rank}" for rank in range(self._place.size)}
        begin = time.monotonic()
        while True:
            ends = {
                rank: self._store.get(key).decode() if self._store.check([key]) else ""
                for rank, key in keys.items()
            }
            silent = [rank for rank, end in ends.items() if not end]
            if not silent or time.monotonic() - begin > END_S:
                return ends
            # a process of this machine that is gone will never answer
            if all(self._is_dead(rank) for rank in silent):
                return ends
            time.sleep(0.05)

    def _is_dead(self, rank: int) -> bool:
        host, process = self._store.get(f"process/{rank}").decode().split("\n")
        return host == platform.node() and not _is_alive(int(process))

    def _dead(self, ends: dict[int, str]) -> str:
        silent = [rank for rank, end in ends.items() if not end]
        # one that is blocked in an exchange with the dead one does not answer either
        dead = [rank for rank in silent if self._is_dead(rank)] or silent
        if not dead:
            return "the connection to another process was lost"
        names = []
        for rank in dead:
            host, process = self._store.get(f"process/{rank}").decode().split("\n")
            names.append(f"rank {rank} (process {process} on {host})")
        return f"{' and '.join(names)} has died"

    def leave(self) -> None:
        """End after rank 0: torchrun stops all ranks once one has failed, also in mid-sentence."""
        if self._place.size == 1:
            return
        with suppress(Exception):
            if self._place.leads:
                self._store.set("left", "")
                return
            end = time.monotonic() + END_S
            while not self._store.check(["left"]) and time.monotonic() < end:
                if self._is_dead(0):
                    return
                time.sleep(0.05)


def _is_connection(error: Exception) -> bool:
    """Whether torch reports that a collective function failed, in a layer of its own."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError)


def _is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text("utf-8", "replace")
    except OSError:
        return not Path("/proc/self").exists()  # without /proc nobody knows
    # a process that has ended and is not waited for yet is a zombie
    return state.rpartition(")")[2].split()[0] not in ("Z", "X")
