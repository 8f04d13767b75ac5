"""Measure the ratio of two programs' times by running them in turn."""

import json
import statistics
import sys
import time
from collections.abc import Callable

import torch

from lwbench.runs.provenance import cpu_model

Timed = Callable[[], float]  # does the work once and returns the seconds that it took


def clocked(work: Callable[[], object]) -> Timed:
    """Return a function that does `work` and returns the seconds that it took."""

    def once() -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    return once


def compare(
    bench: str,
    case: str,
    ours: Timed,
    peers: dict[str, Timed],
    *,
    runs: int = 7,
    limit_s: float = 200,
    **facts: object,
) -> None:
    """Time `ours` and every other program (`peers`) in turn; print one JSON line for each of them.

    The first turn warms up and does not count. `ratio` is the other's median over ours, `spread`
    the lowest and highest ratio of a turn. No turn starts after `limit_s` seconds.
    """
    print(f"{bench}: {case} ...", file=sys.stderr)
    both = {"lwbench": ours, **peers}
    times: dict[str, list[float]] = {name: [] for name in both}
    begin = time.perf_counter()
    for turn in range(runs + 1):
        took = {name: work() for name, work in both.items()}
        if turn:
            for name, seconds in took.items():
                times[name].append(seconds)
        if times["lwbench"] and time.perf_counter() - begin > limit_s:
            break
    mine = times["lwbench"]
    for name in peers:
        ratios = [slow / fast for slow, fast in zip(times[name], mine, strict=True)]
        line = {
            "bench": bench,
            "case": case,
            "peer": name,
            "ratio": round(statistics.median(times[name]) / statistics.median(mine), 2),
            "runs": len(ratios),
            "spread": [round(min(ratios), 2), round(max(ratios), 2)],
            "ours_s": round(statistics.median(mine), 4),
            "peer_s": round(statistics.median(times[name]), 4),
            "cpu": cpu_model(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        print(json.dumps(line | facts), flush=True)
