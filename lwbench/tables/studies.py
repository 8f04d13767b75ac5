"""Which runs fill a table's accuracy cells: those of the very configuration that a row names.

A study is the full one, or a cheaper one that overrides make of it; the two never mix.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..runs.provenance import revision_text
from ..runs.records import Record, chosen
from ..runs.schema import Start
from .published import Figure, Table

Train = tuple[str, ...]  # overrides of `train` that a cell's run is made with

# Images of the whole sets, training and test: a run of a sample has the identity of a full one
SIZES = {"cifar10": 60_000, "cifar100": 60_000, "caltech256": 29_780, "imagenet": 1_331_167}


@dataclass(frozen=True)
class Study:
    """Finished runs, and the identity of the run that each cell asks for."""

    identities: Mapping[Train, str] = field(default_factory=dict)
    full: Mapping[Train, str] = field(default_factory=dict)  # the same without overrides
    overrides: tuple[str, ...] = ()
    select: str = "final"  # or best
    records: Mapping[str, Sequence[Record]] = field(default_factory=dict)  # by identity

    def reduced(self, figure: Figure) -> bool:
        """Whether the overrides make another run of the cell's than the document's."""
        train = figure.train or ()
        return self.identities.get(train) != self.full.get(train)

    def runs(self, figure: Figure) -> tuple[Record, ...]:
        """The cell's runs by seed: one a seed, all of one precision and of the same images.

        Of several precisions that with most seeds, fp32 if equal. A run of a part of a published
        data set fills no cell that has a published number, unless the study is reduced anyway.
        """
        found = self.records.get(self.identities.get(figure.train or (), ""), ())
        if figure.value is not None and not self.reduced(figure):
            found = [record for record in found if is_whole(record)]
        groups: dict[tuple[str, str], list[Record]] = {}
        for record in found:
            groups.setdefault((record.result.precision, images(record)), []).append(record)
        complete = [chosen(group) for group in groups.values()]
        best = max(complete, key=_rank, default=[])
        return tuple(sorted(best, key=lambda record: record.result.seed))


def requests(tables: Iterable[Table], extra: Sequence[str]) -> list[Train]:
    """The runs behind the tables' accuracy cells, without seeds, each once.

    `extra`: overrides of every run.
    """
    trained = (figure.train for table in tables for figure in table.figures)
    return list(dict.fromkeys((*train, *extra) for train in trained if train is not None))


def by_identity(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The records of every identity."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record.result.identity, []).append(record)
    return found


def images(record: Record) -> str:
    """The digest of the run's images; "" where its environment is not recorded."""
    return record.data.digest or ""


def is_whole(record: Record) -> bool:
    """False for a run that is known to be of a part of a published data set."""
    total = SIZES.get(record.result.data)
    train, test = record.data.train_size, record.data.test_size
    return total is None or train is None or test is None or train + test == total


def hardware(records: Iterable[Record]) -> list[str]:
    """The devices that the runs were trained on, each once."""
    devices = (
        start.device or record.result.device
        for record in records
        for start in record.environment.trained or (Start(),)
    )
    return list(dict.fromkeys(devices))


def revisions(records: Iterable[Record]) -> list[str]:
    """The code that made the runs: short git revisions, `+` where it was changed, or versions."""
    starts = (start for record in records for start in record.environment.trained or (Start(),))
    return list(dict.fromkeys(map(_revision, starts)))


def _revision(start: Start) -> str:
    version = start.versions.get("lwbench")
    return revision_text(start) or (f"version {version}" if version else "unknown")


def _rank(runs: Sequence[Record]) -> tuple[int, bool, bool]:
    return len(runs), is_whole(runs[0]), runs[0].result.precision == "fp32"
