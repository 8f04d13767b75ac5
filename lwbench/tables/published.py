"""Published tables as data: `conf/table/<document>/<table>.yaml`, or a YAML file of the user's.

A table's rows are command lines (`run`: what one types after `lwbench train`), its cells are the
numbers as printed, in quotes, so that `90.00` keeps its zero. Everything is checked on loading;
what is wrong is a UsageError that names the file and the row. Keys:

    source      what the table is
    count       {rule, num_classes, image_size}: how parameters and MACs were counted
    select      best | final | unstated: which epoch the accuracies are of
    experiment  the recipe of every row, conf/experiment/<name>.yaml
    baseline    label of the row that others are compared with; the first, if silent
    columns     key -> {kind, data}; parameters and MACs, if silent
    marks       headers of the columns of check marks: which component a row has
    rows        label, run, marks, and a cell per column key: a number, or {value, digits, note ...}
    notes       remarks on the whole table

A row or a cell may set rule, num_classes, image_size, run (a cell), note and fit. `image_size=` in
a run counts too. `digits`: how many of the printed digits are significant, where zeros were padded.
`misprint` and `fit` give their reason.
"""

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ..errors import UsageError, nearest
from ..paths import conf_folder

COMPLEXITY = ("params", "macs")
ACCURACY = ("top1", "top1_error", "top5", "top5_error")
KINDS = (*COMPLEXITY, *ACCURACY, "speed", "map")
CHECK = "x"  # a mark that every font and terminal has
# names of measure.rules, which imports torch; a test holds the two together
RULES = ("plain", "conv_only", "thop2020", "torchstat")

_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?(e[0-9]{1,2})?")
Checked = TypeVar("Checked", bound=BaseModel)


@dataclass(frozen=True)
class Figure:
    """One cell: the number as printed, how it was counted, and what would obtain it here."""

    row: str
    column: str
    kind: str  # one of KINDS
    data: str | None  # data set of an accuracy
    value: str | None  # as printed, in base units or percent; None where nothing is published
    digits: int | None  # significant ones of the printed digits; None: all
    rule: str
    num_classes: int
    image_size: int
    run: tuple[str, ...] | None  # overrides of the row; None: nothing here can run it
    train: tuple[str, ...] | None  # the run with its data set and recipe
    note: str
    misprint: str  # why the printed number is wrong; "" if it is not
    fit: str  # why the network is a fit; "" if it is not

    @property
    def model(self) -> tuple[str, ...]:
        """The overrides of the run that change the network."""
        keys = ("model=", "model.")
        return tuple(part for part in self.run or () if part.lstrip("+~").startswith(keys))

    @property
    def quantum(self) -> Decimal:
        """The unit of the last significant digit: 1e5 for `63.4e6`. Needs a value."""
        printed = Decimal(self.value or "0")
        last = int(printed.as_tuple().exponent)
        return Decimal(1).scaleb(last if self.digits is None else _last(printed, self.digits))


@dataclass(frozen=True)
class Table:
    """A published table, or a user's own."""

    name: str  # ldc/4; the file's name without .yaml for a user's table
    source: str
    select: str
    baseline: str
    columns: dict[str, "Column"]
    rows: tuple[str, ...]
    figures: tuple[Figure, ...]  # row by row
    notes: tuple[str, ...]
    # what sets the rows apart: header -> a text per row; a check mark or nothing, if published
    marks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def names() -> list[str]:
    """The published tables' names: dcnn/5-10 and so on, in the order of documents and numbers."""
    folder = conf_folder() / "table"
    found = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml"))
    return sorted((path.as_posix() for path in found), key=_natural)


