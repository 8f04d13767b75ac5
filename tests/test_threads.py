"""Usable cores, and how threads wait: with the files of /proc and /sys/fs/cgroup faked."""

import os

import pytest

from lwbench.config import train_config
from lwbench.engine import threads
from lwbench.runs import machine
from lwbench.sweeps import local

SPIN, SLEEP = str(threads.SPINS), "0"


@pytest.fixture
def host(monkeypatch, tmp_path):
    """A machine made of files. Call it with its CPUs, what others use of each, and its cgroups."""

    def describe(cpus, busy=(), allowed=None, cgroup="0::/\n", files=None, started=12_345):
        monkeypatch.setattr(machine, "ROOT", tmp_path)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed or set(range(cpus)), False)
        for path, text in ({"proc/self/cgroup": cgroup} | (files or {})).items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        shares = [*busy, *[0.0] * (cpus - len(busy))]
        write_stat(tmp_path / "proc/stat", [started] * cpus)

        def sleep(seconds):
            """The counters go on by what the other processes use meanwhile."""
            ticks = [
                round(started + share * seconds * os.sysconf("SC_CLK_TCK")) for share in shares
            ]
            write_stat(tmp_path / "proc/stat", ticks)

        monkeypatch.setattr(threads.time, "sleep", sleep)

    # set first, so that what `configure` puts there is undone afterwards
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return describe


def write_stat(path, ticks):
    """/proc/stat: user, nice, system, idle, iowait, irq, softirq, steal of all CPUs and of each."""
    each = [f"cpu{index} {n // 2} 0 {n - n // 2} 99 5 1 1 7" for index, n in enumerate(ticks)]
    path.write_text("\n".join([f"cpu  {sum(ticks)} 0 0 99 5 1 1 7", *each, "intr 1 2", "ctxt 3\n"]))


def decided():
    threads.configure()
    return os.environ.get("GOMP_SPINCOUNT")


# --- cores that this process may use -------------------------------------------------------------

V1 = "5:memory:/job\n4:cpu,cpuacct:/job/step\n1:name=systemd:/job\n0::/ignored\n"
V1_STEP = "sys/fs/cgroup/cpu,cpuacct/job/step"


def v1(quota, folder=V1_STEP):
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(("described", "cores"), [
    (dict(cpus=8), 8),
    (dict(cpus=8, allowed={2, 5, 7}), 3),
    (dict(cpus=8, files={"sys/fs/cgroup/cpu.max": "200000 100000\n"}), 2),
    (dict(cpus=8, files={"sys/fs/cgroup/cpu.max": "max 100000\n"}), 8),
    (dict(cpus=8, files={"sys/fs/cgroup/cpu.max": "350000 100000\n"}), 3),
    (dict(cpus=8, files={"sys/fs/cgroup/cpu.max": "5000 100000\n"}), 1),
    (dict(cpus=2, files={"sys/fs/cgroup/cpu.max": "600000 100000\n"}), 2),
    (dict(cpus=8, cgroup="0::/a/b\n", files={"sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
                                             "sys/fs/cgroup/a/cpu.max": "400000 100000\n"}), 4),
    (dict(cpus=8, cgroup=V1, files=v1(300_000)), 3),
    (dict(cpus=8, cgroup=V1, files=v1(-1)), 8),
    (dict(cpus=8, cgroup=V1, files=v1(-1) | v1(200_000, "sys/fs/cgroup/cpu,cpuacct/job")), 2),
    (dict(cpus=8, cgroup=V1, files=v1(200_000, "sys/fs/cgroup/cpu,cpuacct")), 2),
    (dict(cpus=8, cgroup="0::/../..\n", files={"sys/fs/cgroup/cpu.max": "200000 100000\n"}), 2),
    (dict(cpus=8, files={"sys/fs/cgroup/cpu.max": "nonsense"}), 8),
], ids=["all", "affinity", "v2 quota", "v2 no limit", "part of a core", "less than one core",
        "quota above the cores", "v2 quota of a parent", "v1 quota", "v1 no limit",
        "v1 quota of a parent", "v1 container sees the host's path", "outside the namespace",
        "unreadable"])  # fmt: skip
def test_usable_cores_are_the_smaller_of_affinity_and_quota(host, described, cores):
    host(**described)
    assert machine.usable_cores() == cores


