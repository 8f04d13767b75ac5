"""Measure what a launcher adds to 12 runs of digits, made one after another.

    python scripts/time_launchers.py none local worker slurm ray

`none`: a command `lwbench train` for each run. Prints wall and processor time per run, with all
processes that were started: daemons of SLURM and Ray become children of this process when their
parent ends. `idle` is what starting and stopping the cluster alone takes. slurm needs root and what
slurm_local.sh needs; ray needs root and Ray.
"""

import ctypes
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

RUNS = 12
KEYS = ("model=mb0", "epochs=1", "threads=1")
LWBENCH = (sys.executable, "-m", "lwbench")
SWEEP = (*LWBENCH, "train", "-m", *KEYS, f"seed=range({RUNS})")
SUBREAPER = 36  # prctl(2): orphans below this process become its children
SLURM = ("bash", str(Path(__file__).resolve().parent / "slurm_local.sh"))
RAY_ALONE = "import ray; ray.init(include_dashboard=False); ray.shutdown()"


def isolated(command: Sequence[str]) -> tuple[str, ...]:
    """The command in a network of its own: Ray listens on all interfaces."""
    return "unshare", "-n", "sh", "-c", f"ip link set lo up; {shlex.join(command)}"


def single(seed: int) -> tuple[str, ...]:
    """The command of one run."""
    return *LWBENCH, "train", *KEYS, f"seed={seed}"


LAUNCHERS: dict[str, list[tuple[str, ...]]] = {
    "none": [single(seed) for seed in range(RUNS)],
    "local": [SWEEP],
    "worker": [(*LWBENCH, "worker", "study=study.txt")],
    "slurm": [(*SLURM, *SWEEP, "launcher=slurm", "launcher.array_limit=1", "launcher.time=30")],
    "slurm, idle": [(*SLURM, "true")],
    # as many cores as the machine has: one run at a time
    "ray": [isolated([*SWEEP, "launcher=ray", f"launcher.cpus={os.cpu_count()}"])],
    "ray, idle": [isolated([sys.executable, "-c", RAY_ALONE])],
}  # fmt: skip


def reap(first: int = 0) -> int:
    """Wait for children, adopted ones too, until `first` has ended, or all; its exit code.

    They are waited for while a command runs: SLURM takes a job as running while it has zombies.
    """
    while True:
        try:
            child, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return 0
        if child == first:
            return os.waitstatus_to_exitcode(status)


def processor() -> float:
    """Processor seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(commands: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Wall and processor seconds. Raises SystemExit where a command fails or a run is missing."""
    with tempfile.TemporaryDirectory() as folder:
        lines = (f"lwbench {shlex.join(single(seed)[3:])}\n" for seed in range(RUNS))
        Path(folder, "study.txt").write_text("".join(lines))
        begin, before = time.perf_counter(), processor()
        for command in commands:
            log = open(Path(folder, "log"), "w+")  # noqa: SIM115 (daemons may keep it open)
            if reap(subprocess.Popen(command, cwd=folder, stdout=log, stderr=log).pid):
                log.seek(0)
                raise SystemExit(f"{shlex.join(command)} failed:\n{log.read()}")
        wall = time.perf_counter() - begin
        reap()
        found = len(list(Path(folder).glob("outputs/digits/*/*/result.json")))
        if found not in (0, RUNS):
            raise SystemExit(f"{found} of {RUNS} runs")
        return wall, processor() - before


def main(names: Sequence[str]) -> None:
    """Measure the launchers of these names, or all of them."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    for name, commands in LAUNCHERS.items():
        if names and name.split(",")[0] not in names:
            continue
        wall, used = measured(commands)
        load = os.getloadavg()[0]
        if "idle" in name:
            print(f"{name}: {wall:.1f} s, processor {used:.1f} s; load {load:.1f}", flush=True)
        else:
            print(
                f"{name}: {wall / RUNS:.1f} s a run, processor {used / RUNS:.1f} s a run; "
                f"load {load:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
