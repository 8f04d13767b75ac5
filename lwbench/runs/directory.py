"""The run directory: its name, its lock, and the records in it.

It is all that training has in common with tables, reports and sweeps, which import no torch.
"""

import csv
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import Timeout
from pydantic import ValidationError

from ..errors import UsageError
from . import lease
from .files import read_json, write_atomically, write_json
from .provenance import this_start, utc_now
from .runconfig import RunConfig
from .schema import Environment, Images, Result, Row, Search

log = logging.getLogger("lwbench")

# libyaml's parser, if PyYAML was built with it, is ten times as fast: tables read many runs
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Run:
    """A run directory: `<out>/<data>/<model>/<identity>-s<seed>`.

    Repetitions with force=true are beside it, with -2, -3 ... behind the name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoints(self) -> Path:
        """The folder of last.pt, previous.pt and best.pt."""
        return self.path / "checkpoints"

    @classmethod
    def first(cls, config: RunConfig) -> "Run":
        """Return the directory of this configuration and seed, without regard to repetitions."""
        name = f"{config.identity}-s{config.seed}"
        return cls(Path(config.out) / config.data_name / config.model_name / name)

    @classmethod
    def of(cls, config: RunConfig) -> "Run":
        """Return the newest directory of this configuration and seed; it need not exist."""
        run = cls.first(config)
        while (following := run.following()).path.exists():
            run = following
        return run

    @classmethod
    def for_training(cls, config: RunConfig) -> "Run":
        """Return the directory that a training of `config` writes to.

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
        """Whether a command with force=true continues this run instead of repeating it."""
        if self.has_result:
            return False
        # only force=true makes repetitions; and where nothing was saved, there is nothing to keep
        if self.number > 1 or not any(self.checkpoints.glob("*.pt")):
            return True
        try:
            return self.read_config().force
        except UsageError:
            return False

    @property
    def identity(self) -> str:
        """The hash of the configuration, from the directory's name."""
        return self.path.name.split("-")[0]

    @property
    def number(self) -> int:
        """1, or the number of a repetition."""
        last = self.path.name.split("-")[-1]
        return int(last) if last.isdecimal() else 1

    @property
    def data_name(self) -> str:
        """The name of the data set, from the directory's place."""
        return self.path.parent.parent.name

    @contextmanager
    def locked(self) -> Iterator["Run"]:
        """Hold the directory for writing; remove what killed writers left half-written.

        Both the kernel's lock and the lease are held: the first is free as soon as its process is
        dead, the second one holds between machines. Raises UsageError, with the holder's name,
        where another process holds one.
        """
        with ExitStack() as stack:
            try:
                self.checkpoints.mkdir(parents=True, exist_ok=True)
                # `is_locked` of another process holds the lock for an instant: wait for that long
                stack.enter_context(lease.kernel_locked(self.path, timeout=1))
                stack.enter_context(lease.leased(self.path))
            except Timeout:
                starts = self.environment().starts
                holder = (starts and starts[-1].process) or "another process"
                raise UsageError(f"{self.path} is being written by {holder}; wait for it") from None
            except OSError as error:
                raise UsageError(
                    f"cannot write to {self.path}: {error.strerror or error}; choose another "
                    "folder with out=<folder>"
                ) from None
            for part in self.path.rglob(".*.part"):  # of a writer that was killed
                part.unlink(missing_ok=True)
            yield self

    def is_locked(self) -> bool:
        """Return whether a process holds the directory now, as far as can be seen at once."""
        if not any((self.path / name).exists() for name in (lease.KERNEL_NAME, lease.NAME)):
            return False
        try:
            with lease.kernel_locked(self.path, timeout=0):
                return lease.is_held(self.path)
        except Timeout:
            return True
        except OSError:  # this user may not write here, so no process of theirs does
            return False

    # records

    def write_config(self, config: RunConfig) -> None:
        """Replace config.yaml."""
        text = yaml.safe_dump(config.values, sort_keys=False)
        write_atomically(self.path / "config.yaml", text)

    def read_config(self) -> RunConfig:
        """Return the configuration. Raises UsageError where there is none or it is damaged."""
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
        """Add a start by this process to env.json, and what is known of its images (`data`).

        Earlier starts are dropped where no checkpoint is left: nothing of them is continued.
        """
        before = self.environment()
        starts = before.starts if any(self.checkpoints.glob("*.pt")) else ()
        self._write_environment(
            Environment(
                starts=(*starts, this_start(device, threads, convolutions)),
                data=Images.model_validate(data or {}),
                search=before.search,
            )
        )

    def record_progress(self, *, epochs: int, steps: int, cuda_graph: bool | None = None) -> None:
        """Record how much the last start has trained and saved; do nothing without a start."""
        environment = self.environment()
        if not environment.starts:
            return
        *before, last = environment.starts
        last = last.model_copy(update={"epochs": epochs, "steps": steps, "cuda_graph": cuda_graph})
        self._write_environment(environment.model_copy(update={"starts": (*before, last)}))

    def record_search(self, search: Search) -> None:
        """Record that the run is a trial of a search, which tables say of it."""
        self._write_environment(self.environment().model_copy(update={"search": search}))

    def environment(self) -> Environment:
        """Return the starts and the images of the run.

        What is missing or invalid counts as unknown; invalid fields are named in one warning.
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
        """Write result.json, with the time; it comes last, and marks the run as finished."""
        write_json(self.path / "result.json", result | {"finished": utc_now()})

    @property
    def has_result(self) -> bool:
        """Whether there is a result.json, readable or not."""
        return (self.path / "result.json").exists()

    def read_result(self) -> Result | None:
        """Return the result of a finished run, or None; a damaged one is None, with a warning."""
        if not self.has_result:
            return None
        path = self.path / "result.json"
        try:
            return Result.model_validate(read_json(path) or {})
        except ValidationError:
            log.warning("%s is damaged and left out", path)
            return None

    def metrics(self) -> list[dict[str, str]]:
        """Return the rows of metrics.csv, one per epoch, as text.

        Empty where there is none, and with a warning where it is damaged.
        """
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
        """Replace metrics.csv by `rows`, one per epoch; what a row does not have stays empty."""
        text = io.StringIO(newline="")
        columns = [key for key in Row.__annotations__ if any(key in row for row in rows)]
        writer = csv.DictWriter(text, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.path / "metrics.csv", text.getvalue())
