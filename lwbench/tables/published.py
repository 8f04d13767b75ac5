"""Published tables as data: `conf/table/<document>/<table>.yaml`, or a YAML file of the user's.

A table's rows are command lines (`run`: what follows `lwbench train`), its cells are the numbers as
printed, in quotes, so that `90.00` keeps its zero. Everything is checked while loading; an error
names the file and the row. Keys:

    source      what the table is
    count       {rule, num_classes, image_size}: how parameters and MACs were counted
    select      best | final | unstated: which epoch the accuracies are of
    experiment  the recipe of every row, conf/experiment/<name>.yaml
    baseline    label of the row that the others are compared with; default: the first row
    columns     key -> {kind, data}; default: parameters and MACs
    marks       headers of the columns of check marks, such as the components that a network has
    rows        label, run, marks, and a cell per column key: a number, or {value, digits, note ...}
    notes       remarks on the whole table

A row or a cell may set rule, num_classes, image_size, run (a cell), note and fit. `image_size=` in
a run counts too. `digits`: how many of the printed digits are significant, where zeros were padded.
`misprint` and `fit` give their reason.
"""

import re
import shlex
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ..errors import UsageError, nearest
from ..paths import conf_folder
from .table import ACCURACY, CHECK, COMPLEXITY, KINDS, RULES, Column, Figure, Table

_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?(e[0-9]{1,2})?")
Checked = TypeVar("Checked", bound=BaseModel)


def names() -> list[str]:
    """The names of the published tables (dcnn/5-10 ...), by document and number."""
    folder = conf_folder() / "table"
    found = (path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml"))
    return sorted((path.as_posix() for path in found), key=_natural)


def load(name: str) -> list[Table]:
    """The table of that name, all of them (`all`), or those of a YAML file or folder.

    Raises UsageError where there is no such table, or where a file is not a valid table.
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
        raise ValueError(f"{text!r} is not a number such as 2.51e6 or 67.97")
    return text


def _overrides(text: str) -> str:
    parts = shlex.split(text)  # raises ValueError where quotes do not match
    if odd := [part for part in parts if "=" not in part]:
        raise ValueError(f"{odd[0]!r} is not of the form key=value")
    models = [part.partition("=")[2] for part in parts if part.startswith("model=")]
    if unknown := [model for model in models if model not in _options("model")]:
        raise ValueError(f"no model {unknown[0]!r}{nearest(unknown[0], _options('model'))}")
    return text


Rule = Annotated[str, _known("rule", lambda: RULES)]
Run = Annotated[str, AfterValidator(_overrides)]
Whole = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Column(_Strict):
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
    columns: dict[str, _Column] = {kind: _Column(kind=kind) for kind in COMPLEXITY}
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
            raise UsageError(f"{where}: an earlier row has the same label")
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
        columns={key: Column(column.kind, column.data) for key, column in file.columns.items()},
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
    except Exception as error:  # PyYAML also raises ValueError (day 99) or RecursionError
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
    if problem["type"] == "string_type" and isinstance(problem["input"], bool | int | float):
        word = "no, yes, on, off, true, false and numbers"
        reason = f'put it in quotes, as in "no" or "1.0": YAML reads {word} as values'
    raise UsageError(f"{where}: {key}: {reason}" if key else f"{where}: {reason}")


def _check_columns(file: _File, path: Path) -> None:
    for key, column in file.columns.items():
        where = f"{path}, column {key!r}"
        if key in _Row.model_fields:
            raise UsageError(f"{where}: rows have a key of this name; choose another name")
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
    run: tuple[str, ...] | None, column: _Column, experiment: str | None, where: str
) -> tuple[str, ...] | None:
    if run is None or column.kind not in ACCURACY:
        return None
    if any(part.startswith("data=") for part in run):
        raise UsageError(f"{where}: the data set belongs to the column; remove data= from run")
    named = any(part.startswith("experiment=") for part in run)
    recipe = () if named or experiment is None else (f"experiment={experiment}",)
    return (*run, f"data={column.data}", *recipe)


def _image_size(run: tuple[str, ...], where: str) -> int | None:
    for part in run:
        key, _, value = part.partition("=")
        if key == "image_size":
            if not value.isdigit() or int(value) == 0:
                raise UsageError(f"{where}: {part}: expected a number of pixels")
            return int(value)
    return None


def _check_digits(cell: _Cell, where: str) -> None:
    if cell.digits is None:
        return
    printed = Decimal(cell.value or "0")
    unit = Decimal(1).scaleb(printed.adjusted() - cell.digits + 1)
    if cell.digits > len(printed.as_tuple().digits) or printed % unit:
        raise UsageError(
            f"{where}: digits={cell.digits} does not fit {cell.value}, whose further digits must "
            "be zeros"
        )


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """A sort key that puts 5-2 before 5-10."""
    return [
        (part.isdigit(), int(part) if part.isdigit() else 0, part)
        for part in re.split(r"(\d+)", name)
    ]
