"""Which way of counting gives a printed figure: candidates, ranked by printed digits matched."""

import re
from collections.abc import Iterable, Mapping
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any, Literal, NamedTuple

from ..errors import UsageError
from ..tables.cells import CountRequest, Counts

Quantity = Literal["params", "macs", "flops"]
SUFFIXES = {"": 0, "k": 3, "m": 6, "g": 9, "b": 9, "t": 12}
_FIGURE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(?:e\+?([0-9]{1,2}))?\s?([kKmMgGbBtT]?)")


class Printed(NamedTuple):
    """A figure as printed: its value, and how many of its digits are significant."""

    value: Decimal
    digits: int

    def unit(self, digits: int) -> Decimal:
        """The unit of the last of the first `digits` significant digits."""
        return Decimal(1).scaleb(self.value.adjusted() - digits + 1)


class Candidate(NamedTuple):
    """One way of counting one form of a network, and how well it meets the printed figure."""

    digits: int  # leading printed digits that it has, rounded or cut
    is_cut: bool  # it has them all, but only if it is cut instead of rounded
    value: int
    unit: str  # parameters, MACs, or FLOPs at 2 per MAC
    rule: str  # "" for parameters
    request: CountRequest


def printed(text: str, key: str) -> Printed:
    """Read a figure such as 54.1M, 2.35e6 or 4.09G; zeros behind the point count as digits.

    Raises UsageError for anything else, and for zero.
    """
    match = _FIGURE.fullmatch(text.strip())
    mantissa = Decimal(match[1]) if match else Decimal(0)
    if match is None or not mantissa:
        raise UsageError(f"{key}={text}: expected a figure as printed, such as 54.1M or 4.09G")
    power = int(match[2] or 0) + SUFFIXES[match[3].lower()]
    return Printed(mantissa.scaleb(power), len(mantissa.as_tuple().digits))


def candidates(
    figure: Printed, quantity: Quantity, counts: Mapping[CountRequest, Counts]
) -> list[Candidate]:
    """Return every reading of the counts, the one with most printed digits first.

    A figure that is called MACs may be FLOPs and the other way round, since papers use both words
    for both. Readings with the same digits are ordered by the distance to the figure.
    """
    if quantity == "params":  # which no image size changes
        of_form = {(r.model, r.num_classes, r.is_deployed): r for r in reversed(list(counts))}
        counts = {request: counts[request] for request in reversed(list(of_form.values()))}
    found = [
        Candidate(*_matched(figure, count), count, unit, rule, request)
        for request, counted in counts.items()
        for unit, rule, count in _readings(quantity, counted)
    ]
    return sorted(found, key=lambda c: (-c.digits, c.is_cut, abs(c.value - figure.value)))


def best(found: list[Candidate]) -> list[Candidate]:
    """Return the candidates that are ranked first: those that tie by digits matched."""
    return [c for c in found if (c.digits, c.is_cut) == (found[0].digits, found[0].is_cut)]


def _readings(quantity: Quantity, counted: Counts) -> Iterable[tuple[str, str, int]]:
    if quantity == "params":
        return [("parameters", "", counted["params"])]
    macs = [("MACs", rule, count) for rule, count in counted["macs"].items()]
    return [*macs, *(("FLOPs, 2 per MAC", rule, 2 * count) for _, rule, count in macs)]


def _matched(figure: Printed, count: int) -> tuple[int, bool]:
    """Return how many leading digits agree, and whether all do only if the count is cut."""
    ours = Decimal(count)
    if _at(ours, figure, figure.digits) == _at(figure.value, figure, figure.digits):
        return figure.digits, False
    if _at(ours, figure, figure.digits, ROUND_DOWN) == figure.value:
        return figure.digits, True
    for digits in range(figure.digits - 1, 0, -1):
        if _at(ours, figure, digits) == _at(figure.value, figure, digits):
            return digits, False
    return 0, False


def _at(value: Decimal, figure: Printed, digits: int, rounding: str = ROUND_HALF_UP) -> Decimal:
    """A value in units of the figure's digit of that place."""
    unit = figure.unit(digits)
    return (value / unit).quantize(Decimal(1), rounding) * unit


def row(candidate: Candidate, figure: Printed, rank: int) -> dict[str, Any]:
    """A candidate as plain data, with every number in a field of its own."""
    request = candidate.request
    return {
        "rank": rank,
        "digits_matched": candidate.digits,
        "digits_printed": figure.digits,
        "is_cut": candidate.is_cut,
        "count": candidate.value,
        "unit": candidate.unit,
        "rule": candidate.rule,
        "image_size": request.image_size,
        "num_classes": request.num_classes,
        "form": "deploy" if request.is_deployed else "train",
    }


def ranks(found: list[Candidate]) -> list[int]:
    """Return each candidate's rank; those that tie share one."""
    keys = [(-c.digits, c.is_cut) for c in found]
    return [1 + keys.index(key) for key in keys]
