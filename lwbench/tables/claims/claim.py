"""Claims as data: `conf/claim/<document>.yaml`, or a YAML file of the user's.

Everything is checked while loading; an error names the file and the claim. Keys of a file:

    source    the document
    table     the table that forms refer to unless they name another one; a name or a path
    decide    what would decide a claim unless it says so itself
    rows      label, run: networks that the document does not tabulate, added to its tables
    networks  name -> {run, rule, num_classes, image_size}: others that are only counted
    claims    id, kind (cost, accuracy, speed), says, place; one or more of compare, checks, open

`compare` has comparisons of accuracies or speeds: `left` and `right` rows, or an `order` of rows
each compared with the next; relation (> >= < <= ~); `margin` in points, within which ~, >= and <=
take rows for equal; `columns`; `published` differences, left minus right, pair by pair and in each
column by column; with `range_over`, the range over the columns of the gain over that row is
compared. `checks` has arithmetic over counts: `left` and `right` as in `expressions`, relation
(< <= > >= == ~ prints), `margin` relative; `prints`: rounded, left has the digits of right. `open`
says why a part of the claim can be neither run nor counted.
"""

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ...errors import UsageError, nearest
from ...paths import conf_files
from .. import published
from ..published import Rule, Run, Whole
from ..table import Table
from ..yaml_files import Strict, read_yaml, validated
from . import expressions

SUFFIXES = (".yaml", ".yml")  # of a user's file
KINDS = ("cost", "accuracy", "speed")
Relation = Literal[">", ">=", "<", "<=", "~"]
Expression = Annotated[str, AfterValidator(expressions.parsed)]
Text = Annotated[str, Field(min_length=1)]


def _difference(text: str) -> str:
    float(text)  # raises ValueError
    return text


def _listed(content: Any) -> Any:
    return [content] if isinstance(content, str) else content


Labels = Annotated[list[Text], BeforeValidator(_listed)]
Printed = Annotated[str, AfterValidator(_difference)]


class Compare(Strict):
    """A comparison of rows in columns of a table."""

    table: str | None = None
    left: Labels = []
    right: Labels = []
    order: list[Text] = []
    relation: Relation
    margin: Annotated[float, Field(ge=0, le=100)] = 0.0
    range_over: str | None = None
    columns: Annotated[list[Text], Field(min_length=1)]
    published: list[Printed] = []

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The rows that are compared, left and right."""
        if self.order:
            return list(zip(self.order, self.order[1:], strict=False))
        return [(left, right) for left in self.left for right in self.right]

    @property
    def labels(self) -> set[str]:
        """All rows that it needs."""
        return {*self.left, *self.right, *self.order} | {self.range_over or ""} - {""}

    @model_validator(mode="after")
    def _complete(self) -> "Compare":
        if bool(self.order) == bool(self.left and self.right) or len(self.order) == 1:
            raise ValueError("give left and right, or an order of two rows or more")
        if self.relation == "~" and not self.margin:
            raise ValueError("relation ~ needs a margin")
        expected = len(self.pairs) * (1 if self.range_over else len(self.columns))
        if self.published and len(self.published) != expected:
            raise ValueError(f"{expected} published differences expected")
        return self


class Check(Strict):
    """Arithmetic over counts that holds or does not."""

    that: Text
    left: Expression
    relation: Literal["<", "<=", ">", ">=", "==", "~", "prints"]
    right: Expression
    margin: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Check":
        if (self.relation == "~") != (self.margin is not None):
            raise ValueError("relation ~, and no other one, has a margin")
        if self.relation == "prints":
            _difference(self.right)
        return self


class Network(Strict):
    """A network that is counted though no table has it."""

    run: Run
    rule: Rule = "plain"
    num_classes: Whole = 1000
    image_size: Whole = 224


class Claim(Strict):
    """One claim; see the module for its keys."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    kind: Literal["cost", "accuracy", "speed"]
    says: Text
    place: str = ""
    table: str | None = None
    compare: list[Compare] = []
    checks: list[Check] = []
    open: str = ""
    decide: str = ""
    contradiction: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _complete(self) -> "Claim":
        if not (self.compare or self.checks or self.open):
            raise ValueError("one of compare, checks and open is needed")
        if self.kind == "cost" and self.compare:
            raise ValueError("a claim of cost is decided by checks")
        return self


class _Row(Strict):
    label: Text
    run: Run


class _File(Strict):
    source: str = ""
    table: Text
    decide: str = ""
    rows: list[_Row] = []
    networks: dict[str, Network] = {}
    claims: Annotated[list[dict[str, Any]], Field(min_length=1)]


