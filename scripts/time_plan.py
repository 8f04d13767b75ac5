"""Measure planning, a dry submission, states and a table of many runs: 100 configurations x seeds.

    python scripts/time_plan.py [--seeds 25,50,100]

No run is trained: a tenth of them gets a made-up result, in a temporary folder. Prints a line per
number of seeds, so that growth can be seen to be linear: wall time, and processor time in brackets.
Configurations are composed anew for the first number only, as a user's first command does.
"""

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lwbench.cli import main
from lwbench.commands._launching import planned_runs
from lwbench.runs.files import write_json
from lwbench.sweeps import slurm_jobs

ROWS = 100
FIGURES = {"epoch": 1, "test_loss": 1.0, "test_top1": 50.0, "test_top5": 90.0, "train_top1": 50.0}


def table(path: Path) -> None:
    """Write a table of ROWS rows with a configuration each."""
    rows = "".join(
        f"  - {{label: lr {n}, run: model=mb0 optimizer.lr=0.{n:03}}}\n" for n in range(1, ROWS + 1)
    )
    columns = "columns: {top1: {kind: top1, data: digits}}"
    path.write_text(f"source: made up for a benchmark\n{columns}\nrows:\n{rows}")


def finish(run, config) -> None:
    """Give a run a made-up result."""
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    run.write_config(config)
    result = {
        "identity": run.identity, "model": "mb0", "data": "digits", "seed": config.seed,
        "epochs": config.epochs, "precision": "fp32", "device": "cpu", "params": 1,
        "seconds": 1.0, "images_per_s": 1.0, "final": FIGURES, "best": FIGURES,
    }  # fmt: skip
    write_json(run.path / "env.json", {"starts": [], "data": {}})
    run.write_result(result)


class Seconds(NamedTuple):
    """What a step takes."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:.1f} s ({self.processor:.1f})"


def timed(work: Callable[[], object]) -> Seconds:
    """What `work` takes."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - processor)


def lwbench(*arguments: str) -> None:
    """Run a command without its output. Raises SystemExit where it fails."""
    with contextlib.redirect_stdout(io.StringIO()):
        code = main(arguments)
    if code:
        raise SystemExit(f"lwbench {' '.join(arguments)} ended with {code}")


def measured(seeds: int) -> dict[str, Seconds]:
    """What each step takes with `seeds` seeds of every row, in the working folder."""
    out = f"out=o{seeds}"
    requests = [
        ("model=mb0", "data=digits", f"optimizer.lr=0.{n:03}", out, f"seed={seed}")
        for seed in range(seeds)
        for n in range(1, ROWS + 1)
    ]
    jobs = planned_runs(requests)
    for job in jobs[::10]:
        finish(job.run, job.config)
    study = ("reproduce", "table=mine.yaml", f"seeds={seeds}", out)
    root = Path(f"o{seeds}", ".slurm").absolute()
    dry = ("launcher=slurm", "launcher.dry_run=true")
    return {
        "plan": timed(lambda: lwbench(*study, "dry_run=true")),
        "submit, dry, and table": timed(lambda: lwbench(*study, *dry)),
        "states": timed(lambda: slurm_jobs.states(jobs, root, must_ask=False)),
        "table": timed(lambda: lwbench("table", "table=mine.yaml", out)),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="25,50,100")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["XDG_CACHE_HOME"] = folder  # nothing is composed yet
        table(Path("mine.yaml"))
        for seeds in map(int, asked.seeds.split(",")):
            took = measured(seeds)
            parts = ", ".join(f"{name} {seconds}" for name, seconds in took.items())
            total = Seconds(*map(sum, zip(*took.values(), strict=True)))
            print(f"{ROWS * seeds:,} runs: {total}: {parts}", flush=True)
