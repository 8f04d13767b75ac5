"""The command that shows tables: published ones and a user's own, with what was counted and run."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..paths import conf_folder
from ..runs.identity import identity, is_identifying
from ..runs.records import Record, records
from ..tables import ablation, cells, formats, published
from ..tables.counts import Counter, cached_counts
from ..tables.layout import Filled
from ..tables.selection import selected
from ..tables.studies import Study, Train, by_identity

# overrides of `train` -> its configuration and the choices in the groups; compose.composed_runs
Composer = Callable[[Iterable[Train]], Mapping[Train, tuple[dict[str, Any], Mapping[str, str]]]]
KEYS = (
    "table", "runs", "rows", "columns", "baseline", "select", "ci", "format", "out", "kept",
)  # fmt: skip
PARTS = ("rows", "columns", "baseline")
SELECT = ("final", "best")


def tabulate(
    keys: Mapping[str, str],
    overrides: Sequence[str],
    compose: Composer,
    count: Counter,
    width: int,
) -> str:
    """What `lwbench table` prints. `keys` are KEYS as typed, `overrides` are those of `train`.

    Raises UsageError for what is no table, row, column, format or override.
    """
    format, intervals = keys.get("format", "terminal"), is_true(keys, "ci", False)
    if "runs" in keys:
        return formats.render(_of_runs(keys, overrides), format, width, intervals)
    name, select = keys.get("table"), one_of(keys, "select", SELECT)
    found = records(Path(keys.get("out", "outputs")), kept=is_true(keys, "kept", True))
    loaded = selected(published.load(name or "all"), *(keys.get(part) for part in PARTS))
    filled = fill(loaded, study(loaded, found, overrides, select, compose), count)
    if name is None:
        return formats.render_summary([cells.summary(*one) for one in filled], format, width)
    return formats.render(filled, format, width, intervals)


def _of_runs(keys: Mapping[str, str], overrides: Sequence[str]) -> list[Filled]:
    """Finished runs of a folder, a table a data set."""
    if wrong := [*overrides, *(f"{key}=" for key in ("table", "out") if key in keys)]:
        raise UsageError(f"{wrong[0]} goes not with runs=, which shows the runs that there are")
    folder, select = Path(keys["runs"]), one_of(keys, "select", SELECT)
    found = ablation.under(folder, kept=is_true(keys, "kept", True))
    made = ablation.tables_of(folder, found)
    loaded = selected(made, *(keys.get(part) for part in PARTS))
    return [ablation.filled(table, found, select) for table in loaded]


def study(
    loaded: Iterable[published.Table],
    found: Sequence[Record],
    overrides: Sequence[str],
    select: str,
    compose: Composer,
) -> Study:
    """The finished runs, and which of them the tables' cells ask for."""
    trains = {f.train: f.data for table in loaded for f in table.figures if f.train is not None}
    if overrides and not trains:
        raise UsageError(f"{overrides[0]}: no accuracy is shown that it could change")
    if not overrides:  # configurations take time to compose: of those alone that runs can be of
        present = {record.result.data for record in found}
        # images in a folder go by the folder's name
        trains = {t: data for t, data in trains.items() if data in present or data == "folder"}
    if not trains:
        return Study(select=select)
    changed = {train: (*train, *overrides) for train in trains}
    composed = compose([*trains, *changed.values()])
    names = {train: identity(config) for train, (config, _) in composed.items()}
    return Study(
        identities={train: names[changed[train]] for train in trains},
        full={train: names[train] for train in trains},
        overrides=tuple(o for o in overrides if is_identifying(override_key(o))),
        select=select,
        records=by_identity(found),
    )


def override_key(override: str) -> str:
    """The dotted key that an override is of."""
    return override.partition("=")[0].lstrip("+~")


def fill(loaded: Sequence[published.Table], study: Study, count: Counter) -> list[Filled]:
    """The tables with their cells; networks that no cache knows are counted with `count`."""
    wanted = [request for table in loaded for request in cells.requirements(table)]
    counts = cached_counts(wanted, conf_folder(), count)
    return [Filled(table, cells.cells(table, counts, study)) for table in loaded]


def one_of(keys: Mapping[str, str], key: str, words: Sequence[str]) -> str:
    """The key's word; the first, where it is not given. Raises UsageError for another word."""
    word = keys.get(key, words[0])
    if word not in words:
        raise UsageError(f"{key}={word}: {' or '.join(words)}")
    return word


def is_true(keys: Mapping[str, str], key: str, default: bool) -> bool:
    """A key that is true or false. Raises UsageError for another word."""
    return one_of({key: str(default).lower(), **keys}, key, ("true", "false")) == "true"
