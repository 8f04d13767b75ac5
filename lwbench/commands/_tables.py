"""Tables filled with counts and runs: what `table` prints and `reproduce` shows at its end."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import UsageError
from ..paths import conf_folder
from ..runs.records import Record, records
from ..runs.runconfig import RunConfig, is_identifying, override_key
from ..tables import ablation, cells, formats, published
from ..tables.counts import Counter, cached_counts
from ..tables.layout import Filled
from ..tables.selection import selected
from ..tables.studies import Study, Train, by_identity

# overrides of `train` -> their configurations: config.train_configs
Composer = Callable[[Iterable[Train]], Mapping[Train, RunConfig]]
PARTS = ("rows", "columns", "baseline")


def tabulate(
    keys: Mapping[str, str],
    overrides: Sequence[str],
    compose: Composer,
    count: Counter,
    width: int,
) -> str:
    """What `lwbench table` prints.

    `keys`: the values of `commands.table.KEYS`; `overrides`: those of `train`.

    Raises UsageError for an unknown table, row, column or override.
    """
    format, intervals = keys["format"], keys["ci"] == "true"
    if "runs" in keys:
        return formats.render(_of_runs(keys, overrides), format, width, intervals)
    name, select = keys.get("table"), keys["select"]
    found = records(Path(keys.get("out", "outputs")), kept=keys["kept"] == "true")
    loaded = selected(published.load(name or "all"), *(keys.get(part) for part in PARTS))
    filled = fill(loaded, study(loaded, found, overrides, select, compose), count)
    if name is None:
        return formats.render_summary([cells.summary(*one) for one in filled], format, width)
    return formats.render(filled, format, width, intervals)


def _of_runs(keys: Mapping[str, str], overrides: Sequence[str]) -> list[Filled]:
    """Finished runs of a folder, a table a data set."""
    if wrong := [*overrides, *(f"{key}=" for key in ("table", "out") if key in keys)]:
        raise UsageError(
            f"{wrong[0]} cannot be combined with runs=, which shows a folder's runs as they are"
        )
    folder, select = Path(keys["runs"]), keys["select"]
    found = ablation.under(folder, kept=keys["kept"] == "true")
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
    names = {train: config.identity for train, config in composed.items()}
    return Study(
        identities={train: names[changed[train]] for train in trains},
        full={train: names[train] for train in trains},
        overrides=tuple(o for o in overrides if is_identifying(override_key(o))),
        select=select,
        records=by_identity(found),
    )


def fill(loaded: Sequence[published.Table], study: Study, count: Counter) -> list[Filled]:
    """The tables with their cells; networks that no cache knows are counted with `count`."""
    wanted = [request for table in loaded for request in cells.requirements(table)]
    counts = cached_counts(wanted, conf_folder(), count)
    return [Filled(table, cells.cells(table, counts, study)) for table in loaded]
