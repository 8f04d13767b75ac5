"""A table of any finished runs: a row a configuration, by the keys in which the runs differ."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import UsageError
from ..runs.records import Record, records
from ..runs.runconfig import RunConfig
from .cells import Cell, cells, requirements
from .layout import Filled
from .published import Column, Figure, Table
from .studies import Study, by_identity

log = logging.getLogger("lwbench")

COLUMNS = {"params": Column(kind="params"), "top1": Column(kind="top1")}


def under(folder: Path, *, kept: bool = True) -> list[Record]:
    """The finished runs of a folder of runs, or of a part of one (outputs/digits).

    Raises UsageError where there are none.
    """
    for root in (folder, *folder.parents[:2]):
        found = [r for r in records(root, kept=kept) if folder in r.run.path.parents]
        found = [record for record in found if _is_readable(record)]
        if found:
            return found
    raise UsageError(f"runs={folder}: no finished run in it")


def _is_readable(record: Record) -> bool:
    try:
        return bool(record.config.values)
    except UsageError as error:
        log.warning("left out: %s", error)
        return False


def tables_of(folder: Path, found: Iterable[Record]) -> list[Table]:
    """A table for every data set among the runs; rows in the order in which they were started."""
    of_data: dict[str, list[Record]] = {}
    for record in sorted(found, key=lambda r: (_started(r), str(r.run.path))):
        of_data.setdefault(record.result.data, []).append(record)
    return [_table(f"{folder}, {data}", runs) for data, runs in of_data.items()]


def _started(record: Record) -> str:
    return (record.starts and record.starts[0].started) or ""


def filled(table: Table, found: Iterable[Record], select: str) -> Filled:
    """The table with what the runs recorded."""
    runs = by_identity(found)
    names = {figure.train: figure.train[0] for figure in table.figures if figure.train}
    study = Study(identities=names, full=names, select=select, records=runs)
    counts = {
        request: {
            "params": runs[request.model[0].removeprefix("model=")][0].result.params,
            "macs": {},
        }
        for request in requirements(table)
    }
    return Filled(table, [_made(cell) for cell in cells(table, counts, study)])


def differing(configs: Mapping[str, RunConfig], models: Mapping[str, str]) -> list[str]:
    """Keys whose values differ between configurations, given with the name of each one's network.

    A network's name stands for its keys: those count where networks of one name differ in them.
    """
    keys = dict.fromkeys(key for config in configs.values() for key in config.identifying)
    values = {name: config.flat for name, config in configs.items()}
    found = []
    for key in keys:
        seen: dict[str, set[str]] = {}
        for name, config in values.items():
            whose = models[name] if key.startswith("model.") else ""
            seen.setdefault(whose, set()).add(str(config.get(key)))
        if any(len(texts) > 1 for texts in seen.values()):
            found.append(key)
    return found


def _table(name: str, found: Sequence[Record]) -> Table:
    firsts = {identity: runs[0] for identity, runs in by_identity(found).items()}
    configs = {identity: first.config for identity, first in firsts.items()}
    models = {identity: first.result.model for identity, first in firsts.items()}
    keys = differing(configs, models)
    settings = {i: {key: _text(config, key) for key in keys} for i, config in configs.items()}
    labels = {i: " ".join([models[i], *_named(settings[i])]) for i in firsts}
    return Table(
        name=name,
        source="finished runs",
        select="final",
        baseline=next(iter(labels.values())),
        columns=COLUMNS,
        rows=tuple(labels.values()),
        figures=tuple(_figure(label, key, i) for i, label in labels.items() for key in COLUMNS),
        notes=(),
        marks={key: tuple(one[key] for one in settings.values()) for key in keys},
    )


def _figure(label: str, key: str, identity: str) -> Figure:
    """A cell whose network and run go by the identity, since nothing else is known of them."""
    return Figure(
        row=label,
        column=key,
        kind=COLUMNS[key].kind,
        data=None,
        value=None,
        digits=None,
        rule="",
        num_classes=0,
        image_size=0,
        run=(f"model={identity}",),
        train=(identity,),
        note="",
        misprint="",
        fit="",
    )


def _made(cell: Cell) -> Cell:
    """The cell with the command that made its first run, as recorded."""
    starts = cell.runs[0].starts if cell.runs else ()
    recorded = (starts and starts[0].command) or ""
    # the program may have been called by another path
    command = f"lwbench {recorded.partition(' ')[2]}" if recorded else ""
    return replace(cell, rule=None, command=command)


def _text(config: RunConfig, key: str) -> str:
    return str(config.flat.get(key, "-"))


def _named(settings: Mapping[str, str]) -> list[str]:
    """`lr=0.1` for `optimizer.lr`, where no other key ends like it."""
    ends = [key.rpartition(".")[2] for key in settings]
    return [
        f"{end if ends.count(end) == 1 else key}={settings[key]}"
        for key, end in zip(settings, ends, strict=True)
    ]
