"""Training steps replayed as CUDA graphs: one launch in place of hundreds.

A small network's step is bound by the launches of its kernels. The first steps run as usual, on a
stream of their own; then one is captured, which executes nothing, and from there on batches of that
shape are copied into its inputs and the graph is replayed. Batches of other shapes, such as the
last one of an epoch, and steps that cannot be captured run as usual. Not yet measured on a GPU.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

log = logging.getLogger("lwbench")

# Before a capture libraries must have chosen their algorithms, and the optimizer made its buffers.
WARM_UP = 3

Compute = Callable[[Tensor, Tensor], Tensor]  # a step: (images, labels) -> its sums


class Capture(Protocol):
    """How work is recorded and run; `CudaCapture`, and in tests a stand-in on the CPU."""

    def aside(self, work: Callable[[], Tensor]) -> Tensor: ...

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]: ...


class CudaCapture:
    """Graphs of one CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    def aside(self, work: Callable[[], Tensor]) -> Tensor:
        """Run work on a stream of its own, as a later capture does."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = work()
        current.wait_stream(self._stream)
        result.record_stream(current)
        return result

    def record(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Capture work; return what replays it, and the tensor that it then writes."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            result = work()
        return graph.replay, result


class GraphedStep:
    """Calls `compute`, by replaying a graph of it where possible.

    `compute` must read what changes between steps from tensors, the learning rate included.
    `prepare`: called before a capture.
    """

    def __init__(
        self,
        compute: Compute,
        capture: Capture,
        prepare: Callable[[], None],
        warm_up: int = WARM_UP,
    ) -> None:
        self._compute, self._capture, self._prepare = compute, capture, prepare
        self._left = warm_up
        self._replay: Callable[[], None] | None = None
        self._inputs: tuple[Tensor, Tensor] | None = None
        self._result: Tensor | None = None
        self.has_failed = False

    @property
    def is_used(self) -> bool:
        """Whether steps are replayed."""
        return self._replay is not None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take a step; return what `compute` returns."""
        if self.has_failed:
            return self._compute(images, labels)
        if self._left:
            self._left -= 1
            return self._capture.aside(lambda: self._compute(images, labels))
        if self._replay is None:
            self._record(images, labels)
        if not (self._replay and self._fits(images, labels)):
            return self._compute(images, labels)
        assert self._inputs is not None and self._result is not None
        for place, value in zip(self._inputs, (images, labels), strict=True):
            place.copy_(value)
        self._replay()
        return self._result.clone()  # the next replay writes it anew

    def _fits(self, images: Tensor, labels: Tensor) -> bool:
        assert self._inputs is not None
        pairs = zip(self._inputs, (images, labels), strict=True)
        return all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)

    def _record(self, images: Tensor, labels: Tensor) -> None:
        inputs = images.clone(), labels.clone()
        try:
            self._prepare()
            self._replay, self._result = self._capture.record(lambda: self._compute(*inputs))
            self._inputs = inputs
        except RuntimeError as error:  # an operator that waits for the device, for example
            self.has_failed = True
            self._prepare()
            reason = (str(error).splitlines() or [""])[0][:150]
            log.info("steps run without a CUDA graph: %s", reason)
