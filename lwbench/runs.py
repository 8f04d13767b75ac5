"""The run directory: identity, lock and atomic records.

The only contract between training and what follows.

Written by the engine, read by the results; knows neither torch nor Hydra.
"""

import csv
import hashlib
import io
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from .errors import LwbenchError, UsageError

METRICS = (
    "epoch",
    "lr",
    "train_loss",
    "train_top1",
    "test_loss",
    "test_top1",
    "test_top5",
    "images_per_s",
    "seconds",
)
OFFSET_METRICS = ("offset_mean", "offset_max")  # pixels; networks with deformable layers only

# Keys that cannot change the result, or that stand beside the hash (the seed).
_NOT_IDENTITY = {
    "seed", "device", "workers", "jobs", "out", "force", "extend", "checkpoint", "data.root",
    "data.cache", "data.recipe",
}  # fmt: skip
# Keys that always count, whatever their value; any other is left out while it is switched off, so
# that a later version's new key leaves the runs of today valid.
_ALWAYS = {"lr", "epochs", "batch_size", "momentum", "weight_decay", "dropout"}


def identity(config: Mapping[str, Any]) -> str:
    """A short hash of the resolved keys that can change the result."""
    text = json.dumps(identifying(config), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def identifying(config: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved keys that can change the result, dotted; what is switched off is left out."""
    return {
        key: _plain(value)
        for key, value in flat(config)
        if is_identifying(key) and (key.rsplit(".", 1)[-1] in _ALWAYS or not _is_off(value))
    }


def is_identifying(key: str) -> bool:
    """Whether a dotted key can change the result."""
    return not any(key == k or key.startswith(k + ".") for k in _NOT_IDENTITY)


def flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted keys and their values, in the order of the configuration."""
    pairs = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            pairs += flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs


def _is_off(value: Any) -> bool:
    return value in (None, False, 0, "none", "raise") or value == []


def _plain(value: Any) -> Any:
    """1.0 and 1 are one value."""
    is_whole = isinstance(value, float) and value.is_integer()
    return int(value) if is_whole else value


# libyaml's, where it is there: ten times as fast, which a thousand runs notice
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Run:
    """One run directory: `<out>/<data>/<model>/<identity>-s<seed>`, with -2, -3 ...

    Behind it when forced anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @classmethod
    def of(cls, config: Mapping[str, Any], choices: Mapping[str, str]) -> "Run":
        """The newest directory of this configuration and seed, whether or not it exists yet.

        `choices` names the option taken in each group; a data set may name itself (`data.name`).
        """
        data = config["data"].get("name") or choices["data"]
        name = f"{identity(config)}-s{config['seed']}"
        folder = Path(config["out"]) / data / choices["model"]
        number = 1
        while (folder / f"{name}-{number + 1}").exists():
            number += 1
        return cls(folder / (name if number == 1 else f"{name}-{number}"))

    @property
    def identity(self) -> str:
        return self.path.name.split("-")[0]

    @property
    def data_name(self) -> str:
        return self.path.parent.parent.name

    def beside(self) -> "Run":
        """The directory for a run that starts over, beside this one."""
        if not self.path.exists():
            return self
        name, seed, number = (*self.path.name.split("-"), "1")[:3]
        return Run(self.path.parent / f"{name}-{seed}-{int(number) + 1}")

    @contextmanager
    def locked(self):
        """Hold the directory for writing.

        Raises UsageError naming the holder where another process does.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=1)  # `is_locked` holds it for an instant
            lock.acquire()
        except Timeout:
            holder = self.read_env().get("process", "another process")
            raise UsageError(f"{self.path} is being written by {holder}; wait for it") from None
        except OSError as error:
            raise UsageError(
                f"cannot write to {self.path}: {error.strerror or error}; choose another folder "
                "with out=<folder>"
            ) from None
        try:
            for part in self.path.rglob(".*.part"):  # of a writer that was killed
                part.unlink(missing_ok=True)
            yield self
        finally:
            lock.release()

    def is_locked(self) -> bool:
        """Whether a process holds the directory now."""
        if not (self.path / ".lock").exists():
            return False
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return True
        except OSError:  # a folder that nobody here may write
            return False
        lock.release()
        return False

    # records

    def write_config(self, config: dict[str, Any]) -> None:
        write_atomically(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False))

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration. Raises UsageError where this is no run directory."""
        try:
            config = yaml.load((self.path / "config.yaml").read_text("utf-8"), _LOADER)
        except OSError:
            raise UsageError(f"{self.path} is not a run directory: it has no config.yaml") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"{self.path / 'config.yaml'} is damaged: {reason}") from None
        if not isinstance(config, dict):
            raise UsageError(f"{self.path / 'config.yaml'} is damaged: it holds no mapping")
        return config

    def write_env(self, **facts: Any) -> None:
        """Record where and from what this run comes; `facts` adds what only the caller knows."""
        write_json(self.path / "env.json", environment() | facts)

    def read_env(self) -> dict[str, Any]:
        return read_json(self.path / "env.json") or {}

    def write_result(self, result: dict[str, Any]) -> None:
        """Written last: its presence means that the run is finished."""
        write_json(self.path / "result.json", result)

    def read_result(self) -> dict[str, Any] | None:
        """The result of a finished run, or None."""
        return read_json(self.path / "result.json")

    def metrics(self) -> list[dict[str, str]]:
        """The rows of metrics.csv, as text, an epoch each."""
        try:
            with open(self.path / "metrics.csv", newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        except FileNotFoundError:
            return []

    def write_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Replace metrics.csv by `rows`, an epoch each; the first row decides the columns."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path / "metrics.csv", text.getvalue())


def write_atomically(path: Path, content: str | bytes, previous: Path | None = None) -> None:
    """Replace `path` in one step, so that a reader or a crash never sees half a file.

    What stood there moves to `previous`, if given. Raises OSError, with `path` as it was.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    data = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if previous and path.exists():
            os.replace(path, previous)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def explained_writes(where: Path):
    """Within it, a write that fails is a LwbenchError that says what to do."""
    try:
        yield
    except OSError as error:
        raise LwbenchError(
            f"cannot write to {where}: {error.strerror or error}\n"
            "nothing written before is lost: make room, and the same command goes on"
        ) from None


def write_json(path: Path, content: Any) -> None:
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The mapping in `path`, or None where the file is missing or damaged."""
    try:
        content = json.loads(path.read_text("utf-8", "surrogateescape"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


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
    root = Path(__file__).resolve().parent.parent

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
