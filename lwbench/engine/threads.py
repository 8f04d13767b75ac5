"""How many threads train on a CPU, and how they wait for work."""

import copy
import os
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING

from ..errors import plural
from ..runs import machine
from ..runs.processes import own_cores, this_place
from ..runs.runconfig import RunConfig

if TYPE_CHECKING:
    import torch
    from torch import nn

# Iterations of an idle thread's waiting loop before it sleeps, about 0.2 ms. A small network hands
# work to its threads several hundred times a step. Threads that sleep at once make two threads
# slower than one; threads that spin for long, as OpenMP's default is, hold a core that a busy
# neighbour needs (measured in docs/performance.md).
SPINS = 10_000


def configure() -> None:
    """Let waiting threads spin where each has a core of its own, and sleep at once elsewhere."""
    os.environ.update(waiting())


def waiting() -> dict[str, str]:
    """The environment variable by which threads that wait spin or sleep on this machine now.

    Empty if the user's environment sets OMP_WAIT_POLICY or GOMP_SPINCOUNT.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        return {}
    return {"GOMP_SPINCOUNT": str(SPINS) if _each_thread_has_a_core() else "0"}


def _each_thread_has_a_core(seconds: float = 0.1) -> bool:
    """Whether the CPUs that this process may use have room for all of its threads.

    What other processes use of these CPUs is measured while this one sleeps. An eighth of a core
    a thread is tolerated: system services take that much now and then on an idle machine.
    """
    cpus = machine.allowed_cpus()
    threads = _threads(default=len(cpus))
    if threads == 1:
        return True  # it waits for nobody
    threads *= this_place().local_size  # torchrun's processes start together
    if threads > machine.usable_cores():
        return False  # a quota: spinning would use up the time that working threads need
    before = _busy_ticks(cpus)
    time.sleep(seconds)
    after = _busy_ticks(cpus)
    if before is None or after is None:
        return True
    busy = (after - before) / os.sysconf("SC_CLK_TCK") / seconds
    return busy + threads <= len(cpus) + threads / 8


def _threads(default: int) -> int:
    """The number of threads that OpenMP will start."""
    try:
        return max(1, int(os.environ.get("OMP_NUM_THREADS", "").split(",")[0]))
    except ValueError:
        return default


def _busy_ticks(cpus: set[int]) -> int | None:
    """Clock ticks that these CPUs have worked since the system started; None if it does not say.

    /proc/stat has a line for each CPU: `cpu0 user nice system idle ...`.
    """
    names = {f"cpu{number}" for number in cpus}
    try:
        lines = [line.split() for line in (machine.ROOT / "proc/stat").read_text().splitlines()]
        busy = [sum(map(int, words[1:4])) for words in lines if words and words[0] in names]
    except (OSError, ValueError):
        return None
    return sum(busy) if busy else None


def fastest(
    step: Callable[[int], None], counts: Sequence[int], seconds: float = 1.0
) -> dict[int, float]:
    """Time `step(threads)` with each number of threads; return the median seconds of each.

    The numbers take turns, so that a change of the machine's load affects all of them. Rounds are
    repeated for about `seconds`, at least one after a first round that only warms up caches.
    """
    times: dict[int, list[float]] = {count: [] for count in counts}
    begin = time.monotonic()
    while True:
        for count in counts:
            start = time.monotonic()
            step(count)
            times[count].append(time.monotonic() - start)
        rounds = len(times[counts[0]])
        if rounds >= 2 and time.monotonic() - begin > seconds:
            return {count: median(found[1:]) for count, found in times.items()}


def measured(model: "nn.Module", batch: tuple[int, ...], num_classes: int) -> dict[int, float]:
    """Seconds of a training step on the CPU with one thread and with all, by number of threads.

    The step runs on a copy of the network and on random images of shape `batch`, so that neither
    weights nor random numbers of the training change. Empty where only one thread may be used.
    """
    import torch
    import torch.nn.functional as F

    every = min(torch.get_num_threads(), own_cores())
    if every == 1:
        return {}
    twin = copy.deepcopy(model).to(memory_format=torch.channels_last).train()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, generator=generator).to(memory_format=torch.channels_last)
    labels = torch.randint(num_classes, batch[:1], generator=generator)

    def step(threads: int) -> None:
        torch.set_num_threads(threads)
        F.cross_entropy(twin(images), labels).backward()
        twin.zero_grad(set_to_none=True)

    with torch.random.fork_rng(devices=[]):  # dropout draws random numbers
        return fastest(step, [1, every])


def choose(
    recorded: int | None,
    config: RunConfig,
    model: "nn.Module",
    num_classes: int,
    device: "torch.device",
) -> str:
    """Set the number of CPU threads of a run before its first step; return a remark on it.

    A resumed run keeps its number (`recorded`), since the last digits of sums depend on it.
    Otherwise it is the configured one, or, with threads=auto, the faster of one thread and all.
    """
    import torch

    if recorded:
        torch.set_num_threads(recorded)
        return f", {plural(recorded, 'thread')} as before"
    if config.threads != "auto":
        torch.set_num_threads(config.threads)
        return f", {plural(config.threads, 'thread')}"
    if device.type != "cpu":
        return ""
    # images of 224 px fill the caches with fewer of them
    images = min(config.batch_size, 128 if config.image_size <= 64 else 16)
    shape = (images, 3, config.image_size, config.image_size)
    seconds = measured(model, shape, num_classes)
    if not seconds:
        return f", {plural(torch.get_num_threads(), 'thread')}"
    best = min(seconds, key=seconds.__getitem__)
    torch.set_num_threads(best)
    timed = ", ".join(
        f"{plural(n, 'thread')} {images / s:,.0f} images/s" for n, s in seconds.items()
    )
    return f", {plural(best, 'thread')} (measured: {timed})"
