"""Finished runs sorted by where they belong: a published table, a reduced study of one, neither.

A run belongs to a cell where its data set and its network are the cell's. What else differs from
the cell's full run (`epochs=10 image_size=32`) names the group: runs of one group differ in the
same keys and values, so that what stands in one table can be compared.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..errors import UsageError
from ..runs.records import Record
from ..runs.runconfig import RunConfig
from .published import Table
from .studies import Study, Train, by_identity


@dataclass
class Group:
    """Runs of one table that differ from its full runs in the same keys and values."""

    table: Table
    overrides: tuple[str, ...]  # `epochs=10`, in the order of the configuration; empty: full runs
    runs: dict[Train, list[Record]] = field(default_factory=dict)  # by the cell's full run

    def study(self, composed: Mapping[Train, RunConfig], select: str) -> Study:
        """The group as what fills the table's cells."""
        return Study(
            identities={train: runs[0].result.identity for train, runs in self.runs.items()},
            full={train: composed[train].identity for train in self.runs},
            overrides=self.overrides,
            select=select,
            records=by_identity(record for runs in self.runs.values() for record in runs),
        )


def sorted_runs(
    found: Iterable[Record], tables: Iterable[Table], composed: Mapping[Train, RunConfig]
) -> tuple[list[Group], list[Record]]:
    """The groups of all tables, and the runs of no table.

    A run enters the groups from which it differs least: a full run is no reduced one of another
    table's recipe. `composed` holds the configuration and choices of every cell's full run.
    """
    places = _places(tables, composed)
    known: dict[str, list[tuple[Place, tuple[str, ...]]]] = {}  # by identity
    groups: dict[tuple[str, tuple[str, ...]], Group] = {}
    others = []
    for record in found:
        name = f"{record.result.data} {record.result.model} {record.result.identity}"
        if name not in known and (config := _config(record)) is not None:
            cells = places.get((record.result.data, record.result.model), ())
            known[name] = _nearest(config, cells)
        nearest = known.get(name, [])
        for (table, train, _), overrides in nearest:
            group = groups.setdefault((table.name, overrides), Group(table, overrides))
            group.runs.setdefault(train, []).append(record)
        if not nearest:
            others.append(record)
    return list(groups.values()), others


Place = tuple[Table, Train, RunConfig]  # with the configuration of its full run


def _places(
    tables: Iterable[Table], composed: Mapping[Train, RunConfig]
) -> dict[tuple[str, str], list[Place]]:
    places: dict[tuple[str, str], list[Place]] = {}
    for table in tables:
        for train in dict.fromkeys(figure.train for figure in table.figures if figure.train):
            config = composed[train]
            places.setdefault((config.data_name, config.model_name), []).append(
                (table, train, config)
            )
    return places


def _config(record: Record) -> RunConfig | None:
    try:
        return record.config if record.config.identity == record.result.identity else None
    except (UsageError, OSError, ValueError, TypeError, RecursionError):
        return None


def _nearest(config: RunConfig, places: Iterable[Place]) -> list[tuple[Place, tuple[str, ...]]]:
    differing = [(place, config.differences(place[2])) for place in places]
    # another network is no cheaper way to the same figure
    same = [(p, keys) for p, keys in differing if not any(k.startswith("model.") for k in keys)]
    least = min((len(keys) for _, keys in same), default=0)
    return [(place, config.written(keys)) for place, keys in same if len(keys) == least]
