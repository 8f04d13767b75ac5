"""A table as data: its shape, and the published figures in its cells."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Literal, NamedTuple

from ..runs.latencies import Setting

COMPLEXITY = ("params", "macs", "deploy_params", "deploy_macs")
ACCURACY = ("top1", "top1_error", "top5", "top5_error")
KINDS = (*COMPLEXITY, *ACCURACY, "speed", "map", "latency_ms")
CHECK = "x"  # a check mark that every font and terminal has
# the names of the rules in measure.rules, which imports torch; a test holds the two together
RULES = ("plain", "conv_only", "thop2020", "torchstat", "ptflops", "fvcore")


OriginKind = Literal["own", "quoted", "unknown"]
Agreement = Literal["same", "rounded", "truncated", "differs"]


class Origin(NamedTuple):
    """Where a published number comes from: the document itself, elsewhere, or nobody knows where.

    `value`: the number as printed there; `agrees`: how the document's number agrees with it.
    """

    kind: OriginKind
    citation: str = ""
    value: str | None = None
    agrees: Agreement = "same"
    note: str = ""

    @property
    def word(self) -> str:
        """A key of `cells.ORIGINS`."""
        words = {"quoted": "quoted", "unknown": "origin unknown", "own": "own"}
        return "misquoted" if self.agrees == "differs" else words[self.kind]


class Column(NamedTuple):
    """What a column holds (one of KINDS), and on which data set.

    Of a latency: under which setting, and on which device; without one that of the newest record.
    """

    kind: str
    data: str | None = None
    setting: Setting = Setting()
    device: str | None = None


@dataclass(frozen=True)
class Figure:
    """A cell as published: the number as printed, how it was counted, what obtains it here."""

    row: str
    column: str
    kind: str  # one of KINDS
    data: str | None  # data set of an accuracy
    value: str | None  # as printed, in base units or percent; None where nothing is published
    digits: int | None  # number of significant printed digits; None: all
    rule: str
    num_classes: int
    image_size: int
    run: tuple[str, ...] | None  # overrides of the row; None: lwbench cannot run it
    train: tuple[str, ...] | None  # the run with its data set and recipe
    note: str
    misprint: str  # why the printed number is wrong; "" if it is not
    fit: str  # why the network is a fit; "" if it is not
    origin: Origin | None = None  # of a published accuracy or speed; None where it is not stated

    @property
    def model(self) -> tuple[str, ...]:
        """The overrides of the run that change the network."""
        keys = ("model=", "model.")
        return tuple(part for part in self.run or () if part.lstrip("+~").startswith(keys))

    def verdict(self, measured: int) -> str:
        """Compare a count with the printed number, at the precision of its significant digits."""
        if self.value is None:
            return "measured"
        if self.misprint or self.fit:
            return "misprint" if self.misprint else "fit"
        printed, ours = Decimal(self.value), Decimal(measured)
        # 1e5, the unit of the last significant digit of 63.4e6
        unit = Decimal(1).scaleb(int(printed.as_tuple().exponent))
        if self.digits is not None:
            unit = Decimal(1).scaleb(printed.adjusted() - self.digits + 1)
        if ours.quantize(unit, ROUND_HALF_UP) == printed:
            return "exact"
        return "truncated" if ours.quantize(unit, ROUND_DOWN) == printed else "close"


@dataclass(frozen=True)
class Table:
    """A published table, a user's own, or one of any finished runs (without figures)."""

    name: str  # ldc/4; the file's name without .yaml for a user's table
    source: str
    baseline: str  # label of the row that the others are compared with
    columns: Mapping[str, Column]
    rows: tuple[str, ...]
    select: str = "final"  # the epoch of the published accuracies: best, final or unstated
    figures: tuple[Figure, ...] = ()  # row by row
    notes: tuple[str, ...] = ()
    # what sets the rows apart: header -> a text per row; if published, a check mark or nothing
    marks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def part(self, labels: Collection[str], keys: Collection[str]) -> "Table":
        """The rows and columns named, in the table's order.

        Without its own baseline, a table is compared with its first row.
        """
        at = [i for i, label in enumerate(self.rows) if label in labels]
        rows = tuple(self.rows[i] for i in at)
        return replace(
            self,
            rows=rows,
            columns={key: column for key, column in self.columns.items() if key in keys},
            figures=tuple(f for f in self.figures if f.row in labels and f.column in keys),
            baseline=self.baseline if self.baseline in rows else next(iter(rows), ""),
            marks={mark: tuple(texts[i] for i in at) for mark, texts in self.marks.items()},
        )
