"""One training in several processes (ranks) that torchrun starts: what they exchange and agree on.

Every rank computes its part of each batch; gradients and sums are added up over the ranks, so that
all of them hold the same weights. Rank 0 writes the run and speaks to the user. torch is imported
where it is needed, since the command line asks this module who may speak.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import PeerLostError, UsageError
from ..runs.processes import Place, this_place
from .ending import Ending, SilentError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

# Without a word for so long a rank is lost: reading or packing of images may differ by minutes.
TIMEOUT = timedelta(hours=1)


class Ranks:
    """The processes of a training. One by itself passes on what it is given.

    Collective methods must be called by all ranks in the same order. They raise PeerLostError where
    another rank has died.
    """

    def __init__(self, place: Place | None = None, store: Any = None) -> None:
        self.place, self._store = place or Place(), store
        self.rank, self.size = self.place.rank, self.place.size
        self._ending = Ending(self.place, store)

    @property
    def leads(self) -> bool:
        """Whether this rank writes the run."""
        return self.place.leads

    # sums and copies

    def add_up(self, tensor: "Tensor") -> "Tensor":
        """Sum a tensor over the ranks, in place; all of them get the same bits."""
        if self.size > 1:
            import torch.distributed as dist

            with _lost():
                dist.all_reduce(tensor)
        return tensor

    def add_up_gradients(self, parameters: Iterable["Tensor"]) -> None:
        """Sum the gradients over the ranks.

        As one tensor, always of the same layout: torch's DistributedDataParallel changes its layout
        after the first step, and with it the order of sums over three and more ranks, so that a
        resumed run would differ in its last bits. It would overlap this exchange with the
        backward pass, which this does not.
        """
        if self.size == 1:
            return
        import torch

        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return
        flat = self.add_up(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))

    def equalise(self, tensors: Iterable["Tensor"]) -> None:
        """Give all ranks the tensors of rank 0, in place."""
        if self.size == 1:
            return
        import torch.distributed as dist

        with _lost():
            for tensor in tensors:
                # gloo takes contiguous tensors only, and weights may be channels_last
                copy = tensor.detach().contiguous().clone()
                dist.broadcast(copy, 0)
                tensor.detach().copy_(copy)

    def joined(self, batches: Sequence["Tensor"]) -> "Tensor":
        """Concatenate batches (N,) int64, of which each rank has a part, as one process has them.

        All ranks have the same number of batches; parts may be empty.
        """
        import torch

        if self.size == 1:
            return torch.cat(list(batches)).cpu()
        import torch.distributed as dist

        counts = torch.zeros(self.size, len(batches), dtype=torch.int64)
        counts[self.rank] = torch.tensor([len(batch) for batch in batches])
        lengths = self.add_up(counts).tolist()
        # equally long, as all_gather wants them
        padded = torch.zeros(max(map(sum, lengths)), dtype=torch.int64)
        padded[: sum(lengths[self.rank])] = torch.cat(list(batches)).cpu()
        found = [torch.empty_like(padded) for _ in lengths]
        with _lost():
            dist.all_gather(found, padded)
        parts = [f[: sum(n)].split(n) for f, n in zip(found, lengths, strict=True)]
        return torch.cat([part for batch in zip(*parts, strict=True) for part in batch])

    # agreement

    def agreed(self, *values: int) -> list[int]:
        """Return the largest of each value over the ranks."""
        if self.size == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        tensor = torch.tensor(values)
        with _lost():
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return [int(value) for value in tensor.tolist()]

    def gathered(self, content: T) -> list[T]:
        """Return what each rank gives, on rank 0; an empty list on the others."""
        if self.size == 1:
            return [content]
        import torch.distributed as dist

        found: list[Any] | None = [None] * self.size if self.leads else None
        with _lost():
            dist.gather_object(content, found)
        return found or []

    def told(self, work: Callable[[], T]) -> T:
        """Call `work` on rank 0 alone; return on all ranks what it returned.

        Where it fails, rank 0 raises its error and the others SilentError.
        """
        if self.size == 1:
            return work()
        import torch.distributed as dist

        answer: list[Any] = [None, None]  # the result, and the exit code of an error
        if self.leads:
            try:
                answer[0] = work()
            except Exception as error:
                with _lost():
                    dist.broadcast_object_list([None, getattr(error, "exit_code", 1)], 0)
                raise
        with _lost():
            dist.broadcast_object_list(answer, 0)
        result, exit_code = answer
        if exit_code is not None:
            raise SilentError(exit_code)
        return result

    def once_per_machine(self, name: str, work: Callable[[], None]) -> None:
        """Call `work` in one process of each machine; the others wait for it, however long."""
        if self.size == 1:
            work()
            return
        key = f"done/{name}/{self.place.node}"
        if self.place.local_rank == 0:
            work()
            self._store.set(key, "")
        while not self._store.check([key]):
            time.sleep(0.1)

    def reseed(self, seed: int) -> None:
        """Give each rank random numbers of its own (dropout); rank 0 keeps those it has."""
        if self.rank:
            import torch

            torch.manual_seed((seed + self.rank * 0x9E3779B97F4A7C15) % 2**63)

    # the end

    def one_message(self) -> AbstractContextManager[None]:
        """Let one rank alone report an error; see `Ending`."""
        return self._ending.one_message()

    def leave(self) -> None:
        """End the process after rank 0; see `Ending`."""
        self._ending.leave()


_current = Ranks()


def current() -> Ranks:
    """The ranks of this process's training."""
    return _current


def as_rank(work: Callable[[], int], *, is_training: bool) -> int:
    """Run a command in one of several processes; in a process by itself, just call `work`.

    Raises UsageError where the command is not a training.
    """
    place = this_place()
    if place.size == 1:
        return work()
    ranks = join(place)
    with ranks.one_message():
        if not is_training:
            raise UsageError(
                "torchrun starts the processes of one training: lwbench train without -m; run "
                "this command without torchrun"
            )
        return work()


def join(place: Place) -> Ranks:
    """Connect this process with the other ranks, by what torchrun says of them."""
    global _current
    from . import threads

    threads.configure()  # before torch is imported, which starts its threads
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    has_gpus = torch.cuda.is_available()
    store = next(iter(rendezvous("env://", place.rank, place.size, timeout=TIMEOUT)))[0]
    connect(store, place, "cpu:gloo,cuda:nccl" if has_gpus else "gloo")
    assert dist.is_initialized()
    if not place.leads:
        _silence()
    _current = Ranks(place, dist.PrefixStore("lwbench", store))
    return _current


def connect(store: Any, place: Place, backend: str = "gloo") -> None:
    """Make the group of all ranks, which exchange addresses by `store`."""
    import torch.distributed as dist

    dist.init_process_group(
        backend,
        store=dist.PrefixStore("group", store),
        rank=place.rank,
        world_size=place.size,
        timeout=TIMEOUT,
    )


def _silence() -> None:
    """Discard what this rank prints; errors go to standard error, by `one_message`."""
    import logging
    import sys

    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    for handler in logging.getLogger("lwbench").handlers:
        handler.setLevel(logging.CRITICAL + 1)


def leave() -> None:
    """To be called at the end of the process, after its last message."""
    _current.leave()


@contextmanager
def _lost() -> Iterator[None]:
    """Name the error of a collective function: a peer has gone."""
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(f"the connection to another process was lost: {error}") from error
