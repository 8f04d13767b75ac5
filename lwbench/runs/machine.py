"""Cores of the machine that this process may use: CPU affinity and cgroup quotas."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")  # where /proc and /sys are; tests put files of their own there


def usable_cores() -> int:
    """Number of cores that this process can keep busy, at least 1.

    This is the smaller of the CPU affinity (taskset, cpusets, SLURM) and the cgroup's quota
    (`docker --cpus`, Kubernetes limits, systemd's CPUQuota), a fraction of a core rounded down:
    one thread more than the quota allows has the kernel stop all of them in each period.
    """
    return max(1, int(min(float(len(allowed_cpus())), cpu_quota())))


def allowed_cpus() -> set[int]:
    """The CPUs that the scheduler may run this process on; all of them where that is unknown."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    return affinity(0) if affinity else set(range(os.cpu_count() or 1))


def cpu_quota() -> float:
    """Cores' worth of CPU time that the cgroups of this process grant; infinity without a limit."""
    return min((_quota(folder) for folder in _cgroups()), default=float("inf"))


def governor() -> str | None:
    """The first core's frequency governor (`performance`, `schedutil`), where the system says."""
    return _text(ROOT / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None


def _cgroups() -> Iterator[Path]:
    """The folders of this process's cgroup and of all above it, for versions 1 and 2.

    The limit of each level holds. In a container without a cgroup namespace the path is the
    host's and does not exist below the mount; the mount itself is then the container's cgroup.
    """
    for line in _text(ROOT / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = ROOT / "sys/fs/cgroup" / controllers  # version 2 names no controllers
        relative = PurePosixPath(path.lstrip("/"))
        for folder in (relative, *relative.parents):
            if ".." not in folder.parts:
                yield mount / folder


def _quota(cgroup: Path) -> float:
    """The quota that one cgroup sets, in cores."""
    words = _text(cgroup / "cpu.max").split() or [  # version 2: "<quota or max> <period>"
        word
        for name in ("quota", "period")
        for word in _text(cgroup / f"cpu.cfs_{name}_us").split()
    ]
    try:
        quota, period = (int(word) for word in words)
    except ValueError:  # "max", or no such file
        return float("inf")
    return quota / period if quota > 0 and period > 0 else float("inf")  # -1: no limit, version 1


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
