"""Measure planning, a dry submission, states and a table of many runs: 100 configurations x seeds.

    python scripts/time_plan.py [--seeds 25,50,100]

No run is trained: a tenth of them gets a made-up result, in a temporary folder. Prints a line per
number of seeds, so that growth can be seen to be linear.
"""

import argparse
import contextlib
import io
import os
import tempfile
import time
from pathlib import Path

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


def timed(*arguments: str) -> float:
    """Seconds that a command takes. Raises SystemExit where it fails."""
    begin = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        code = main(arguments)
    if code:
        raise SystemExit(f"lwbench {' '.join(arguments)} ended with {code}")
    return time.perf_counter() - begin


def measured(seeds: int) -> dict[str, float]:
    """Seconds of each step with `seeds` seeds of every row, in the working folder."""
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
    took = {"plan": timed(*study, "dry_run=true")}
    took["submit, dry, and table"] = timed(*study, "launcher=slurm", "launcher.dry_run=true")
    begin = time.perf_counter()
    slurm_jobs.states(jobs, Path(f"o{seeds}", ".slurm").absolute(), must_ask=False)
    took["states"] = time.perf_counter() - begin
    took["table"] = timed("table", "table=mine.yaml", out)
    return took


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="25,50,100")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        table(Path("mine.yaml"))
        for seeds in map(int, asked.seeds.split(",")):
            took = measured(seeds)
            parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in took.items())
            print(f"{ROWS * seeds:,} runs: {sum(took.values()):.1f} s: {parts}", flush=True)
