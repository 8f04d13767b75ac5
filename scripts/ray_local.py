"""Make 12 runs on a Ray cluster of two nodes on this machine, one of which is removed meanwhile.

    unshare -n sh -c 'ip link set lo up; python scripts/ray_local.py'

Needs root for `unshare -n`: Ray listens on all interfaces, and in a network namespace of its own
there is the loopback only. The runs are compared with those that local processes make, digit for
digit.
"""

import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = ("train", "-m", "model=mb0,ldc0", "epochs=2", "seed=0,1,2,3,4,5")
AFTER = 3  # finished runs, after which a node is removed
LIMIT = 900  # seconds


def lwbench(*arguments: str, **options) -> subprocess.Popen:
    """Start a command."""
    return subprocess.Popen([sys.executable, "-m", "lwbench", *arguments], **options)


def finished() -> int:
    """The number of runs that have a result."""
    return len(list(Path("outputs").glob("digits/*/*/result.json")))


def metrics(folder: str) -> dict[str, list[list[str]]]:
    """The rows of all runs without times, by the run's name."""
    found = {}
    for path in Path(folder).glob("digits/*/*/metrics.csv"):
        with open(path, newline="") as file:
            found[path.parent.name] = [row[:7] for row in csv.reader(file)]
    return found


def main() -> int:
    """Run the proof; 0 where everything is equal."""
    from ray.cluster_utils import Cluster

    begin = time.monotonic()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    print(f"two nodes after {time.monotonic() - begin:.0f} s", flush=True)
    sweep = lwbench(*RUNS, "launcher=ray", f"launcher.address={cluster.address}")
    try:
        while finished() < AFTER and sweep.poll() is None:
            time.sleep(0.5)
        cluster.remove_node(second, allow_graceful=False)
        print(f"--- a node was removed after {finished()} runs", flush=True)
        code = sweep.wait(LIMIT)
    finally:
        sweep.kill()
        cluster.shutdown()
    took = time.monotonic() - begin
    print(f"--- {finished()} runs in {took:.0f} s, exit code {code}", flush=True)
    local = lwbench(*RUNS, "out=plain", stdout=subprocess.DEVNULL)
    if code or local.wait(LIMIT) or len(metrics("outputs")) != 12:
        return 1
    equal = metrics("outputs") == metrics("plain")
    print("--- equal to local runs" if equal else "--- different from local runs")
    return not equal


if __name__ == "__main__":
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.exit(main())