@dataclass(frozen=True)
class Document:
    """A file of claims with the tables that they refer to."""

    name: str
    source: str
    claims: tuple[Claim, ...]
    tables: dict[str, Table] = field(default_factory=dict)  # by the name that the claims use
    networks: dict[str, Network] = field(default_factory=dict)
    default: str = ""  # of `tables`
    given: str = ""  # how a command names it: a name, or the path of a user's file

    def table(self, claim: Claim, compare: Compare | None = None) -> Table:
        """The table that a comparison, or the checks, of a claim refer to."""
        return self.tables[(compare and compare.table) or claim.table or self.default]

    def part(self, ids: set[str]) -> "Document":
        """The document with the claims of these ids alone."""
        return replace(self, claims=tuple(claim for claim in self.claims if claim.id in ids))


def names() -> list[str]:
    """The documents whose claims are known; those in a folder of --config-dir are among them."""
    return sorted(conf_files("claim"))


def load(name: str) -> list[Document]:
    """The claims of a document, of all (`all`), of a YAML file, or one (`ldc/ldc0-gain`).

    A claim of a file is named as `mine.yaml/gain`. Raises UsageError where there are none of that
    name, or where a file is not valid.
    """
    if name == "all":
        return [_read(one) for one in names()]
    given, identifier = _divided(name)
    if Path(given).suffix in SUFFIXES:
        found = _document(Path(given), Path(given).stem, given)
    elif given in names():
        found = _read(given)
    else:
        raise UsageError(
            f"no claims of {given!r}{nearest(given, [*names(), 'all'])}; or the path of a YAML file"
        )
    known = [claim.id for claim in found.claims]
    if identifier and identifier not in known:
        raise UsageError(f"no claim {name!r}{nearest(identifier, known)}")
    return [found.part({identifier}) if identifier else found]


def families(name: str) -> tuple[list[Document], set[str]]:
    """The whole documents of the claims that `load` names, and the ids of these claims.

    Tests are corrected for all claims of a document, also where a single one is shown.
    """
    shown = {f"{one.name}/{claim.id}" for one in load(name) for claim in one.claims}
    return load(_divided(name)[0]), shown


def _divided(name: str) -> tuple[str, str]:
    """A document or file, and the id of one of its claims or nothing."""
    path = Path(name)
    if path.parent.suffix in SUFFIXES:
        return str(path.parent), path.name
    if path.suffix in SUFFIXES:
        return name, ""
    document, _, identifier = name.partition("/")
    return document, identifier


def _read(name: str) -> Document:
    return _document(conf_files("claim")[name], name, name)


@cache
def _document(path: Path, name: str, given: str) -> Document:
    file = validated(_File, read_yaml(path), str(path))
    claims: dict[str, Claim] = {}
    tables: dict[str, Table] = {}
    for number, content in enumerate(file.claims, 1):
        where = f"{path}, claim {content.get('id', number)!r}"
        claim = validated(Claim, {"decide": file.decide} | content, where)
        if claim.id in claims:
            raise UsageError(f"{where}: an earlier claim has the same id")
        claims[claim.id] = claim
        for table in {claim.table or file.table, *(c.table or "" for c in claim.compare)} - {""}:
            if table not in tables:
                tables[table] = _table(table, path, file)
        one = Document(name, file.source, (claim,), tables, file.networks, file.table)
        _check_names(one, claim, where)
    found = tuple(claims.values())
    return Document(name, file.source or name, found, tables, file.networks, file.table, given)


def _table(name: str, path: Path, file: _File) -> Table:
    beside = path.parent / name
    place = str(beside) if Path(name).suffix in SUFFIXES and beside.is_file() else name
    loaded = published.load(place, [row.model_dump() for row in file.rows])
    if len(loaded) != 1:
        raise UsageError(f"{path}: table {name!r} is not one table")
    return loaded[0]


def _check_names(document: Document, claim: Claim, where: str) -> None:
    """Raise UsageError for a row, column or network that does not exist."""
    for compare in claim.compare:
        table = document.table(claim, compare)
        for label in sorted(compare.labels - set(table.rows)):
            raise UsageError(
                f"{where}: {table.name} has no row {label!r}{nearest(label, table.rows)}"
            )
        for key in compare.columns:
            if key not in table.columns or table.columns[key].kind in ("params", "macs"):
                raise UsageError(
                    f"{where}: {table.name} has no accuracy or speed {key!r}"
                    f"{nearest(key, table.columns)}"
                )
    known = [*document.networks, *document.table(claim).rows]
    for check in claim.checks:
        for text in (check.left, check.right):
            for _, label in expressions.references(text):
                if label not in known:
                    raise UsageError(f"{where}: no row or network {label!r}{nearest(label, known)}")
