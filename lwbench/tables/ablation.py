"""Tables of any finished runs: a row per configuration, named by the keys in which runs differ."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..errors import UsageError
from ..runs.records import Record, grouped, records
from .cells import Cell, FilledTable, compared, measured_by
from .published import Column, Table
from .studies import by_identity, comparable, images

log = logging.getLogger("lwbench")

COLUMNS = {"params": Column(kind="params"), "top1": Column(kind="top1")}
Rows = Mapping[tuple[str, str], Sequence[Record]]  # runs by table and label


def under(folder: Path, *, archived: bool = True) -> list[Record]:
    """The finished runs of a folder of runs, or of a part of one (outputs/digits).

    Runs whose configuration is damaged are left out, with a warning. Raises UsageError where no run
    remains.
    """
    for root in (folder, *folder.parents[:2]):
        inside = (r for r in records(root, archived=archived) if folder in r.run.path.parents)
        if found := [record for record in inside if _is_readable(record)]:
            return found
    raise UsageError(f"runs={folder}: no finished run in it")


def _is_readable(record: Record) -> bool:
    try:
        return bool(record.config.values)
    except UsageError as error:
        log.warning("left out: %s", error)
        return False


def tables_of(folder: Path, found: Iterable[Record]) -> tuple[list[Table], Rows]:
    """A table per data set, rows in the order in which the runs were started; and each row's runs.

    Runs on different images of one data set are in different tables. The runs must have readable
    configurations, as those of `under` have.
    """
    by_age = sorted(found, key=lambda r: (_started(r), str(r.run.path)))
    by_data = grouped(by_age, lambda record: (record.result.data, images(record)))
    sets = [data for data, _ in by_data]
    tables: list[Table] = []
    rows: dict[tuple[str, str], Sequence[Record]] = {}
    for (data, digest), runs in by_data.items():
        groups = list(by_identity(runs).values())
        settings = _settings([group[0] for group in groups])
        labels = [
            " ".join([group[0].result.model, *_named(texts)])
            for group, texts in zip(groups, settings, strict=True)
        ]
        labels = [
            label if labels.count(label) == 1 else f"{label} ({group[0].result.identity})"
            for label, group in zip(labels, groups, strict=True)
        ]
        table = Table(
            name=f"{folder}, {data}{_which(runs[0], digest) if sets.count(data) > 1 else ''}",
            source="finished runs",
            baseline=labels[0],
            columns=COLUMNS,
            rows=tuple(labels),
            marks={key: tuple(texts[key] for texts in settings) for key in settings[0]},
        )
        tables.append(table)
        rows |= {(table.name, label): runs for label, runs in zip(labels, groups, strict=True)}
    return tables, rows


def filled(table: Table, rows: Rows, select: str) -> FilledTable:
    """The table with what its runs recorded: parameters, and top-1 accuracy over the seeds."""
    cells = []
    for label in table.rows:
        runs = comparable(rows[table.name, label])
        # the command as recorded; the program may have been started under another path
        recorded = (runs[0].starts and runs[0].starts[0].command) or ""
        command = f"lwbench {recorded.partition(' ')[2]}" if recorded else ""
        for key, column in table.columns.items():
            if column.kind == "params":
                params = runs[0].result.params
                cell = Cell(table.name, label, key, "params", None, params, "measured")
            else:
                cell = Cell(table.name, label, key, column.kind, command=command)
                cell = measured_by(cell, runs, select)
            cells.append(cell)
    return FilledTable(table, compared(cells, table.baseline))


def _which(record: Record, digest: str) -> str:
    """Tell the images of a run apart from others of the same data set."""
    found = record.data
    sizes = f"{found.classes} classes, {found.train_size} + {found.test_size} images"
    return f" ({sizes}, {digest[:8]})" if digest else " (unknown images)"


def _started(record: Record) -> str:
    return (record.starts and record.starts[0].started) or ""


def _settings(firsts: Sequence[Record]) -> list[dict[str, str]]:
    """The keys whose values differ between configurations, with each one's values.

    A network's name stands for its keys: these count where networks of one name differ in them.
    """
    flats = [record.config.flat for record in firsts]
    keys = dict.fromkeys(key for record in firsts for key in record.config.identifying)
    differing = []
    for key in keys:
        values: dict[str, set[str]] = {}
        for record, config in zip(firsts, flats, strict=True):
            group = record.result.model if key.startswith("model.") else ""
            values.setdefault(group, set()).add(str(config.get(key)))
        if any(len(texts) > 1 for texts in values.values()):
            differing.append(key)
    return [{key: str(config.get(key, "-")) for key in differing} for config in flats]


def _named(settings: Mapping[str, str]) -> list[str]:
    """`lr=0.1` for `optimizer.lr`, where no other key ends like it."""
    ends = [key.rpartition(".")[2] for key in settings]
    return [
        f"{end if ends.count(end) == 1 else key}={value}"
        for (key, value), end in zip(settings.items(), ends, strict=True)
    ]
