"""What a document's own numbers say: printed differences beside their binomial standard errors."""

from dataclasses import dataclass
from math import sqrt

from ...runs.images import PUBLISHED
from ..table import ACCURACY, Figure, Table
from .claim import Claim, Compare, Document

HELD_OUT = 8  # of a set without test images, one in eight is held out: data.splits
CLEAR = 2.0  # standard errors


@dataclass(frozen=True)
class Part:
    """One comparison of a claim: two rows in a column, or in the range over several columns.

    `published`: the printed difference, left minus right, in points; `error`: the standard error
    that it has if both numbers are of one run each on different images (two binomial
    proportions); pairing by image makes it smaller, the spread over seeds larger. `mixed`: whose
    numbers are compared, where their origins differ.
    """

    table: Table
    compare: Compare
    left: str
    right: str
    columns: tuple[str, ...]
    published: str | None = None
    error: float | None = None
    mixed: str = ""

    @property
    def name(self) -> str:
        """`LDC0 > mb0, cifar10_top1`."""
        what = f"range over {', '.join(self.columns)}" if self.is_range else self.columns[0]
        margin = f" (margin {self.compare.margin:g})" if self.compare.margin else ""
        return f"{self.left} {self.compare.relation} {self.right}{margin}, {what}"

    @property
    def is_range(self) -> bool:
        """Whether ranges over columns are compared, rather than values of one column."""
        return self.compare.range_over is not None

    @property
    def data(self) -> list[str]:
        """The data sets of its columns."""
        return [self.table.columns[key].data or "" for key in self.columns]

    @property
    def in_errors(self) -> float | None:
        """The printed difference in standard errors."""
        if self.published is None or not self.error:
            return None
        return float(self.published) / self.error

    @property
    def evidence(self) -> str:
        """What the printed difference shows: nothing printed, not comparable, clear or weak."""
        if self.published is None:
            return ""
        if self.mixed:
            return "not comparable"
        return "" if self.in_errors is None else "clear" if abs(self.in_errors) > CLEAR else "weak"

    @property
    def is_as_printed(self) -> bool | None:
        """Whether the printed numbers satisfy the relation."""
        if self.published is None:
            return None
        difference, margin = float(self.published), self.compare.margin
        return {
            ">": difference > 0,
            "<": difference < 0,
            ">=": difference >= -margin,
            "<=": difference <= margin,
            "~": abs(difference) <= margin,
        }[self.compare.relation]


def parts(document: Document, claim: Claim) -> list[Part]:
    """The comparisons of a claim, pair by pair and column by column."""
    found = []
    for compare in claim.compare:
        table = document.table(claim, compare)
        columns = (
            [tuple(compare.columns)] if compare.range_over else [(c,) for c in compare.columns]
        )
        printed = iter(compare.published)
        for left, right in compare.pairs:
            for keys in columns:
                found.append(_part(table, compare, left, right, keys, next(printed, None)))
    return found


def _part(
    table: Table, compare: Compare, left: str, right: str, keys: tuple[str, ...], text: str | None
) -> Part:
    if compare.range_over:
        return Part(table, compare, left, right, keys, text)
    figures = {f.row: f for f in table.figures if f.column == keys[0]}
    one, other = figures[left], figures[right]
    if text is None and one.value is not None and other.value is not None:
        text = f"{float(one.value) - float(other.value):.2f}"
    return Part(table, compare, left, right, keys, text, _error(one, other), _mixed(one, other))


def _error(one: Figure, other: Figure) -> float | None:
    known = PUBLISHED.get(one.data or "")
    if one.kind not in ACCURACY or known is None or one.value is None or other.value is None:
        return None
    images = known.images // HELD_OUT if known.train is None else known.images - known.train
    shares = (float(figure.value or 0) / 100 for figure in (one, other))
    return 100 * sqrt(sum(share * (1 - share) / images for share in shares))


def _mixed(one: Figure, other: Figure) -> str:
    """Whose numbers they are, where one recipe cannot be behind both."""
    names = [_whose(figure) for figure in (one, other)]
    return "" if "" in names or names[0] == names[1] else " against ".join(names)


def _whose(figure: Figure) -> str:
    if figure.origin is None or figure.origin.kind == "unknown":
        return ""
    # behind the comma: the table or row of one and the same source
    source = figure.origin.citation.partition(", ")[0]
    return source if figure.origin.kind == "quoted" else "the document's own"