def load(name: str) -> list[Table]:
    """The table of that name, all of them (`all`), or those of a YAML file or folder.

    Raises UsageError where there is no such table or where something in it is wrong.
    """
    if name == "all":
        return [table for one in names() for table in load(one)]
    if name in names():
        return [_read(conf_folder() / "table" / f"{name}.yaml", name)]
    path = Path(name)
    if path.is_dir():
        files = sorted(path.rglob("*.yaml"))
        if not files:
            raise UsageError(f"table={name}: no .yaml file in this folder")
        return [_read(file, file.relative_to(path).with_suffix("").as_posix()) for file in files]
    if path.suffix in (".yaml", ".yml"):
        return [_read(path, path.stem)]
    raise UsageError(
        f"no table {name!r}{nearest(name, [*names(), 'all'])}; or the path of a YAML file"
    )


# --- what a file may hold -----------------------------------------------------------------------


def _known(what: str, words: Callable[[], tuple[str, ...]]) -> AfterValidator:
    def check(word: str) -> str:
        if word not in words():
            raise ValueError(f"no {what} {word!r}{nearest(word, words())}")
        return word

    return AfterValidator(check)


@cache
def _options(group: str) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in (conf_folder() / group).glob("*.yaml")))


def _number(text: str) -> str:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is no number such as 2.51e6 or 67.97")
    return text


def _overrides(text: str) -> str:
    parts = shlex.split(text)  # ValueError where quotes do not match
    if odd := [part for part in parts if "=" not in part]:
        raise ValueError(f"{odd[0]!r} is no key=value")
    models = [part.partition("=")[2] for part in parts if part.startswith("model=")]
    if unknown := [model for model in models if model not in _options("model")]:
        raise ValueError(f"no model {unknown[0]!r}{nearest(unknown[0], _options('model'))}")
    return text


Rule = Annotated[str, _known("rule", lambda: RULES)]
Run = Annotated[str, AfterValidator(_overrides)]
Whole = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Column(_Strict):
    """What a column holds, and on which data."""

    kind: Annotated[str, _known("kind", lambda: KINDS)]
    data: str | None = None


class _Count(_Strict):
    rule: Rule = "plain"
    num_classes: Whole = 1000
    image_size: Whole = 224


class _Override(_Strict):
    rule: Rule | None = None
    num_classes: Whole | None = None
    image_size: Whole | None = None
    run: Run | None = None
    note: str = ""
    fit: str = ""


class _Row(_Override):
    label: Annotated[str, Field(min_length=1)]
    marks: list[str] = []


class _Cell(_Override):
    value: Annotated[str, AfterValidator(_number)] | None = None
    digits: Whole | None = None
    misprint: str = ""


class _File(_Strict):
    source: str = ""
    count: _Count = _Count()
    select: Literal["best", "final", "unstated"] = "final"
    experiment: Annotated[str, _known("experiment", lambda: _options("experiment"))] | None = None
    baseline: str | None = None
    columns: dict[str, Column] = {kind: Column(kind=kind) for kind in COMPLEXITY}
    marks: list[str] = []
    rows: Annotated[list[dict[str, Any]], Field(min_length=1)]
    notes: list[str] = []


# --- from file to table -------------------------------------------------------------------------


def _read(path: Path, name: str) -> Table:
    file = _parsed(_File, _yaml(path), str(path))
    _check_columns(file, path)
    rows: dict[str, list[Figure]] = {}
    marks: dict[str, list[str]] = {mark: [] for mark in file.marks}
    for number, content in enumerate(file.rows, 1):
        label = content.get("label")
        where = f"{path}, row {label if isinstance(label, str) else number!r}"
        row = _parsed(_Row, {k: v for k, v in content.items() if k not in file.columns}, where)
        if row.label in rows:
            raise UsageError(f"{where}: a second row of this label")
        if unknown := [mark for mark in row.marks if mark not in marks]:
            raise UsageError(f"{where}: no mark {unknown[0]!r}{nearest(unknown[0], marks)}")
        for mark, texts in marks.items():
            texts.append(CHECK if mark in row.marks else "")
        rows[row.label] = [
            _figure(file, row, key, content.get(key, {}), f"{where}, {key}") for key in file.columns
        ]
    if file.baseline is not None and file.baseline not in rows:
        raise UsageError(
            f"{path}: no row {file.baseline!r} (baseline){nearest(file.baseline, rows)}"
        )
    return Table(
        name=name,
        source=file.source or name,
        select=file.select,
        baseline=file.baseline or next(iter(rows)),
        columns=file.columns,
        rows=tuple(rows),
        figures=tuple(figure for row in rows.values() for figure in row),
        notes=tuple(file.notes),
        marks={mark: tuple(texts) for mark, texts in marks.items()},
    )


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from None
    except Exception as error:  # PyYAML lets many kinds through: a day 99, too deep a nesting
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())[:300]}") from None


