"""Measure the cases of `bench`: in processes of their own, which take turns in blocks of calls."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import LwbenchError, UsageError
from ..logs import CountProgress, console, log
from ..measure.latency import reference_ms
from ..runs import machine
from ..runs.latencies import Block
from ._bench_case import EXPORTED, Case, least_calls, network

ROUNDS = 24  # blocks of each case; fewer where calls take longer than the time allows
LEAST_ROUNDS = 12  # an interval of a median needs so many, whatever they take
LEAST_BLOCK_S = 0.02
SPINS = "10000"  # of waiting threads, as in training: see engine.threads


@dataclass
class Measurement:
    """What was measured of a case; times in milliseconds."""

    case: Case
    loads_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    calls_ms: list[float] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)


Turn = tuple["_Worker", Measurement, float]  # a case's process, and what a call takes, in ms


def measured(
    cases: Sequence[Case], seconds: float, seed: int, processes: int, is_quiet: bool = False
) -> list[Measurement | None]:
    """Measure all cases in turn; `seconds`: of all blocks together. `is_quiet`: without progress.

    Each case has `processes` processes, one after the other: all cases are loaded, take turns and
    end, as often. A case that cannot be loaded is None, with a warning. Raises UsageError for more
    threads than cores, LwbenchError where a process dies.
    """
    found: list[Measurement | None] = [
        Measurement(replace(case, cpus=_cpus(case.threads))) for case in cases
    ]
    generator = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="lwbench-bench-") as folder:
        exports = _Exports(Path(folder))
        for number in range(processes):
            with ExitStack() as stack:
                # Of two equal processes the one started later was faster, by a percent: every
                # other time the order is reversed.
                order = range(len(found))[:: -1 if number % 2 else 1]
                is_shown = number == 0 and not is_quiet
                turns = list(_loaded(found, order, exports, stack, is_shown))
                stack.enter_context(_pinned(_cpus(1)))
                _take_turns(turns, seconds / processes, processes, number, generator, is_quiet)
    return found


def _loaded(
    found: list[Measurement | None],
    order: Sequence[int],
    exports: "_Exports",
    stack: ExitStack,
    is_shown: bool,
) -> Iterator[Turn]:
    """Start a process for each case; one after the other, so that loading is timed alone."""
    for index in order:
        if (one := found[index]) is None:
            continue
        try:
            worker = stack.enter_context(_started(exports.of(one.case)))
            answer = worker.answer()
        except LwbenchError as error:
            log.warning("%s: left out: %s", one.case.text, error)
            found[index] = None
            continue
        one.loads_s.append(answer["load_s"])
        if is_shown:
            console().print(f"loaded       {one.case.text}: {answer['load_s']:.2f} s")
        yield worker, one, answer["call_ms"]


def _take_turns(
    turns: Sequence[Turn],
    seconds: float,
    processes: int,
    number: int,
    generator: np.random.Generator,
    is_quiet: bool,
) -> None:
    """Rounds of blocks, each in random order; `number`: of the cases' processes."""
    if not turns:
        return
    most, least = -(-ROUNDS // processes), -(-LEAST_ROUNDS // processes)
    block_s = max(seconds / (most * len(turns)), LEAST_BLOCK_S)
    # a block has a call or two that are not timed and as many at least that are
    calls_s = [2 * least_calls(call_ms) * call_ms / 1000 for _, _, call_ms in turns]
    takes = sum(max(block_s, needed) for needed in calls_s)
    rounds = min(most, max(least, int(seconds / takes)))
    before = reference_ms()
    bar = nullcontext() if is_quiet else CountProgress(rounds * len(turns), "blocks")
    with bar as progress:
        for _ in range(rounds):
            for index in generator.permutation(len(turns)):
                worker, one, _ = turns[index]
                block = worker.ask(seconds=block_s)
                after, calls = reference_ms(), block["calls_ms"]
                one.calls_ms += calls
                one.peak_bytes = max(one.peak_bytes, block["peak_bytes"])
                one.blocks.append(
                    Block(
                        median_ms=float(np.median(calls)),
                        calls=len(calls),
                        reference_ms=(before + after) / 2,
                        process=number,
                    )
                )
                before = after
                if progress is not None:
                    progress.more(1)


class _Exports:
    """Networks as files, in this process: those that read a file need no torch."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Path] = {}

    def of(self, case: Case) -> Case:
        """The case with the folder of its file; itself where its runtime reads none."""
        if case.runtime not in EXPORTED:
            return case
        # neither the number of threads nor the second name of a network makes another file
        key = replace(case, name="", threads=1, cpus=()).line()
        if key not in self._made:
            self._made[key] = self._write(case, self._folder / str(len(self._made)))
        return replace(case, folder=str(self._made[key]))

    def _write(self, case: Case, folder: Path) -> Path:
        import torch

        from ..deploy.export import program, require, write

        format: Any = case.runtime
        require(format)
        folder.mkdir()
        example = torch.zeros(3, case.image_size, case.image_size)
        write(program(network(case), example, batch=case.batch_size), format, folder)
        return folder


class _Worker:
    """The process of a case; see `_bench_case`."""

    def __init__(self, case: Case, errors: IO[str]) -> None:
        self._case = case
        self._errors = errors
        threads = str(case.threads)
        variables = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lwbench.commands._bench_case"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={"GOMP_SPINCOUNT": SPINS, **os.environ, **variables},
        )

    def ask(self, **request: float) -> dict[str, Any]:
        """Send a request; return the answer. Raises LwbenchError where the process failed."""
        self.send(json.dumps(request))
        return self.answer()

    def send(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has died, which the answer says
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            said = (self._errors.read().strip().splitlines() or ["no message"])[-1][:300]
            code = self._process.wait()
            raise LwbenchError(f"{self._case.text}: its process ended with code {code}: {said}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LwbenchError(answer["error"])
        return answer

    def end(self) -> None:
        """End the process; it has nothing to save."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def _started(case: Case) -> Iterator[_Worker]:
    with tempfile.TemporaryFile("w+") as errors:
        worker = _Worker(case, errors)
        try:
            worker.send(case.line())
            yield worker
        finally:
            worker.end()


def _cpus(threads: int) -> tuple[int, ...]:
    """The last cores, since the first one handles most interrupts. Raises UsageError."""
    allowed = sorted(machine.allowed_cpus())
    if threads > machine.usable_cores():
        raise UsageError(f"threads={threads}: this process may use {machine.usable_cores()} cores")
    return tuple(allowed[-threads:])


@contextmanager
def _pinned(cpus: tuple[int, ...]) -> Iterator[None]:
    """Run this process, which times the reference kernel, on the cases' own core."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
