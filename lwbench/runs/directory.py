"""The run directory: identity, lock and atomic records.

The only contract between training and what follows.

Written by the engine, read by the results; knows neither torch nor Hydra.
"""

import csv
import io
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from ..errors import UsageError
from .files import read_json, write_atomically, write_json
from .provenance import environment
from .runconfig import RunConfig

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
    def of(cls, config: RunConfig) -> "Run":
        """The newest directory of this configuration and seed, whether or not it exists yet."""
        name = f"{config.identity}-s{config.seed}"
        folder = Path(config.out) / config.data_name / config.model_name
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

    def write_config(self, config: RunConfig) -> None:
        text = yaml.safe_dump(config.values, sort_keys=False)
        write_atomically(self.path / "config.yaml", text)

    def read_config(self) -> RunConfig:
        """The configuration. Raises UsageError if the directory has none or it is damaged."""
        try:
            config = yaml.load((self.path / "config.yaml").read_text("utf-8"), _LOADER)
        except OSError:
            raise UsageError(f"{self.path} is not a run directory: it has no config.yaml") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"{self.path / 'config.yaml'} is damaged: {reason}") from None
        if not isinstance(config, dict):
            raise UsageError(f"{self.path / 'config.yaml'} is damaged: it holds no mapping")
        return RunConfig.stored(config, str(self.path / "config.yaml"))

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