def _parsed(model: type[Checked], content: Any, where: str) -> Checked:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    if problem["type"] == "extra_forbidden":
        raise UsageError(
            f"{where}: unknown key or column {key!r}{nearest(key, model.model_fields)}"
        )
    reason = problem["msg"].removeprefix("Value error, ")
    raise UsageError(f"{where}: {key}: {reason}" if key else f"{where}: {reason}")


def _check_columns(file: _File, path: Path) -> None:
    for key, column in file.columns.items():
        where = f"{path}, column {key!r}"
        if key in _Row.model_fields:
            raise UsageError(f"{where}: a row's own key, choose another name")
        if column.kind in ACCURACY and column.data not in _options("data"):
            known = nearest(str(column.data), _options("data"))
            raise UsageError(f"{where}: {column.kind} of data set {column.data!r}{known}")


def _figure(file: _File, row: _Row, key: str, content: Any, where: str) -> Figure:
    if isinstance(content, int | float):
        raise UsageError(f'{where}: quote the number as printed, as in "63.4e6"')
    cell = _parsed(_Cell, {"value": content} if isinstance(content, str) else content, where)
    _check_digits(cell, where)
    column = file.columns[key]
    text = cell.run or row.run
    if text is None and column.kind in (*COMPLEXITY, *ACCURACY):
        raise UsageError(f'{where}: the row has no run, such as run: "model=ldc3"')
    run = None if text is None else tuple(shlex.split(text))
    size = cell.image_size or row.image_size or _image_size(run or (), where)
    return Figure(
        row=row.label,
        column=key,
        kind=column.kind,
        data=column.data,
        value=cell.value,
        digits=cell.digits,
        rule=cell.rule or row.rule or file.count.rule,
        num_classes=cell.num_classes or row.num_classes or file.count.num_classes,
        image_size=size or file.count.image_size,
        run=run,
        train=_train(run, column, file.experiment, where),
        note="; ".join(note for note in (cell.note, row.note) if note),
        misprint=cell.misprint,
        fit=cell.fit or row.fit,
    )


def _train(
    run: tuple[str, ...] | None, column: Column, experiment: str | None, where: str
) -> tuple[str, ...] | None:
    if run is None or column.kind not in ACCURACY:
        return None
    if any(part.startswith("data=") for part in run):
        raise UsageError(f"{where}: the column says the data set, run may not")
    named = any(part.startswith("experiment=") for part in run)
    recipe = () if named or experiment is None else (f"experiment={experiment}",)
    return (*run, f"data={column.data}", *recipe)


def _image_size(run: tuple[str, ...], where: str) -> int | None:
    for part in run:
        key, _, value = part.partition("=")
        if key == "image_size":
            if not value.isdigit() or int(value) == 0:
                raise UsageError(f"{where}: {part}: a number of pixels")
            return int(value)
    return None


def _check_digits(cell: _Cell, where: str) -> None:
    if cell.digits is None:
        return
    printed = Decimal(cell.value or "0")
    unit = Decimal(1).scaleb(_last(printed, cell.digits))
    if cell.digits > len(printed.as_tuple().digits) or printed % unit:
        raise UsageError(f"{where}: {cell.value} has no {cell.digits} digits and zeros after them")


def _last(printed: Decimal, digits: int) -> int:
    return printed.adjusted() - digits + 1


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """5-2 before 5-10."""
    return [
        (part.isdigit(), int(part) if part.isdigit() else 0, part)
        for part in re.split(r"(\d+)", name)
    ]
