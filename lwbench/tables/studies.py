"""Decide which finished runs belong to which study, for `table`, `reproduce` and `report` alike.

A study is one recipe for the runs of a table's accuracy cells: the document's own, or a cheaper one
that overrides make of it (a reduced study). `Study.runs` is the one rule; the two never mix.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import UsageError
from ..runs.evaluations import Evaluated
from ..runs.identity import is_identifying
from ..runs.images import unlike_published
from ..runs.latencies import Latency
from ..runs.records import Record, chosen, grouped
from ..runs.runconfig import Overrides, RunConfig, override_key
from .claims.designs import Design
from .table import Figure, Table

# keys of networks that a reduced study may set: maps as large at 32 px as the stride gives at 64 px
STAND_INS = ("model.stem_stride",)
Train = Overrides  # those of `train` that make a cell's full run


class Identities(NamedTuple):
    """The identities of a cell's run: in the study, and by the document's own recipe."""

    asked: str
    full: str


@dataclass(frozen=True)
class Study:
    """The finished runs of one recipe, and which of them each accuracy cell takes."""

    overrides: Overrides = ()  # of a reduced study, those that can change the result
    select: str = "final"  # or best: the epoch whose accuracy counts
    identities: dict[Train, Identities] = field(default_factory=dict)
    records: dict[str, list[Record]] = field(default_factory=dict)  # by identity
    evaluated: Mapping[Train, tuple[Evaluated, ...]] = field(default_factory=dict)
    designs: Sequence[Design] = ()  # of comparisons that were grown until they were decided
    latencies: Mapping[tuple[str, str, str], Latency] = field(default_factory=dict)  # by cell

    def is_reduced(self, figure: Figure) -> bool:
        """Whether the overrides change the run that the document's recipe gives for the cell."""
        found = self.identities.get(figure.train or ())
        return found is not None and found.asked != found.full

    def found(self, figure: Figure) -> Sequence[Record]:
        """All runs of the cell's configuration, whatever their images."""
        identities = self.identities.get(figure.train or ())
        return self.records.get(identities.asked, ()) if identities else ()

    def refused(self, tables: Iterable[Table]) -> list[Record]:
        """Runs of the cells' configurations that were made with other images than published."""
        figures = [figure for table in tables for figure in table.figures]
        runs = {record.run.path: record for figure in figures for record in self.found(figure)}
        return [record for record in runs.values() if not is_published(record)]

    def runs(self, figure: Figure) -> list[Record]:
        """The runs that fill the cell: see `comparable`.

        The identity does not depend on the images: a folder may hold a part of a published data
        set, or another one. Such a run fills no cell of a published set's column.
        """
        return comparable(filter(is_published, self.found(figure)))


def requests(tables: Iterable[Table], extra: Sequence[str] = ()) -> list[Train]:
    """The runs behind the tables' accuracy cells, without seeds, each once.

    `extra`: overrides of every run.
    """
    trained = (figure.train for table in tables for figure in table.figures)
    return list(dict.fromkeys((*train, *extra) for train in trained if train is not None))


def asked(
    tables: Iterable[Table],
    overrides: Sequence[str],
    configs: Mapping[Train, RunConfig],
    found: Iterable[Record],
    select: str = "final",
) -> Study:
    """The study that overrides make of the tables' own recipes; without overrides the full one.

    `configs`: those of every cell's run, with and without the overrides. Cells whose run is not
    among them stay without runs.
    """
    identities = {
        train: Identities(configs[(*train, *overrides)].identity, configs[train].identity)
        for train in requests(tables)
        if train in configs
    }
    effective = tuple(o for o in overrides if is_identifying(override_key(o)))
    return Study(effective, select, identities, by_identity(found))


def all_studies(
    tables: Iterable[Table],
    configs: Mapping[Train, RunConfig],
    found: Iterable[Record],
    select: str = "final",
) -> tuple[list[tuple[Table, Study]], list[Record]]:
    """Every study that the runs belong to, with its table, and the runs of no table.

    A run belongs to a table's study where its data set and network are those of a cell. The other
    keys in which it differs from the cell's full run (`epochs=10`) are the study's overrides. Of
    several tables, a run belongs to those from whose recipe it differs least.
    """
    places: dict[tuple[str, str], list[tuple[Table, Train, RunConfig]]] = {}
    for table in tables:
        for train in requests([table]):
            names = configs[train].data_name, configs[train].model_name
            places.setdefault(names, []).append((table, train, configs[train]))
    studies: dict[tuple[str, Overrides], tuple[Table, Study]] = {}
    others = []
    configurations = grouped(found, lambda r: (r.result.data, r.result.model, r.result.identity))
    for (data, model, identity), runs in configurations.items():
        nearest = _nearest(runs[0], places.get((data, model), []))
        for (table, train, full), overrides in nearest:
            new = Study(overrides, select, {}, {})
            _, study = studies.setdefault((table.name, overrides), (table, new))
            study.identities[train] = Identities(identity, full.identity)
            study.records[identity] = runs
        others += [] if nearest else runs
    return list(studies.values()), others


def _nearest(
    record: Record, places: Iterable[tuple[Table, Train, RunConfig]]
) -> list[tuple[tuple[Table, Train, RunConfig], Overrides]]:
    """The places from which the run differs least, each with the overrides that it differs by."""
    try:
        config = record.config
    except (UsageError, TypeError, ValueError, RecursionError):
        return []  # a damaged configuration says nothing about where the run belongs
    differing = [(place, config.differences(place[2])) for place in places]
    # a run of another network is not a reduced run of this one
    same = [(p, keys) for p, keys in differing if not any(map(_is_of_network, keys))]
    least = min((len(keys) for _, keys in same), default=0)
    return [(place, config.written(keys)) for place, keys in same if len(keys) == least]


def _is_of_network(key: str) -> bool:
    return key.startswith("model.") and key not in STAND_INS


def comparable(found: Iterable[Record]) -> list[Record]:
    """One run per seed, by seed, all of one precision and trained on the same images.

    Of several such groups, the one with most seeds; if equal, the one on the published data set,
    then the one in fp32.
    """
    groups = grouped(found, lambda record: (record.result.precision, images(record)))
    best = max(map(chosen, groups.values()), key=_rank, default=[])
    return sorted(best, key=lambda record: record.result.seed)


def _rank(runs: Sequence[Record]) -> tuple[int, bool, bool]:
    return len(runs), is_published(runs[0]), runs[0].result.precision == "fp32"


def by_identity(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The records of every identity."""
    return grouped(records, lambda record: record.result.identity)


# --- what a run was made with -------------------------------------------------------------------


def images(record: Record) -> str:
    """A digest of the run's images, with their content; "" where it is not recorded."""
    if encoded := record.data.encoded or record.encoded_elsewhere:
        return encoded
    digest, content = record.data.digest or "", record.data.content
    return hashlib.sha256(f"{digest} {content}".encode()).hexdigest() if content else digest


def is_published(record: Record) -> bool:
    """False for a run whose images are known not to be those of the published data set."""
    return not unlike_published(record.data, record.result.data)
