"""One case of `bench` in a process of its own: a network under one runtime, batch and threads.

The process reads a case and then requests for blocks from standard input, a JSON line each, and
answers each with a JSON line. It ends with its standard input.
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import LwbenchError

if TYPE_CHECKING:
    from torch import nn

# yields what loading took, then for each number of seconds that is sent the calls of a block
Measuring = Generator[dict[str, Any], float, None]
EXPORTED = ("onnx", "openvino")  # runtimes that read a file, in a process without torch
SLOW_MS = 200.0  # a call that takes longer is made no more often than necessary
WARM_UP_S = 0.3  # of calls before the first block; the first ones allocate memory


@dataclass(frozen=True)
class Case:
    """What is measured. `model`: the resolved group, unused with `run`; `cpus`: to be pinned to.

    `folder`: of the exported file, for runtimes that read one.
    """

    name: str
    choice: str
    model: dict[str, Any] = field(default_factory=dict)
    run: str | None = None
    weights: str | None = None
    num_classes: int | None = None
    image_size: int = 224
    runtime: str = "eager"
    batch_size: int = 1
    threads: int = 1
    device: str = "cpu"
    deploy: bool = False
    seed: int = 0
    trust_code: bool = False
    cpus: tuple[int, ...] = ()
    folder: str = ""

    @property
    def text(self) -> str:
        """The case in words, for messages."""
        words = [self.name, self.runtime, f"batch {self.batch_size}", f"threads {self.threads}"]
        return ", ".join(words + ["deploy form"] * self.deploy)

    def line(self) -> str:
        """The case as a line of JSON."""
        return json.dumps(asdict(self))


def network(case: Case) -> "nn.Module":
    """Build the network as `export` does, in its deploy form if asked; without images.

    Raises UsageError where it cannot be built, and where weights or run do not fit.
    """
    from ._export_options import Options
    from ._export_subject import run_subject, weights_subject

    options = Options(
        run=case.run, weights=case.weights, image_size=case.image_size,
        num_classes=case.num_classes, trust_code=case.trust_code,
    )  # fmt: skip
    if case.run:
        subject = run_subject(options, {}, with_images=False)
    else:
        subject = weights_subject(options, {"model": case.model}, {"model": case.choice})
    model = subject.model.eval()
    if not case.deploy:
        return model
    from ..deploy.fuse import fuse

    return fuse(model, image_size=subject.image_size)


def serve(lines: TextIO, answers: TextIO) -> None:
    """Answer requests until there are no more."""

    def answer(**facts: object) -> None:
        answers.write(json.dumps(facts) + "\n")
        answers.flush()

    try:
        values = json.loads(lines.readline())
        case = Case(**{**values, "cpus": tuple(values["cpus"])})
        if case.cpus and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, case.cpus)  # before libraries start their threads
        measure = _exported(case) if case.runtime in EXPORTED else _torch(case)
        answer(**next(measure))
        for line in lines:
            answer(**measure.send(json.loads(line)["seconds"]))
    except Exception as error:
        is_ours = isinstance(error, LwbenchError)
        # what a compiler could not do stands behind its first line
        text = str(error) if is_ours else f"{type(error).__name__}: {' '.join(str(error).split())}"
        answer(error=text[:500])


def _exported(case: Case) -> Measuring:
    """Measure the file of a runtime. Its session is made anew for each block: see `_torch`."""
    import importlib

    import numpy as np

    from ..deploy.runtime import runtime

    importlib.import_module({"onnx": "onnxruntime"}.get(case.runtime, case.runtime))
    generator = np.random.default_rng(case.seed)
    shape = (case.batch_size, 3, case.image_size, case.image_size)
    images = generator.standard_normal(shape, dtype=np.float32)

    def load() -> Callable[[], object]:
        run = runtime(case.runtime, Path(case.folder), threads=case.threads)  # type: ignore[arg-type]
        run(images)
        return lambda: run(images)

    yield from _blocks(load, load, _resident_bytes)


def _torch(case: Case) -> Measuring:
    """Measure the network in PyTorch, eager or compiled.

    Where tensors lie in memory changes the latency for as long as a process lives. Weights are
    therefore moved before each block, so that the blocks' spread contains that effect.
    """
    import torch

    torch.set_num_threads(case.threads)
    device = torch.device(case.device)
    generator = torch.Generator().manual_seed(case.seed)
    shape = (case.batch_size, 3, case.image_size, case.image_size)
    images = torch.randn(shape, generator=generator).to(device, memory_format=torch.channels_last)
    kept: list[Any] = []

    def load() -> Callable[[], object]:
        model = network(case).to(device).to(memory_format=torch.channels_last)
        run = torch.compile(model) if case.runtime == "compile" else model

        def call() -> object:
            with torch.inference_mode():
                out = run(images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return out

        kept[:] = [model, call]
        call()
        return call

    def again() -> Callable[[], object]:
        model, call = kept
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()
        return call

    def peak() -> int:
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device)
        return _resident_bytes()

    yield from _blocks(load, again, peak)


def _blocks(
    load: Callable[[], Callable[[], object]],
    again: Callable[[], Callable[[], object]],
    peak: Callable[[], int],
) -> Measuring:
    """Measure what `load` and, for each block, `again` return; `peak`: bytes of memory so far."""
    from ..measure.latency import timed

    begin = perf_counter()
    call = load()
    load_s = perf_counter() - begin
    call_ms = min(timed(call, WARM_UP_S, least=1))
    least = least_calls(call_ms)
    seconds = yield {"load_s": load_s, "call_ms": call_ms}
    while True:
        call = again()
        timed(call, 0, least)  # fills the caches
        seconds = yield {"calls_ms": timed(call, seconds, least), "peak_bytes": peak()}


def least_calls(call_ms: float) -> int:
    """Calls at the beginning of a block that are not timed, and the least that then are."""
    return 1 if call_ms > SLOW_MS else 2


def _resident_bytes() -> int:
    """The largest resident memory of this process so far."""
    import resource

    with contextlib.suppress(OSError, StopIteration):
        # Linux; what getrusage says there may be of the process that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(line for line in lines if line.startswith("VmHWM:"))
        return 1024 * int(peak.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command ends this process
    # what libraries print goes to standard error, so that answers are alone on standard output
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)
