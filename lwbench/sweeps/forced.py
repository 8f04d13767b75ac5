"""Sweeps with force=true: an interrupted one continues, a finished one is made again.

A forced run is made in a directory of its own beside a finished one. Which directories a sweep
makes is written to `<out>/.forced-<key>.json` before its first run starts, and removed when all of
them are finished. While the file is there, the same sweep continues in these directories.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..logs import console
from ..runs.directory import Run
from ..runs.files import explained_writes, read_json, write_json
from ..runs.provenance import utc_now
from .plan import PlannedRun


def assigned(jobs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The jobs, those with force=true with the directory that each is made in.

    Says so where they continue an earlier sweep. Writes nothing.
    """
    path = _record(jobs)
    if path is None:
        return list(jobs)
    content = read_json(path) or {}
    earlier = content.get("directories")
    known = earlier if isinstance(earlier, dict) else {}
    made = [_assigned(job, known) for job in jobs]
    if known:
        done = sum(job.is_finished for job in made)
        console().print(
            f"continuing the forced sweep that was started at {content.get('started')}: {done} of "
            f"{len(made)} runs are finished"
        )
    return made


def begin(jobs: Sequence[PlannedRun]) -> None:
    """Record the directories of a forced sweep. Raises LwbenchError where that fails."""
    path = _record(jobs)
    if path is None or path.exists():
        return
    directories = {_key(job): job.directory.name for job in jobs if job.directory}
    with explained_writes(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"started": utc_now(), "directories": directories})


def end(jobs: Sequence[PlannedRun]) -> None:
    """Remove the record: the same sweep then makes all runs again."""
    if (path := _record(jobs)) is not None:
        path.unlink(missing_ok=True)


def _record(jobs: Sequence[PlannedRun]) -> Path | None:
    """The file of this sweep's record; None where no job is forced."""
    keys = sorted({_key(job) for job in jobs if job.config.force})
    if not keys:
        return None
    digest = hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:8]
    return Path(jobs[0].config.out) / f".forced-{digest}.json"


def _key(job: PlannedRun) -> str:
    """The run's first directory: configuration, seed and place."""
    return str(Run.first(job.config).path)


def _assigned(job: PlannedRun, known: dict[str, object]) -> PlannedRun:
    if not job.config.force:
        return job
    first = Run.first(job.config).path
    name = known.get(str(first))
    # a name from a file: nothing but a repetition of this very run is taken
    if isinstance(name, str) and name.startswith(first.name) and Path(name).name == name:
        return replace(job, directory=first.parent / name)
    return replace(job, directory=Run.for_training(job.config).path)
