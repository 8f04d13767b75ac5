"""Check a bundle: its digests, its table from its records, and on request a run of it."""

import json
import math
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError, plural
from ._keys import Key, help_of_keys, parsed

if TYPE_CHECKING:
    from ..runs.runconfig import RunConfig

FLAGS: tuple[str, ...] = ()
KEYS = {
    "rerun": Key("how many runs, drawn from the bundle, are made again and compared (0)"),
    "epochs": Key("their first epochs alone (all)"),
    "seed": Key("draws the runs (0)"),
    "top1": Key("largest difference of top-1 in points that counts as equal (2)"),
    "device": Key("of the runs that are made again (auto)"),
}


def help() -> str:
    return help_of_keys(
        "lwbench verify <archive> [key=value ...]",
        "Nothing in a bundle runs code on reading. 1 where something differs, 2 where the bundle\n"
        "was changed since it was made.",
        KEYS,
    )


def run(arguments: list[str], flags: set[str]) -> int:
    """Say what was checked; 1 where the table or a repeated run differs.

    Raises UsageError where the file is no bundle, DamagedError where it was changed.
    """
    from ..runs import bundle
    from ..tables.claims import listing
    from ._bundles import measured, verdicts
    from .table import terminal_width

    paths = [argument for argument in arguments if "=" not in argument]
    if len(paths) != 1:
        raise UsageError("verify needs one bundle, as in lwbench verify claim.zip")
    keys = parsed([argument for argument in arguments if "=" in argument], KEYS)
    numbers = {key: _number(keys, key) for key in ("rerun", "epochs", "seed")}
    with tempfile.TemporaryDirectory(prefix="lwbench-verify-") as name:
        folder = Path(name)
        manifest = bundle.unpacked(Path(paths[0]), folder)
        files = plural(len(manifest.digests), "file")
        print(f"digests: {files} as they were on {manifest.made}, lwbench {manifest.lwbench}")
        is_file = manifest.table.endswith((".yaml", ".yml"))
        table = str(folder / manifest.table) if is_file else manifest.table
        claims = None if manifest.claims is None else str(folder / manifest.claims)
        place, overrides = folder / "runs", manifest.overrides
        shown, runs = measured(table, overrides, place, archived=False, claims=claims)
        stated = json.loads((folder / manifest.cells).read_text(encoding="utf-8"))
        differing = _differing(stated, shown)
        for line in differing:
            print(f"differs: {line}")
        print(f"table: {plural(len(shown), 'measured cell')} from {plural(len(runs), 'run')}")
        for one in [] if claims is None else verdicts(claims, overrides, place):
            print(listing.line(one, terminal_width()))
        failed = bool(differing)
        if numbers["rerun"]:
            failed |= not _rerun(runs, folder, numbers, keys)
    return int(failed)


def _number(keys: dict[str, str], key: str) -> int:
    text = keys.get(key, "0")
    if not text.isdecimal() or len(text) > 6:
        raise UsageError(f"{key}={text}: expected a number")
    return int(text)


def _check_schedule(config: "RunConfig", epochs: int) -> None:
    """Raise UsageError where the first epochs of a shorter run have other learning rates."""
    from ..config import specs

    scheduler = specs(config).scheduler
    whole, short = (scheduler.build(config.lr, n) for n in (config.epochs, epochs))
    if any(whole(e / 4) != short(e / 4) for e in range(4 * epochs)):
        raise UsageError(
            f"epochs={epochs}: the schedule depends on the number of epochs, so that the first "
            "ones cannot be made alone; leave epochs= out"
        )


def _points(text: str) -> float:
    try:
        points = float(text)
    except ValueError:
        points = -1.0
    if not 0 <= points <= 100:
        raise UsageError(f"top1={text}: expected a number of points")
    return points


def _differing(stated: Any, shown: list[dict[str, Any]]) -> list[str]:
    """Fields of cells that do not follow from the records in the bundle."""
    if not isinstance(stated, list) or not all(isinstance(one, dict) for one in stated):
        return ["the table in the bundle is no list of cells"]
    ours = {(one["row"], one["column"]): one for one in shown}
    theirs = {(one.get("row"), one.get("column")): one for one in stated}
    lines = [f"{row}, {column}: not in both" for row, column in sorted(ours.keys() ^ theirs.keys())]
    for place in ours.keys() & theirs.keys():
        for key, value in ours[place].items():
            if not _is_equal(theirs[place].get(key), json.loads(json.dumps(value))):
                told = theirs[place].get(key)
                lines.append(f"{', '.join(place)}: {key} {told!r}, from the records {value!r}")
    return sorted(lines)


def _is_equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return bool(one == other)


def _rerun(runs: Any, folder: Path, numbers: dict[str, int], keys: dict[str, str]) -> bool:
    """Make drawn runs again; whether all reach what the bundle states."""
    import random

    tolerance = _points(keys.get("top1", "2"))
    drawn = random.Random(numbers["seed"]).sample(list(runs), min(numbers["rerun"], len(runs)))
    is_alike = True
    for record in drawn:
        epochs = min(numbers["epochs"] or record.result.epochs, record.result.epochs)
        is_alike &= _made_again(record, folder / "again", epochs, tolerance, keys)
    return is_alike


def _made_again(
    record: Any, out: Path, epochs: int, tolerance: float, keys: dict[str, str]
) -> bool:
    """Train the recorded configuration, by default all of its epochs, and compare the rows."""
    from ..runs.records import records
    from ..runs.runconfig import RunConfig
    from ._training import train

    values = dict(record.config.values)
    # what a bundle states of places on its maker's machine is not followed
    values |= {"out": str(out), "device": keys.get("device", "auto"), "force": False}
    places = {key: None for key in ("root", "cache") if key in values["data"]}
    values["data"] = {**values["data"], **places}
    choices = {"model": record.result.model, "data": record.result.data}
    config = RunConfig.of(values, choices).changed({"seed": record.result.seed})
    if record.config.epochs != epochs:
        _check_schedule(record.config, epochs)
        config = config.changed({"epochs": epochs})
    print(f"again: {shlex.join(record.run.path.parts[-3:])}, {plural(epochs, 'epoch')}")
    train(config)
    (again,) = (
        one
        for one in records(out, archived=False)
        if (one.result.identity, one.result.seed) == (config.identity, config.seed)
    )
    before, now = record.metrics[epochs - 1], again.metrics[epochs - 1]
    gap = abs(before.get("test_top1", math.nan) - now.get("test_top1", math.nan))
    is_alike = gap <= tolerance
    print(
        f"epoch {epochs}: top-1 {before.get('test_top1'):.2f} % in the bundle, "
        f"{now.get('test_top1'):.2f} % here: {'alike' if is_alike else 'differs'}"
    )
    return is_alike
