"""Study files: a `lwbench train` command per line, read as data.

They are what `lwbench reproduce dry_run=true` prints. A line may be for a shell as well, but it is
never given to one: it is divided into words, and the words after `lwbench train` are overrides.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError, shown
from .plan import PlannedRun


def written(jobs: Sequence[PlannedRun]) -> str:
    """The text of a study file, a line per run."""
    return "".join(f"{job.command}\n" for job in jobs)


def commands(path: Path) -> list[tuple[str, ...]]:
    """The words after `lwbench train` of every line that is not empty or a comment.

    Raises UsageError with the file and the line that is no such command.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"cannot read study={shown(path)}: {reason}") from None
    found = []
    for number, line in enumerate(lines, 1):
        where = f"{shown(path)}, line {number}"
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UsageError(f"{where}: {str(error).lower()}") from None
        if not words:
            continue
        if words[:2] != ["lwbench", "train"]:
            raise UsageError(
                f"{where}: expected lwbench train key=value ..., as "
                "lwbench reproduce dry_run=true prints it"
            )
        found.append(tuple(words[2:]))
    if not found:
        raise UsageError(f"{shown(path)} has no line with lwbench train")
    return found
