"""Published tables as data: `conf/table/<document>/<table>.yaml`, or a YAML file of the user's.

A table's rows are command lines (`run`: what follows `lwbench train`), its cells are the numbers as
printed, in quotes, so that `90.00` keeps its zero. Everything is checked while loading; an error
names the file and the row. Keys:

    source      what the table is
    count       {rule, num_classes, image_size}: how parameters and MACs were counted
    select      best | final | unstated: which epoch the accuracies are of
    experiment  the recipe of every row, conf/experiment/<name>.yaml
    baseline    label of the row that the others are compared with; default: the first row
    columns     key -> {kind, data}; default: parameters and MACs. Columns of latency_ms, which
                `lwbench bench` measures, have runtime, batch_size, threads, deploy and device
    marks       headers of the columns of check marks, such as the components that a network has
    rows        label, run, marks, and a cell per column key: a number, or {value, digits, note ...}
    notes       remarks on the whole table
    origin      whose measurement the accuracies and speeds are, unless a cell says otherwise

An origin is `own` (the document's), `unknown`, or quoted: {citation, value, agrees, note}, where
`value` is the number as printed there and `agrees` one of same, rounded, truncated, differs.

A row or a cell may set rule, num_classes, image_size, run (a cell), note and fit. `image_size=` in
a run counts too. `digits`: how many of the printed digits are significant, where zeros were padded.
`misprint` and `fit` give their reason.
"""

import re
import shlex
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ..errors import UsageError, nearest
from ..paths import conf_files
from ..registry import MODELS
from ..runs.latencies import Setting
from .origins import OfOrigin, origin_of
from .table import ACCURACY, CHECK, COMPLEXITY, KINDS, RULES, Column, Figure, Table
from .yaml_files import Number, Strict, known, options, read_yaml, validated


def names() -> list[str]:
    """The names of all tables, ours (dcnn/5-10 ...) and those of --config-dir, in natural order."""
    return sorted(conf_files("table"), key=_natural)


def load(name: str, rows: Sequence[dict[str, Any]] = ()) -> list[Table]:
    """The table of that name, all of them (`all`), or those of a YAML file or folder.

    `rows`: more rows of a single table. Raises UsageError where there is no such table, or
    where a file is not a valid table.
    """
    if name == "all":
        return [table for one in names() for table in load(one)]
    if file := conf_files("table").get(name):
        return [_read(file, name, rows)]
    path = Path(name)
    if path.is_dir():
        files = sorted(path.rglob("*.yaml"))
        if not files:
            raise UsageError(f"table={name}: no .yaml file in this folder")
        return [_read(file, file.relative_to(path).with_suffix("").as_posix()) for file in files]
    if path.suffix in (".yaml", ".yml"):
        return [_read(path, path.stem, rows)]
    raise UsageError(
        f"no table {name!r}{nearest(name, [*names(), 'all'])}; or the path of a YAML file"
    )


# what a file may hold


def _overrides(text: str) -> str:
    parts = shlex.split(text)  # raises ValueError where quotes do not match
    if odd := [part for part in parts if "=" not in part and not part.startswith("~")]:
        raise ValueError(f"{odd[0]!r} is not of the form key=value or ~key")
    models = [part.partition("=")[2] for part in parts if part.startswith("model=")]
    unknown = [model for model in models if model not in options("model")]
    if unknown and (unknown := [model for model in unknown if model not in MODELS.installed()]):
        raise ValueError(f"no model {unknown[0]!r}{nearest(unknown[0], options('model'))}")
    return text


Rule = Annotated[str, known("rule", lambda: RULES)]
Run = Annotated[str, AfterValidator(_overrides)]
Whole = Annotated[int, Field(gt=0)]


class _Column(Strict):
    kind: Annotated[str, known("kind", lambda: KINDS)]
    data: str | None = None
    # of a latency
    runtime: str = "eager"
    batch_size: Whole = 1
    threads: Whole | None = 1
    deploy: bool = False
    device: str | None = None

    def column(self) -> Column:
        setting = Setting(self.runtime, self.batch_size, self.threads, self.deploy)
        return Column(self.kind, self.data, setting, self.device)


class _Count(Strict):
    rule: Rule = "plain"
    num_classes: Whole = 1000
    image_size: Whole = 224


class _Override(Strict):
    rule: Rule | None = None
    num_classes: Whole | None = None
    image_size: Whole | None = None
    run: Run | None = None
    note: str = ""
    fit: str = ""
    origin: OfOrigin = None


class _Row(_Override):
    label: Annotated[str, Field(min_length=1)]
    marks: list[str] = []


class _Cell(_Override):
    value: Number | None = None
    digits: Whole | None = None
    misprint: str = ""


class _File(Strict):
    source: str = ""
    count: _Count = _Count()
    select: Literal["best", "final", "unstated"] = "final"
    experiment: Annotated[str, known("experiment", lambda: options("experiment"))] | None = None
    baseline: str | None = None
    origin: OfOrigin = None
    columns: dict[str, _Column] = {kind: _Column(kind=kind) for kind in ("params", "macs")}
    marks: list[str] = []
    rows: Annotated[list[dict[str, Any]], Field(min_length=1)]
    notes: list[str] = []


# from file to table


def _read(path: Path, name: str, more: Sequence[dict[str, Any]] = ()) -> Table:
    file = validated(_File, read_yaml(path), str(path))
    _check_columns(file, path)
    rows: dict[str, list[Figure]] = {}
    marks: dict[str, list[str]] = {mark: [] for mark in file.marks}
    for number, content in enumerate([*file.rows, *more], 1):
        label = content.get("label")
        where = f"{path}, row {label if isinstance(label, str) else number!r}"
        row = validated(_Row, {k: v for k, v in content.items() if k not in file.columns}, where)
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
        columns={key: column.column() for key, column in file.columns.items()},
        rows=tuple(rows),
        figures=tuple(figure for row in rows.values() for figure in row),
        notes=tuple(file.notes),
        marks={mark: tuple(texts) for mark, texts in marks.items()},
    )


def _check_columns(file: _File, path: Path) -> None:
    for key, column in file.columns.items():
        where = f"{path}, column {key!r}"
        if key in _Row.model_fields:
            raise UsageError(f"{where}: rows have a key of this name; choose another name")
        if column.kind in ACCURACY and column.data not in options("data"):
            known = nearest(str(column.data), options("data"))
            raise UsageError(f"{where}: {column.kind} of data set {column.data!r}{known}")


def _figure(file: _File, row: _Row, key: str, content: Any, where: str) -> Figure:
    if isinstance(content, int | float):
        raise UsageError(f'{where}: quote the number as printed, as in "63.4e6"')
    cell = validated(_Cell, {"value": content} if isinstance(content, str) else content, where)
    _check_digits(cell, where)
    column = file.columns[key]
    text = cell.run or row.run
    if text is None and column.kind in (*COMPLEXITY, *ACCURACY, "latency_ms"):
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
        origin=origin_of(cell.value, cell.origin or row.origin or file.origin, column.kind),
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
