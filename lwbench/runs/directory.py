"""The run directory: its name, its lock, and the records in it.

The only contract between training and everything after it. Knows neither torch nor Hydra.
"""

import csv
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from pydantic import ValidationError

from ..errors import UsageError
from .files import read_json, write_atomically, write_json
from .provenance import this_start, utc_now
from .runconfig import RunConfig
from .schema import Environment, Images, Result, Row

log = logging.getLogger("lwbench")

# libyaml's, where it is there: ten times as fast, which a thousand runs notice
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Run:
    """A run directory: `<out>/<data>/<model>/<identity>-s<seed>`, followed by -2, -3 ... where the
    run was repeated with force=true.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @classmethod
    def first(cls, config: RunConfig) -> "Run":
        """The directory of this configuration and seed, repetitions aside."""
        name = f"{config.identity}-s{config.seed}"
        return cls(Path(config.out) / config.data_name / config.model_name / name)

    @classmethod
    def of(cls, config: RunConfig) -> "Run":
        """The newest directory of this configuration and seed, whether or not it exists yet."""
        run = cls.first(config)
        while (following := run.following()).path.exists():
            run = following
        return run

    @classmethod
    def for_training(cls, config: RunConfig) -> "Run":
        """The directory that a training of `config` writes to.

        This is the newest one. With force=true it is the next one after a finished run, and after
        an unfinished one that was started without force=true; a forced run that was interrupted is
        continued.
        """
        newest = cls.of(config)
        if config.force and newest.path.exists() and not newest._continues_forced():
            return newest.following()
        return newest

    def following(self) -> "Run":
        """The directory of the next repetition, whether or not it exists yet."""
        name, seed = self.path.name.split("-")[:2]
        return Run(self.path.with_name(f"{name}-{seed}-{self.number + 1}"))

    def _continues_forced(self) -> bool:
        """Whether the same command with force=true continues this run, rather than repeat it."""
        if self.has_result:
            return False
        if self.number > 1 or not any(self.checkpoints.glob("*.pt")):
            return True
        try:
            return self.read_config().force
        except UsageError:
            return False

    @property
    def identity(self) -> str:
        return self.path.name.split("-")[0]

    @property
    def number(self) -> int:
        """1, or what stands behind the name of a repetition."""
        last = self.path.name.split("-")[-1]
        return int(last) if last.isdecimal() else 1

    @property
    def data_name(self) -> str:
        return self.path.parent.parent.name

    @contextmanager
    def locked(self) -> Iterator["Run"]:
        """Hold the directory for writing; remove what killed writers left half-written.

        Raises UsageError, with the holder's name, where another process holds it.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=1)  # `is_locked` holds it for an instant
            lock.acquire()
        except Timeout:
            starts = self.environment().starts
            holder = (starts and starts[-1].process) or "another process"
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
        try:
            stored = RunConfig.stored(config, str(self.path / "config.yaml"))
            _ = stored.identity  # YAML has values, such as dates, that cannot be hashed as JSON
        except (TypeError, ValueError, RecursionError):
            raise UsageError(
                f"{self.path / 'config.yaml'} is damaged: it holds values that no configuration has"
            ) from None
        return stored

    def record_start(
        self,
        *,
        device: str | None = None,
        threads: int | None = None,
        convolutions: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a start by this process to env.json, and what it knows of its images (`data`).

        Earlier starts are dropped where no checkpoint is left of them: they contribute nothing.
        """
        before = self.environment().starts if any(self.checkpoints.glob("*.pt")) else ()
        self._write_environment(
            Environment(
                starts=(*before, this_start(device, threads, convolutions)),
                data=Images.model_validate(data or {}),
            )
        )

    def record_progress(self, *, epochs: int, steps: int) -> None:
        """Record how much the last start has trained and saved; without a start do nothing."""
        environment = self.environment()
        if not environment.starts:
            return
        *before, last = environment.starts
        last = last.model_copy(update={"epochs": epochs, "steps": steps})
        self._write_environment(environment.model_copy(update={"starts": (*before, last)}))

    def environment(self) -> Environment:
        """The starts and the images of the run; what is missing or invalid counts as unknown.

        Invalid fields are named in one warning.
        """
        path = self.path / "env.json"
        content = read_json(path)
        if content is None:
            if path.exists():
                log.warning("%s is damaged: it counts as unknown", path)
            return Environment()
        invalid: list[str] = []
        found = Environment.model_validate(content, context=invalid)
        if invalid:
            names = ", ".join(dict.fromkeys(invalid))
            log.warning("%s: invalid values count as unknown: %s", path, names)
        return found

    def _write_environment(self, environment: Environment) -> None:
        write_json(self.path / "env.json", environment.model_dump())

    def write_result(self, result: dict[str, Any]) -> None:
        """Record the result and the time. Written last: its presence means a finished run."""
        write_json(self.path / "result.json", result | {"finished": utc_now()})

    @property
    def has_result(self) -> bool:
        """Whether there is a result, readable or not."""
        return (self.path / "result.json").exists()

    def read_result(self) -> Result | None:
        """The result of a finished run, or None; a damaged one is none, and costs a warning."""
        if not self.has_result:
            return None
        path = self.path / "result.json"
        try:
            return Result.model_validate(read_json(path) or {})
        except ValidationError:
            log.warning("%s is damaged and left out", path)
            return None

    def metrics(self) -> list[dict[str, str]]:
        """The rows of metrics.csv, as text, an epoch each; empty, with a warning, if damaged."""
        path = self.path / "metrics.csv"
        try:
            with open(path, newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, csv.Error):  # ValueError: not UTF-8
            log.warning("%s is damaged and left out", path)
            return []

    def write_metrics(self, rows: Sequence[Row]) -> None:
        """Replace metrics.csv by `rows`, one per epoch; the first row determines the columns."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path / "metrics.csv", text.getvalue())
