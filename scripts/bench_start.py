"""Time what surrounds training: a run's first step, the runs of a sweep, a neighbour on a core.

The first counts processor time, on which other processes have less influence. The last compares
images/s beside a process that keeps one core busy with those of one thread on a free machine.

    python scripts/bench_start.py [--tiny] [--runs N] [--only first|sweep|neighbour]
"""

import argparse
import csv
import itertools
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from interleaved import Timed, clocked, compare

# leaves the process when the first step is done
FIRST_STEP = """
import os, sys
from lwbench.cli import main
from lwbench.engine.step import TrainStep
step = TrainStep.__call__
def first(*arguments):
    step(*arguments)
    os._exit(0)
TrainStep.__call__ = first
main(sys.argv[1:])
sys.exit("no step was made")
"""
TRAIN = ["train", "model=mb0", "data=digits", "epochs=1", "device=cpu"]


def processor_time(work: Callable[[], object]) -> Timed:
    """Return a function that does `work` and returns the seconds of its processes' time."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        work()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return once


def python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def lwbench(*arguments: str) -> None:
    python("-m", "lwbench", *arguments)


@contextmanager
def busy(core: int) -> Iterator[None]:
    """Keep a core busy with another process inside the `with` block."""
    code = f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"
    neighbour = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


def seconds_per_image(out: Path, *keys: str) -> float:
    """The time of an image in the last epoch of a run."""
    lwbench("train", "model=mb0", "image_size=32", f"out={out}", "evaluate_train=false", *keys)
    (path,) = out.glob("*/*/*/metrics.csv")
    with open(path, newline="") as file:
        return 1 / float([row["images_per_s"] for row in csv.DictReader(file)][-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a few seconds, to test the script")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--data", nargs="*", default=["data=digits"], help="of the last case")
    parser.add_argument("--only", choices=["first", "sweep", "neighbour"])
    options = parser.parse_args()
    runs, seeds = (1, 2) if options.tiny else (options.runs, 20)
    count = itertools.count()
    with tempfile.TemporaryDirectory() as folder:

        def fresh() -> str:
            return f"out={folder}/{next(count)}"

        lwbench(*TRAIN, fresh())  # counts of the network are cached from here on
        if options.only in (None, "first"):
            first_step(fresh, runs)
        if options.only in (None, "sweep"):
            sweep(fresh, runs, seeds)
        if options.only in (None, "neighbour"):
            neighbour(fresh, runs, [f"epochs={1 if options.tiny else 20}", *options.data])


def first_step(fresh: Callable[[], str], runs: int) -> None:
    """The processor time until the first step is done."""
    ours = processor_time(lambda: python("-c", FIRST_STEP, *TRAIN, "threads=1", fresh()))
    imports = {"import torch": processor_time(lambda: python("-c", "import torch"))}
    compare("start", "first step, mb0, digits", ours, imports, runs=runs)


def sweep(fresh: Callable[[], str], runs: int, seeds: int) -> None:
    """The time of a sweep by the clock, beside that of a command for each of its runs."""

    def alone() -> None:
        for seed in range(seeds):
            lwbench(*TRAIN, f"seed={seed}", "threads=1", fresh())

    every = ",".join(map(str, range(seeds)))
    ours = clocked(lambda: lwbench(*TRAIN, "-m", f"seed={every}", "threads=1", fresh()))
    case = f"sweep of {seeds} one-epoch digits runs"
    compare("start", case, ours, {"a command for each run": clocked(alone)}, runs=runs)


def neighbour(fresh: Callable[[], str], runs: int, keys: list[str]) -> None:
    """Seconds per image beside a busy process, and of one thread alone."""
    core = sorted(os.sched_getaffinity(0))[-1]

    def timed(*more: str) -> float:
        return seconds_per_image(Path(fresh().removeprefix("out=")), *keys, *more)

    def beside() -> float:
        with busy(core):
            return timed()

    case = "mb0, 32 px, beside a busy process on one core"
    alone = {"one thread alone": lambda: timed("threads=1")}
    compare("start", case, beside, alone, runs=runs)


if __name__ == "__main__":
    main()
