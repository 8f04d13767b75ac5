"""Decide claims by counting: whether each check of a claim holds, with both of its numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from ..cells import CountRequest, Counts
from . import expressions
from .claim import Check, Claim, Document

Known = Mapping[CountRequest, Counts]


@dataclass(frozen=True)
class Checked:
    """A check with its two numbers; `holds` is None where a count is missing."""

    check: Check
    left: float | None = None
    right: float | None = None
    holds: bool | None = None

    def __str__(self) -> str:
        """`2.1 M more MACs: yes (2.083e+06, 2.1e6)`."""
        word = {True: "yes", False: "no", None: "a count is missing"}[self.holds]
        if self.left is None or self.right is None:
            return f"{self.check.that}: {word}"
        right = self.check.right if self.check.relation == "prints" else f"{self.right:.6g}"
        return f"{self.check.that}: {word} ({self.left:.6g} {self.check.relation} {right})"


def requests(document: Document) -> list[CountRequest]:
    """The networks that the checks of the document's claims need, each once."""
    found = {
        _network(document, claim, label, quantity)[0]: None
        for claim in document.claims
        for check in claim.checks
        for text in (check.left, check.right)
        for quantity, label in expressions.references(text)
    }
    return list(found)


def checked(document: Document, claim: Claim, counts: Known) -> list[Checked]:
    """Every check of a claim, decided."""

    def lookup(quantity: str, label: str) -> float:
        request, rule = _network(document, claim, label, quantity)
        found = counts[request]  # KeyError: the network could not be counted
        if quantity == "macs":
            return found["macs"][rule]
        return float(found[quantity])  # type: ignore[literal-required]

    results = []
    for check in claim.checks:
        try:
            left, right = (expressions.value(text, lookup) for text in (check.left, check.right))
            results.append(Checked(check, left, right, _holds(check, left, right)))
        except (KeyError, ValueError):
            results.append(Checked(check))
    return results


def verdict(results: list[Checked]) -> str:
    """`holds`, `does not hold`, `holds in part`, or `not decidable`."""
    if not results or any(one.holds is None for one in results):
        return "not decidable"
    words = {one.holds for one in results}
    return "holds in part" if len(words) == 2 else "holds" if True in words else "does not hold"


def _holds(check: Check, left: float, right: float) -> bool:
    if check.relation == "prints":
        printed = Decimal(check.right)
        unit = Decimal(1).scaleb(int(printed.as_tuple().exponent))
        return Decimal(left).quantize(unit, ROUND_HALF_UP) == printed
    if check.relation == "~":
        return abs(left - right) <= (check.margin or 0.0) * abs(right)
    return {
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
        "==": left == right,
    }[check.relation]


def _network(
    document: Document, claim: Claim, label: str, quantity: str
) -> tuple[CountRequest, str]:
    """What to count for a label, and the rule of its MACs."""
    if network := document.networks.get(label):
        model = tuple(network.run.split())
        return CountRequest(model, network.num_classes, network.image_size), network.rule
    figures = [figure for figure in document.table(claim).figures if figure.row == label]
    # the MACs of a row may be of another network than its parameters (hsnet/4, VGG16)
    wanted = quantity if quantity == "params" else "macs"
    figure = next((f for f in figures if f.kind == wanted), figures[0])
    return CountRequest(figure.model, figure.num_classes, figure.image_size), figure.rule
