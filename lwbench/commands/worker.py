"""Make the runs of a study file that are missing, beside other workers."""

import os
import random
import re
import sys
import time
from pathlib import Path

from ..errors import UsageError
from ..logs import console
from ..paths import config_dir, config_dir_arguments
from ..sweeps import study_file
from ..sweeps.local import number_of_jobs, run_all, sweep
from ..sweeps.plan import PlannedRun
from ._config_dir import using_config_dir, without_config_dir
from ._keys import Key, help_of_keys, parsed, shared
from ._launching import planned_runs

FLAGS: tuple[str, ...] = ()
KEYS = {
    "study": Key("a file with a command lwbench train ... per line, and nothing else"),
    "lines": Key("of these lines only: 3, or 3-5; comments and empty lines are not counted"),
    **shared("jobs"),
}


def help() -> str:
    return help_of_keys(
        "lwbench worker study=<file> [key=value ...]",
        "Any number of workers on any machines that share the folder of runs may have one study:\n"
        "finished runs are skipped, interrupted ones are resumed, and those that another worker\n"
        "makes are waited for, so that a worker that died is replaced. The lines are printed by\n"
        "lwbench reproduce ... dry_run=true. Nothing in the file is given to a shell.",
        KEYS,
    )


def run(arguments: list[str], flags: set[str]) -> int:
    """Make the runs; 1 where one failed. Raises UsageError for a file with other lines."""
    keys = parsed(arguments, KEYS)
    if "study" not in keys:
        raise UsageError("worker needs study=<file>")
    at_once = number_of_jobs(keys.get("jobs", "1"))
    commands = study_file.commands(Path(keys["study"]))
    chosen = _chosen(keys["lines"], commands) if "lines" in keys else commands
    divided = [without_config_dir(words) for words in chosen]
    folders = {folder for _, folder in divided}
    if len(folders) > 1:
        raise UsageError("the lines of a study have one --config-dir, or none has one")
    if wrong := [word for words, _ in divided for word in words if word.startswith("-")]:
        raise UsageError(f"{wrong[0]} cannot stand in a study: a line is one run")
    with using_config_dir(folders.pop() or config_dir()):
        jobs = planned_runs([tuple(words) for words, _ in divided])
        if "lines" in keys and len(jobs) == 1:
            return _become(jobs[0])
        if "lines" not in keys:
            # workers that start together would otherwise all try the first run first
            random.SystemRandom().shuffle(jobs)
        return sweep(jobs, lambda jobs: run_all(jobs, at_once))


def _chosen(text: str, commands: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= first <= last or first > len(commands):
        raise UsageError(f"lines={text}: expected lines of 1 to {len(commands)}, such as 3 or 3-5")
    return commands[first - 1 : last]  # the last job of an array may have fewer


def _become(job: PlannedRun) -> int:
    """Replace this process by `lwbench train`, which is what a scheduler's signals shall reach."""
    if job.run.is_locked():
        # a scheduler may start a job again while the former process is still alive
        console().print(f"waiting for another process: {job.run.path}")
    while job.run.is_locked() and not job.is_finished:
        time.sleep(1)
    sys.stdout.flush()
    words = [sys.executable, "-m", "lwbench", "train", *config_dir_arguments(), *job.overrides]
    os.execve(sys.executable, words, {**os.environ, **job.config.as_environment})
