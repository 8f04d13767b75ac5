"""Designs of studies that grow until they are decided: recorded before the first run, then fixed.

`<out>/studies/<name>/design.json` has alpha, the largest number of seeds and every comparison with
the identities of both runs, by which tables and claims recognise it: their verdicts then come from
an always-valid p. Designs of archived runs are under `<out>/measured/studies`.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import UsageError
from ...runs.files import read_json, write_json
from ...runs.provenance import utc_now
from ...runs.records import ARCHIVE
from .sequential import FIRST, LARGEST, e_process_p, sequential_p

FOLDER = "studies"


@dataclass(frozen=True)
class Design:
    """How a study is grown: `most` seeds at the most, None where no number is set."""

    alpha: float
    most: int | None
    comparisons: frozenset[tuple[str, str]] = frozenset()  # identities of both runs, sorted

    def covers(self, one: str, other: str) -> bool:
        """Whether seeds are added to these two configurations until they are decided."""
        return pair(one, other) in self.comparisons

    def p(self, differences: Sequence[float]) -> float:
        """The always-valid p-value of mean zero, of pairs in seed order."""
        if self.most is None:
            return e_process_p(differences)
        return sequential_p(differences, self.most)

    @property
    def method(self) -> str:
        """The name of the test."""
        if self.most is None:
            return "t e-process, no largest number of seeds"
        return f"sequential paired t-test, cubic alpha spending up to {self.most} seeds"


class _Comparison(BaseModel):
    model_config = ConfigDict(frozen=True)
    name: str
    identities: tuple[str, str]


class _Recorded(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    alpha: Annotated[float, Field(gt=0, le=0.5)]
    max_seeds: Annotated[int, Field(ge=FIRST, le=LARGEST)] | None
    comparisons: tuple[_Comparison, ...]

    @property
    def design(self) -> Design:
        pairs = frozenset(pair(*one.identities) for one in self.comparisons)
        return Design(self.alpha, self.max_seeds, pairs)


def pair(one: str, other: str) -> tuple[str, str]:
    """Two identities, sorted."""
    return min(one, other), max(one, other)


def files(out: Path, *, archived: bool = True) -> list[Path]:
    """The files of the designs under a folder of runs: local ones, then archived ones."""
    places = (out, out / ARCHIVE) if archived else (out,)
    return [path for place in places for path in sorted((place / FOLDER).glob("*/design.json"))]


def recorded(out: Path) -> list[Design]:
    """The designs under a folder of runs, local and archived. Damaged files are left out."""
    found = (_read(path) for path in files(out))
    return [one.design for one in found if one is not None]


def record(
    out: Path, alpha: float, most: int | None, comparisons: Iterable[tuple[str, tuple[str, str]]]
) -> tuple[Design, Path]:
    """Record the design of a study before its first run, or find it again.

    `comparisons`: a name and the identities of both runs. Raises UsageError where the study was
    begun with another alpha or largest number of seeds.
    """
    new = _Recorded(
        alpha=alpha,
        max_seeds=most,
        comparisons=tuple(_Comparison(name=n, identities=pair(*ids)) for n, ids in comparisons),
    )
    text = json.dumps(sorted(one.identities for one in new.comparisons))
    name = Path(FOLDER, hashlib.sha256(text.encode()).hexdigest()[:8], "design.json")
    # a study whose first runs are archived goes on by its design, which is archived with them
    places = [out / name, out / ARCHIVE / name]
    path = next((place for place in places if place.exists()), places[0])
    if path.exists():
        earlier = _read(path)
        if earlier is None:
            raise UsageError(f"{path} is damaged; what was fixed before the first run is not known")
        if (earlier.alpha, earlier.max_seeds) != (alpha, most):
            raise UsageError(
                f"this study was begun with alpha={earlier.alpha:g} max_seeds={earlier.max_seeds} "
                f"({path})\na design is fixed before the first run: give the same values"
            )
        return new.design, path
    path.parent.mkdir(parents=True, exist_ok=True)
    content = new.model_dump(mode="json") | {"method": new.design.method, "recorded": utc_now()}
    write_json(path, content)
    return new.design, path


def _read(path: Path) -> _Recorded | None:
    try:
        return _Recorded.model_validate(read_json(path))
    except ValidationError:
        return None
