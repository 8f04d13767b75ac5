"""The claims on the report's page: a row per claim, which opens to its evidence and its runs."""

from collections.abc import Sequence
from dataclasses import replace

from ..tables.claims import listing
from ..tables.claims.judge import Judged
from .page import Details, Section
from .runview import view

MOST_RUNS = 30  # that a claim lists; each is shown in full with the table that it belongs to


def section(found: Sequence[Judged], select: str) -> Section:
    """The table of claims."""
    layout = replace(listing.of_claims(found), source="what the documents claim")
    return Section(layout, [_details(one, select) for one in found])


def _details(one: Judged, select: str) -> Details:
    runs = one.runs
    left_out = len(runs) - MOST_RUNS
    notes = listing.details(one) + ([f"and {left_out} more runs"] if left_out > 0 else [])
    return Details(
        notes=notes,
        runs=[view(record, select, False) for record in runs[:MOST_RUNS]],
        commands=[("the runs that it needs", one.command)] if one.command else [],
    )
