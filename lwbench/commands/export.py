"""Write a network for ONNX, torch.export or OpenVINO, and compare it on the test images."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import command_values, typed_values
from ..errors import LwbenchError, UsageError
from ..logs import console
from ..registry import validated
from ..runs.files import explained_writes
from ._export_options import Options
from ._keys import Key, help_of_groups

if TYPE_CHECKING:
    from ._export_subject import Subject

FLAGS: tuple[str, ...] = ()
KEYS: dict[str, Key] = {}
# what a run determines itself
OF_THE_RUN = ("model", "weights", "image_size", "num_classes")


def help() -> str:
    return help_of_groups("export")


def run(arguments: list[str], flags: set[str]) -> int:
    """Export `run=<directory>`, or `model=` with `weights=`; 1 where it is beyond the tolerance."""
    options, subject = _subject(arguments)
    from ..deploy.export import require
    from ._exporting import export

    require(options.format)
    folder = options.out or _folder(options, subject)
    with _replaced(folder) as partial:
        failure = export(subject, options, partial)
    console().print(f"written      {folder}")
    if failure:
        raise LwbenchError(f"{folder}: {failure}")
    return 0


def _subject(arguments: list[str]) -> tuple[Options, "Subject"]:
    from ._export_subject import run_subject, weights_subject

    typed = typed_values(arguments, "export")
    if typed.get("run") is None:
        ((values, choices),) = command_values("export", [arguments])
        options = _options(values)
        return options, weights_subject(options, values, choices)
    changes = {}
    for key, value in typed.items():
        if key in OF_THE_RUN or key.startswith("model."):
            raise UsageError(f"{key!r} belongs to the run")
        if key in ("data.root", "data.cache"):
            changes[key] = value
        elif key == "data" or key.startswith("data."):
            raise UsageError(f"{key!r} belongs to the run; free are data.root and data.cache")
    own = [a for a in arguments if a.partition("=")[0] not in changes]
    ((values, _),) = command_values("export", [own])
    options = _options(values)
    options.batch_size = options.batch or typed.get("batch_size")
    return options, run_subject(options, changes)


def _options(values: dict[str, Any]) -> Options:
    own = {key: value for key, value in values.items() if key not in ("model", "data")}
    return Options(**validated(Options, own, ""))


def _folder(options: Options, subject: "Subject") -> Path:
    if options.run is not None:
        return options.run / "export" / options.folder_name
    return Path("export") / options.folder_name / subject.name


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A new folder whose files take the place of those in `folder` when the block ends well.

    Files of an earlier export stay as they were where this one fails.
    """
    with explained_writes(folder):
        folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
        try:
            yield partial
            for path in sorted(partial.iterdir()):
                os.replace(path, folder / path.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
