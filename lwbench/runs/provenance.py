"""Where a run comes from: versions, machine, revision and command of this process."""

import os
import platform
import shlex
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Versions, machine, revision and command of this process."""
    names = ("lwbench", "torch", "torchvision", "numpy", "hydra-core", "thop")
    return {
        "command": _command(),
        "process": f"process {os.getpid()} on {platform.node()}",
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in names},
        "system": platform.platform(),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        **revision(),
    }


def _command() -> str:
    program = Path(sys.argv[0]).name
    words = ["python", "-m", "lwbench"] if program == "__main__.py" else [program]
    return shlex.join([*words, *sys.argv[1:]])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cpu_model() -> str:
    """The processor's name, as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def revision() -> dict[str, Any]:
    """Git revision and dirty flag of the checkout that lwbench runs from.

    None for an installed wheel.
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
        return {"git_revision": None, "git_dirty": None}
    status = git("status", "--porcelain", "--untracked-files=no")
    return {
        "git_revision": git("rev-parse", "HEAD"),
        "git_dirty": None if status is None else bool(status),
    }
