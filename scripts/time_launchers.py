"""Measure what a launcher adds to 12 runs of digits, made one after another.

    python scripts/time_launchers.py none local worker ray slurm

`none`: a command `lwbench train` for each run. Prints wall and processor time per run, with all
processes that were started; `idle` is what starting and stopping the cluster alone takes. Needs
root, for a cgroup that counts them, and what slurm_local.sh needs, and Ray.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

RUNS = 12
KEYS = ("model=mb0", "epochs=1", "threads=1")
LWBENCH = (sys.executable, "-m", "lwbench")
SWEEP = (*LWBENCH, "train", "-m", *KEYS, f"seed=range({RUNS})")
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
    # as many cores as the machine has: one run at a time
    "ray": [isolated([*SWEEP, "launcher=ray", f"launcher.cpus={os.cpu_count()}"])],
    "ray, idle": [isolated([sys.executable, "-c", RAY_ALONE])],
    "slurm": [(*SLURM, *SWEEP, "launcher=slurm", "launcher.array_limit=1", "launcher.time=30")],
    "slurm, idle": [(*SLURM, "true")],
}  # fmt: skip


class Group:
    """A cgroup of this process and of all that it starts, daemons of SLURM and Ray included."""

    def __init__(self) -> None:
        first = Path("/sys/fs/cgroup/cpuacct")  # version 1
        self.root = first if first.exists() else first.parent
        self.folder = self.root / f"lwbench-{os.getpid()}"
        self.folder.mkdir()
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def processor(self) -> float:
        """Processor seconds used so far."""
        if (usage := self.folder / "cpuacct.usage").exists():
            return int(usage.read_text()) / 1e9
        return int((self.folder / "cpu.stat").read_text().split()[1]) / 1e6

    def close(self) -> None:
        """Leave and remove the group."""
        (self.root / "cgroup.procs").write_text(str(os.getpid()))
        with suppress(OSError):  # a process that is ending is still in it
            self.folder.rmdir()


def measured(group: Group, commands: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Wall and processor seconds. Raises SystemExit where a command fails or a run is missing."""
    with tempfile.TemporaryDirectory() as folder:
        lines = (f"lwbench {shlex.join(single(seed)[3:])}\n" for seed in range(RUNS))
        Path(folder, "study.txt").write_text("".join(lines))
        begin, before = time.perf_counter(), group.processor()
        for command in commands:
            log = open(Path(folder, "log"), "w+")  # noqa: SIM115 (daemons may keep it open)
            if subprocess.call(command, cwd=folder, stdout=log, stderr=log):
                log.seek(0)
                raise SystemExit(f"{shlex.join(command)} failed:\n{log.read()}")
        wall = time.perf_counter() - begin
        found = len(list(Path(folder).glob("outputs/digits/*/*/result.json")))
        if found not in (0, RUNS):
            raise SystemExit(f"{found} of {RUNS} runs")
        return wall, group.processor() - before


def main(names: Sequence[str]) -> None:
    """Measure the launchers of these names, or all of them."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    group = Group()
    for name, commands in LAUNCHERS.items():
        if names and name.split(",")[0] not in names:
            continue
        wall, used = measured(group, commands)
        load = os.getloadavg()[0]
        if "idle" in name:
            print(f"{name}: {wall:.1f} s, processor {used:.1f} s; load {load:.1f}", flush=True)
        else:
            print(
                f"{name}: {wall / RUNS:.1f} s a run, processor {used / RUNS:.1f} s a run; "
                f"load {load:.1f}",
                flush=True,
            )
    group.close()


if __name__ == "__main__":
    main(sys.argv[1:])
