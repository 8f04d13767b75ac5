"""Where a run comes from: code revision, versions, machine and command of a process."""

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

from ..paths import config_dir
from .processes import this_place
from .schema import Start

LIBRARIES = ("lwbench", "torch", "torchvision", "numpy", "hydra-core", "thop")


def this_start(
    device: str | None = None, threads: int | None = None, convolutions: str | None = None
) -> Start:
    """Describe a start of a run by this process.

    `device`: its name; `threads`: those of torch; `convolutions`: see `schema.Start`.
    """
    revision, is_dirty = git_state()
    return Start(
        command=_command(),
        config_dir=str(folder) if (folder := config_dir()) else None,
        process=f"process {os.getpid()} on {platform.node()}",
        started=utc_now(),
        python=platform.python_version(),
        versions={name: installed_version(name) for name in (*LIBRARIES, *_network_packages())},
        system=platform.platform(),
        cpu=cpu_model(),
        cores=os.cpu_count(),
        git_revision=revision,
        git_dirty=is_dirty,
        device=device,
        threads=threads,
        convolutions=convolutions,
        processes=this_place().size,
        epochs=0,
        steps=0,
    )


def changes_since_last_start(starts: Sequence[Start]) -> list[str]:
    """Name what must be equal for a bit-exact resume and differs between the last two starts.

    Compared are the code, versions, the device and how convolutions are computed, as far as they
    are recorded of the earlier start. Starts that trained nothing are passed over.
    """
    if not starts:
        return []
    *earlier, now = starts
    trained = [start for start in earlier if start.has_trained]
    return _differences(trained[-1], now) if trained else []


def _differences(before: Start, now: Start) -> list[str]:
    then, current = _comparable(before), _comparable(now)
    return [
        f"{name} {then[name]} (now {current.get(name)})"
        for name in then
        if then[name] is not None and then[name] != current.get(name)
    ]


def _comparable(start: Start) -> dict[str, str | None]:
    facts = {"revision": revision_text(start)}
    # a library that was not installed then is compared with nothing
    facts |= dict(start.versions)
    processes = str(start.processes) if start.processes else None
    return facts | {
        "device": start.device,
        "convolutions": start.convolutions,
        "processes": processes,
    }


def revision_text(start: Start) -> str | None:
    """Return the short git revision, with `+` where files were changed; None where unknown."""
    if not start.git_revision:
        return None
    return f"{start.git_revision[:10]}{'+' if start.git_dirty else ''}"


def utc_now() -> str:
    """Return the time as ISO 8601 text in UTC, to the second, which sorts by time."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def installed_version(library: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def cpu_model() -> str:
    """Return the processor's name, as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def git_state() -> tuple[str | None, bool | None]:
    """Return the revision of the checkout that lwbench runs from, and whether it was changed.

    (None, None) for an installed wheel.
    """
    root = Path(__file__).resolve().parent.parent.parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if not (root / ".git").exists():
        return None, None
    status = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD"), None if status is None else bool(status)


def _network_packages() -> list[str]:
    """The installed packages that offer networks: see `registry.MODELS`."""
    return sorted({p.dist.name for p in entry_points(group="lwbench.models") if p.dist})


def _command() -> str:
    program = Path(sys.argv[0]).name
    words = ["python", "-m", "lwbench"] if program == "__main__.py" else [program]
    return shlex.join([*words, *sys.argv[1:]])
