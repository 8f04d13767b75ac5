"""Put a table, its claims and the records of its runs into one file for a reviewer."""

import json
from pathlib import Path

from ..errors import LwbenchError, UsageError, plural
from ._keys import NO_YES, Key, help_of_keys, own_and_training, shared

FLAGS: tuple[str, ...] = ()
KEYS = {
    "table": Key("a name or the path of a YAML file"),
    "claims": Key("the path of a YAML file with claims about the table"),
    "file": Key("the archive that is written, such as claim.zip"),
    "weights": Key("include the last and the best weights of every run", NO_YES),
    **shared("out", "archived"),
}


def help() -> str:
    return help_of_keys(
        "lwbench bundle table=<name> file=<archive> [key=value ...]",
        "Any other key is an override of every run, such as epochs=10 image_size=32: that reduced\n"
        "study. lwbench verify checks a bundle.",
        KEYS,
    )


def run(arguments: list[str], flags: set[str]) -> int:
    """Write the bundle. Raises UsageError where the table has no runs."""
    from .. import __version__
    from ..runs import bundle
    from ..runs.provenance import this_start, utc_now
    from ._bundles import bundled_files

    keys, overrides = own_and_training(arguments, KEYS)
    if missing := [key for key in ("table", "file") if key not in keys]:
        raise UsageError(f"bundle needs {missing[0]}=, such as table=mine.yaml file=claim.zip")
    if not keys["file"].endswith(".zip"):
        raise UsageError(f"file={keys['file']}: expected a name that ends in .zip")
    if Path(keys["table"]).is_dir() or keys["table"] == "all":
        raise UsageError(f"table={keys['table']}: a bundle is of one table")
    files, shown, runs = bundled_files(keys, overrides)
    files["cells.json"] = (json.dumps(shown, ensure_ascii=False, indent=1) + "\n").encode()
    is_file = Path(keys["table"]).suffix in (".yaml", ".yml")
    facts = {
        "made": utc_now(),
        "lwbench": __version__,
        "revision": this_start().git_revision,
        "table": Path(keys["table"]).name if is_file else keys["table"],
        "claims": Path(keys["claims"]).name if "claims" in keys else None,
        "overrides": overrides,
        "cells": "cells.json",
    }
    path = Path(keys["file"])
    try:
        bundle.write(path, files, facts)
    except OSError as error:
        raise LwbenchError(f"cannot write {path}: {error.strerror or error}") from None
    size = path.stat().st_size / 1e6
    print(f"written: {path}, {plural(runs, 'run')}, {plural(len(files), 'file')}, {size:.1f} MB")
    return 0
