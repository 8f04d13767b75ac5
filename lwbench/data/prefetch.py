"""Copies of batches to a GPU, made while it computes with the batch before."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def copied_ahead(batches: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield the batches on `device`; on a GPU the next one is read and copied meanwhile.

    The copy runs on a stream of its own from page-locked memory. Tensors that are on the device
    already, and all on a CPU, are passed on as they are.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)
    ahead: Tensor | None = None
    for batch in batches:
        following = _copied(batch, device, stream)
        if ahead is not None:
            yield _ready(ahead, stream)
        ahead = following
    if ahead is not None:
        yield _ready(ahead, stream)


def _copied(batch: Tensor, device: torch.device, stream: torch.cuda.Stream) -> Tensor:
    if batch.device == device:
        # made by the stream that computes, which `stream` therefore has to wait for
        stream.wait_stream(torch.cuda.current_stream(device))
        return batch
    with torch.cuda.stream(stream):
        # the allocator does not reuse page-locked memory before the copy has ended
        pinned = batch if batch.is_pinned() else batch.pin_memory()
        return pinned.to(device, non_blocking=True)


def _ready(batch: Tensor, stream: torch.cuda.Stream) -> Tensor:
    """Let the computing stream wait for the copy, and keep its memory until it has used it."""
    current = torch.cuda.current_stream(batch.device)
    current.wait_stream(stream)
    batch.record_stream(current)
    return batch
