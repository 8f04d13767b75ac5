"""Fill tables with counts and runs: what `table` prints and `reproduce` shows at its end."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ..errors import UsageError
from ..logs import log
from ..runs.evaluations import Evaluated, by_configuration, evaluations
from ..runs.images import unlike_published
from ..runs.latencies import Latency, latencies
from ..runs.records import Record, records
from ..runs.runconfig import RunConfig
from ..tables import ablation, cells, epoch_choice, formats, published, studies
from ..tables import latencies as timing
from ..tables.cells import FilledTable
from ..tables.claims import by_image, designs
from ..tables.layout import Layout
from ..tables.selection import selected
from ..tables.studies import Study, Train
from ..tables.table import Table
from ._counting import Counter, cached_counts

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

    `keys`: the values of `commands.table.KEYS`; `overrides`: those of `train`. Raises UsageError
    for an unknown table, row, column or override.
    """
    format, intervals = keys["format"], keys["ci"] == "true"
    is_long, colours = keys["layout"] == "long", _has_colours()
    if "runs" in keys:
        filled = _of_runs(keys, overrides)
    else:
        out, archived = Path(keys.get("out", "outputs")), keys["archived"] == "true"
        found = records(out, archived=archived)
        tables = published.load(keys.get("table", "all"))
        tables = selected(tables, *(keys.get(part) for part in PARTS))
        evaluated = evaluations(out, archived=archived)
        chosen = study(tables, found, overrides, keys["select"], compose, evaluated)
        timed = _timed(tables, compose, out, archived)
        chosen = replace(chosen, designs=designs.recorded(out), latencies=timed)
        for record in chosen.refused(tables):
            how = unlike_published(record.data, record.result.data)
            log.warning(
                "%s is not of %s as published (%s) and fills no cell",
                *(record.run.path, record.result.data, how),
            )
        filled = fill(tables, chosen, count)
        if "table" not in keys:
            return formats.render_summary(filled, format, width, colours)
    text = formats.render(
        filled, format, width, intervals=intervals, is_long=is_long, colours=colours
    )
    more = _more(keys, filled)
    return text + ("\n" + formats.written(more, format, width, colours) if more else "")


def _more(keys: Mapping[str, str], filled: Sequence[FilledTable]) -> list[Layout]:
    """The tables below the tables: rows compared image by image, and by the choice of the epoch."""
    asked = [key for key in ("images", "epochs_compared") if keys.get(key) == "true"]
    if asked and keys["format"] in ("json", "csv"):
        raise UsageError(f"{asked[0]}=true cannot be combined with format={keys['format']}")
    found = [by_image.of_table(one) for one in filled if "images" in asked]
    return found + [epoch_choice.of_table(one) for one in filled if "epochs_compared" in asked]


def _of_runs(keys: Mapping[str, str], overrides: Sequence[str]) -> list[FilledTable]:
    """Finished runs of a folder, a table per data set."""
    if wrong := [*overrides, *(f"{key}=" for key in ("table", "out") if key in keys)]:
        raise UsageError(
            f"{wrong[0]} cannot be combined with runs=, which shows a folder's runs as they are"
        )
    folder = Path(keys["runs"])
    tables, rows = ablation.tables_of(
        folder, ablation.under(folder, archived=keys["archived"] == "true")
    )
    tables = selected(tables, *(keys.get(part) for part in PARTS))
    return [ablation.filled(table, rows, keys["select"]) for table in tables]


def study(
    tables: Sequence[Table],
    found: Sequence[Record],
    overrides: Sequence[str],
    select: str,
    compose: Composer,
    evaluated: Sequence[Evaluated] = (),
) -> Study:
    """The study that the overrides make of the tables' recipes, with its finished runs.

    `evaluated`: weights that were trained elsewhere; those of the cells' networks are taken.
    """
    trains = {f.train: f.data for table in tables for f in table.figures if f.train is not None}
    if overrides and not trains:
        raise UsageError(f"{overrides[0]}: no accuracy is shown that it could change")
    if not overrides:  # composing takes time: only what runs on these data sets can belong to
        present = {record.result.data for record in found} | {one.data for one in evaluated}
        # images in a folder are named after it
        trains = {t: data for t, data in trains.items() if data in present or data == "folder"}
    composed = compose([*trains, *((*train, *overrides) for train in trains)]) if trains else {}
    chosen = studies.asked(tables, overrides, composed, found, select)
    return replace(chosen, evaluated=by_configuration(composed, evaluated))


def _timed(
    tables: Sequence[Table], compose: Composer, out: Path, archived: bool
) -> dict[tuple[str, str, str], Latency]:
    """The record of each latency cell; most tables have none."""
    requests = timing.requests(tables)
    found = latencies(out, archived=archived) if requests else []
    return timing.of_cells(tables, compose(requests), found) if found else {}


def fill(tables: Sequence[Table], study: Study, count: Counter) -> list[FilledTable]:
    """Fill the tables; `count` counts the networks whose counts are not in the cache."""
    wanted = [request for table in tables for request in cells.requirements(table)]
    counts = cached_counts(wanted, count)
    return [cells.filled(table, counts, study) for table in tables]


def _has_colours() -> bool:
    """Whether standard output is a terminal with colours; NO_COLOR switches them off."""
    screen = Console()
    return screen.color_system is not None and not screen.no_color
