"""Lay out claims: lines for a terminal, a table for the other formats and the report."""

import textwrap
from collections.abc import Sequence

from ...errors import plural
from ..layout import Entry, Header, Layout
from ..statistics import ALPHA
from .judge import WORDS, Judged, recipe_name
from .printed import Part
from .testing import Outcome

COLUMNS = ("claim", "kind", "verdict", "rests on", "as printed", "what is claimed")
REMARKS = (
    "Claims of cost are decided by counting, under the rule of the document's table.",
    "Claims of accuracy are decided by runs: paired t-tests over common seeds, two one-sided tests "
    f"where rows are claimed to be equal; p corrected for all claims of a document (Holm), alpha "
    f"{ALPHA}. A reduced recipe says how networks compare under it, and confirms or refutes no "
    "published figure.",
    "Printed differences stand beside their standard error: that of two proportions of as many "
    "test images, one run each. One run on 10,000 images cannot show 0.05 points.",
)


def of_claims(found: Sequence[Judged]) -> Layout:
    """A row per claim."""
    rows = []
    for one in found:
        verdict = Entry(one.verdict) if one.word == "needs" else Entry(word=one.word)
        printed = "" if one.as_printed is None else "yes" if one.as_printed else "no"
        rows.append(
            [
                Entry(one.id),
                Entry(one.claim.kind),
                verdict,
                Entry(basis(one)),
                Entry(printed),
                Entry(one.claim.says),
            ]
        )
    parts = ("label", *["text"] * 5)
    headers = list(map(Header, COLUMNS, parts))
    words = [word for word in WORDS if any(one.word == word for one in found)]
    legend = [f"{word}: {WORDS[word].meaning}." for word in words]
    return Layout("claims", "", headers, rows, (*legend, *REMARKS))


def basis(one: Judged) -> str:
    """What the verdict rests on, in a few words."""
    if one.recipe is not None:
        pairs = [outcome.n for outcome in one.outcomes if outcome.n]
        text = f"{plural(min(pairs), 'pair')} of runs"
        if len(pairs) < len(one.outcomes):
            text += f" for {len(pairs)} of {len(one.outcomes)} comparisons"
        return f"{text}, {recipe_name(one.recipe)}"
    if one.claim.kind == "cost" and one.checks and one.word != "not decidable":
        held = sum(bool(check.holds) for check in one.checks)
        return f"{held} of {len(one.checks)} counts"
    return one.reason


def line(one: Judged, width: int) -> str:
    """`ldc/ldc0-gain  accuracy  undecided  The low-cost ...`, at most `width` characters."""
    verdict = one.verdict if len(one.verdict) <= 16 else "needs data sets"
    start = f"{one.id:<18} {one.claim.kind:<9} {verdict:<16} "
    return start + textwrap.shorten(one.claim.says, max(20, width - len(start)), placeholder=" ...")


def details(one: Judged) -> list[str]:
    """Everything that is known of a claim, a sentence a line."""
    place = f" ({one.claim.place})" if one.claim.place else ""
    lines = [f"{one.claim.says}{place}"]
    lines += [str(check) for check in one.checks]
    lines += [text for part in one.parts if (text := printed(part))]
    for overrides, outcomes in one.studies.items():
        lines += [f"{recipe_name(overrides)}: {measured(o)}" for o in outcomes if o.n]
    if one.claim.contradiction:
        lines.append(f"contradicts its document: {one.claim.contradiction}")
    lines += [text for text in (one.claim.note, one.reason) if text]
    if one.word in ("undecided", "not comparable", "needs"):
        if one.claim.decide:
            lines.append(f"would be decided by: {one.claim.decide}")
        if one.command:
            lines.append(f"runs: {one.command}")
    return lines


def printed(part: Part) -> str:
    """`printed LDC0 > mb0, cifar10_top1: +1.07, 2.5 standard errors of 0.43 (clear)`."""
    if part.published is None:
        return ""
    text = f"printed {part.name}: {float(part.published):+.2f}"
    if part.error is not None and part.in_errors is not None:
        text += f", {abs(part.in_errors):.1f} standard errors of {part.error:.2f}"
    whose = f": {part.mixed}" if part.mixed else ""
    return f"{text} ({part.evidence}{whose})" if part.evidence else text


def measured(one: Outcome) -> str:
    """`LDC0 > mb0, cifar10_top1: +4.97 [-0.25, 10.19], p 0.055, corrected 0.33, 3 pairs`."""
    text = f"{one.part.name}: {one.difference:+.2f}"
    if one.interval is None or one.p is None or one.corrected is None:
        return f"{text}, {plural(one.n, 'pair')}: too few"
    low, high = one.interval
    text += f" [{low:+.2f}, {high:+.2f}], p {one.p:.3g}, corrected {one.corrected:.3g}"
    if one.p_fixed is not None:
        text += f" (always valid; for a fixed number of seeds {one.p_fixed:.3g})"
    return f"{text}, {plural(one.n, 'pair')}: {one.verdict}"
