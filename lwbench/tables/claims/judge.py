"""The verdict of every claim: by counting, by runs under a named recipe, or why there is none."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ...runs.records import Record
from ...runs.runconfig import Overrides
from ..cells import FilledTable, Word
from . import counting, testing
from .claim import Claim, Document
from .counting import Checked
from .designs import Design
from .printed import Part, parts
from .testing import CONTRADICTED, SUPPORTED, UNDECIDED, Outcome

WORDS = {
    "holds": Word("=", "good", "every count is as claimed"),
    "holds in part": Word("≈", "near", "some counts are as claimed"),
    "does not hold": Word("✗", "bad", "no count is as claimed"),
    "not decidable": Word("-", "quiet", "what would have to be counted is not known"),
    SUPPORTED: Word("✓", "good", "shown by runs here, with p corrected over the document's claims"),
    CONTRADICTED: Word("✗", "bad", "the opposite is shown by runs here"),
    UNDECIDED: Word("?", "odd", "the runs so far show neither"),
    "not comparable": Word("≠", "odd", "the printed numbers are of different recipes; no run here"),
    "needs": Word("·", "quiet", "the data set is not at hand; no run here"),
}
Studies = Mapping[Overrides, Mapping[str, FilledTable]]  # by overrides and name of the table


@dataclass(frozen=True)
class Judged:
    """A claim with what its document prints and what was counted and measured here."""

    document: Document
    claim: Claim
    parts: Sequence[Part]
    checks: Sequence[Checked]
    studies: Mapping[Overrides, Sequence[Outcome]]  # with an outcome per part
    missing: frozenset[str] = field(default=frozenset())  # data sets that are not at hand
    asked: Overrides = ()  # those of the one study that was asked for

    @property
    def id(self) -> str:
        """`ldc/ldc0-gain`."""
        return f"{self.document.name}/{self.claim.id}"

    @cached_property
    def recipe(self) -> Overrides | None:
        """The overrides of the study behind the verdict: the full recipe's, else the largest's."""
        tested = {
            overrides: sum(one.n for one in outcomes)
            for overrides, outcomes in self.studies.items()
            if any(one.n for one in outcomes)
        }
        return max(tested, key=lambda o: (not o, tested[o]), default=None)

    @property
    def outcomes(self) -> Sequence[Outcome]:
        """Those of the study behind the verdict."""
        return () if self.recipe is None else self.studies[self.recipe]

    @property
    def verdict(self) -> str:
        """One of WORDS; `needs` is followed by the data set."""
        if self.claim.kind == "cost":
            return counting.verdict(list(self.checks))
        if self.outcomes:
            return testing.combined([one.verdict for one in self.outcomes])
        if any(part.mixed for part in self.parts):
            return "not comparable"
        needed = dict.fromkeys(data for part in self.parts for data in part.data)
        if needed and all(data in self.missing for data in needed):
            return f"needs {', '.join(needed)}"
        return UNDECIDED

    @property
    def word(self) -> str:
        """The verdict as a key of WORDS."""
        return "needs" if self.verdict.startswith("needs ") else self.verdict

    @property
    def reason(self) -> str:
        """What the verdict rests on, where it is no decision by runs."""
        if self.claim.open:
            return self.claim.open
        if self.claim.kind == "cost" or self.outcomes:
            return ""
        mixed = dict.fromkeys(part.mixed for part in self.parts if part.mixed)
        return f"{'; '.join(mixed)}; no run yet" if mixed else "no run yet"

    @property
    def as_printed(self) -> bool | None:
        """Whether the document's own numbers satisfy the claim; None where it prints none."""
        found = [part.is_as_printed for part in self.parts]
        return None if not found or None in found else all(found)

    @property
    def runs(self) -> list[Record]:
        """The runs behind the verdict, each once."""
        return list({r.run.path: r for one in self.outcomes for r in one.runs}.values())

    @property
    def command(self) -> str:
        """What adds the runs that would decide it."""
        if not self.parts or all(data in ("", "coco") for p in self.parts for data in p.data):
            return ""
        claims = f"claims={self.document.given}/{self.claim.id}"
        overrides = self.recipe or self.asked
        return f"lwbench reproduce {shlex.join([claims, 'until=decided', *overrides])}"

    def as_json(self) -> dict[str, Any]:
        """The claim for programs."""
        return {
            "id": self.id,
            "kind": self.claim.kind,
            "verdict": self.verdict,
            "says": self.claim.says,
            "place": self.claim.place,
            "reason": self.reason,
            "recipe": recipe_name(self.recipe) if self.recipe is not None else None,
            "as_printed": self.as_printed,
            "contradiction": self.claim.contradiction,
            "note": self.claim.note,
            "decide": self.claim.decide,
            "command": self.command,
            "checks": [
                {"that": one.check.that, "holds": one.holds, "left": one.left, "right": one.right}
                for one in self.checks
            ],
            "printed": [
                {
                    "comparison": part.name,
                    "difference": None if part.published is None else float(part.published),
                    "standard_error": part.error,
                    "evidence": part.evidence or None,
                }
                for part in self.parts
            ],
            "studies": [
                {"recipe": recipe_name(overrides), "outcomes": [_outcome(one) for one in outcomes]}
                for overrides, outcomes in self.studies.items()
            ],
            "runs": [str(record.run.path) for record in self.runs],
        }


def recipe_name(overrides: Overrides) -> str:
    """`full`, or `reduced: epochs=10 image_size=32`."""
    return f"reduced: {' '.join(overrides)}" if overrides else "full"


def judged(
    document: Document,
    counts: counting.Known,
    studies: Studies,
    designs: Sequence[Design] = (),
    is_missing: Callable[[str], bool] = lambda data: False,
    asked: Overrides = (),
) -> list[Judged]:
    """Every claim of a document with its verdict; `asked`: overrides of the one study asked for.

    The tests of a document's claims under one recipe are one family: their p is corrected together.
    """
    found = {claim.id: parts(document, claim) for claim in document.claims}
    by_study: dict[Overrides, dict[str, list[Outcome]]] = {}
    for overrides, tables in studies.items():
        places, outcomes = [], []
        for identifier, some in found.items():
            for part in some:
                filled = tables.get(part.table.name)
                places.append(identifier)
                outcomes.append(testing.outcome(part, filled, designs) if filled else Outcome(part))
        for identifier, one in zip(places, testing.corrected(outcomes), strict=True):
            by_study.setdefault(overrides, {}).setdefault(identifier, []).append(one)
    sets = {data for some in found.values() for part in some for data in part.data}
    missing = frozenset(data for data in sets if is_missing(data))
    return [
        Judged(
            document,
            claim,
            found[claim.id],
            counting.checked(document, claim, counts),
            {
                overrides: some[claim.id]
                for overrides, some in by_study.items()
                if any(one.n for one in some.get(claim.id, ()))
            },
            missing,
            asked,
        )
        for claim in document.claims
    ]


def _outcome(one: Outcome) -> dict[str, Any]:
    return {
        "comparison": one.part.name,
        "verdict": one.verdict,
        "difference": one.difference,
        "interval": None if one.interval is None else list(one.interval),
        "p": one.p,
        "p_corrected": one.corrected,
        "p_fixed_n": one.p_fixed,
        "n": one.n,
        "seeds": list(one.seeds),
    }