def test_a_system_without_affinity_and_cgroups_has_all_its_cores(host, monkeypatch, tmp_path):
    host(cpus=4)
    (tmp_path / "proc/self/cgroup").unlink()
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert machine.usable_cores() == 6


def test_runs_of_a_sweep_divide_the_cores_that_a_container_grants(host):
    host(cpus=64, files={"sys/fs/cgroup/cpu.max": "800000 100000\n"})
    assert [slot["OMP_NUM_THREADS"] for slot in local._slots(2)] == ["4", "4"]


def test_processes_that_torchrun_starts_on_one_machine_divide_its_cores(host, monkeypatch):
    config = train_config([])
    assert config.num_workers == machine.usable_cores()
    host(cpus=8)
    numbers = {"RANK": 5, "WORLD_SIZE": 8, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 4, "GROUP_RANK": 1}
    for name, number in numbers.items():
        monkeypatch.setenv(name, str(number))
    assert (machine.usable_cores(), config.num_workers) == (8, 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert decided() == SLEEP  # 16 threads for 8 cores
    assert train_config(["workers=3"]).num_workers == 3


# --- spinning or sleeping ------------------------------------------------------------------------


@pytest.mark.parametrize(("described", "variables", "expected"), [
    (dict(cpus=2), {}, SPIN),
    (dict(cpus=2, busy=[0.1]), {}, SPIN),
    (dict(cpus=2, busy=[0.5]), {}, SLEEP),
    (dict(cpus=2, busy=[1.0, 1.0]), {}, SLEEP),
    (dict(cpus=64, busy=[1.0] * 3), {}, SPIN),
    (dict(cpus=64, busy=[1.0] * 32), {"OMP_NUM_THREADS": "8"}, SPIN),
    (dict(cpus=64, busy=[1.0] * 32), {"OMP_NUM_THREADS": "8,2"}, SPIN),
    (dict(cpus=64, busy=[1.0] * 60), {"OMP_NUM_THREADS": "8"}, SLEEP),
    (dict(cpus=64, busy=[1.0] * 32), {}, SLEEP),
    (dict(cpus=64, busy=[1.0] * 56, allowed=set(range(56, 64))), {}, SPIN),
    (dict(cpus=64, busy=[1.0] * 8, allowed=set(range(8))), {}, SLEEP),
    (dict(cpus=64, files={"sys/fs/cgroup/cpu.max": "200000 100000\n"}), {}, SLEEP),
    (dict(cpus=64, files={"sys/fs/cgroup/cpu.max": "200000 100000\n"}, busy=[1.0] * 9),
     {"OMP_NUM_THREADS": "2"}, SPIN),
    (dict(cpus=2), {"OMP_NUM_THREADS": "nonsense"}, SPIN),
], ids=["idle", "a tenth of a core", "half a core of two", "both cores busy", "3 of 64 busy",
        "half the host busy, 8 threads", "nested threads", "4 of 64 idle, 8 threads",
        "half the host busy, a thread for each core", "busy outside the affinity",
        "busy inside the affinity", "more threads than the quota", "threads fit the quota",
        "unreadable number of threads"])  # fmt: skip
def test_threads_spin_where_each_has_a_core_and_sleep_elsewhere(
    host, monkeypatch, described, variables, expected
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    host(**described)
    assert decided() == expected


def test_a_single_thread_is_not_kept_waiting_for_the_measurement(host, monkeypatch):
    host(cpus=2, busy=[1.0, 1.0])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(threads.time, "sleep", lambda _: pytest.fail("measured"))
    assert decided() == SPIN


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_the_users_environment_takes_precedence(host, monkeypatch, name):
    host(cpus=2, busy=[1.0, 1.0])
    monkeypatch.setenv(name, "active")
    threads.configure()
    assert os.environ.get("GOMP_SPINCOUNT") == ("active" if name == "GOMP_SPINCOUNT" else None)


def test_a_system_without_counters_counts_as_idle(host, tmp_path):
    host(cpus=2, busy=[1.0, 1.0])
    (tmp_path / "proc/stat").unlink()
    assert decided() == SPIN


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="/proc/stat is Linux's")
def test_the_counters_of_this_system_are_read():
    assert threads._busy_ticks(machine.allowed_cpus()) > 0
    assert threads._busy_ticks({10_000}) is None
