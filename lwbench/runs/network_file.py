"""The arguments of a network in a user's file, read from its source without running it.

`model=file model.path=my_net.py model.function=my_net model.width=0.5`: the signature of the
function or class is the schema of the keys, as a builder's is. Annotations decide what a value may
be; without one, the type of the default does.
"""

import ast
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ..errors import UsageError, explained, nearest
from ..paths import conf_files, config_dir, yaml_files
from .sources import Sources, absolute, check_digest, package_of, read_sources

OWN_KEYS = ("builder", "path", "function", "digest")
SHARED_KEYS = ("stem_stride",)  # of every network: registry.MODELS
RESERVED = (*OWN_KEYS, *SHARED_KEYS, "num_classes")
_PLAIN: dict[str, Any] = {
    "int": int, "float": float, "bool": bool, "str": str, "None": None, "list": list[Any],
    "List": list[Any], "tuple": list[Any], "Tuple": list[Any], "Sequence": list[Any],
    "Iterable": list[Any],
}  # fmt: skip
_SEQUENCES = ("list", "List", "tuple", "Tuple", "Sequence", "Iterable")
_UNKNOWN = object()  # a default that is not a plain value


@dataclass(frozen=True)
class Signature:
    """What a function or class of a user's file takes.

    `fields`: argument -> (type, default), `...` where there is no default. `tuples`: arguments
    that are passed as tuples, which no configuration holds. `is_open`: it takes any keyword.
    """

    fields: dict[str, tuple[Any, Any]]
    tuples: frozenset[str]
    takes_num_classes: bool
    is_open: bool


def completed(group: Mapping[str, Any]) -> dict[str, Any]:
    """A model group with builder `file`, its path absolute, its digest and defaults filled in.

    No code of the file is run. Raises UsageError where file or function is missing or unreadable,
    where an argument is unknown or of a wrong type, or where a digest was given that is not the
    file's.
    """
    for key in ("path", "function"):
        if not isinstance(group.get(key), str):
            raise UsageError(
                f"model.{key} is needed and not given: model=file model.path=<file.py> "
                "model.function=<function or class>"
            )
    function = str(group["function"])
    if function in conf_files("model"):
        raise UsageError(
            f"model.function={function}: lwbench has a network of this name; give yours another"
        )
    sources = read_sources(_located(str(group["path"])))
    check_digest(sources, group.get("digest"))
    shared = {key: group[key] for key in SHARED_KEYS if key in group}
    given = {key: value for key, value in group.items() if key not in (*OWN_KEYS, *shared)}
    own = {
        "builder": "file",
        "path": str(sources.path),
        "function": function,
        "digest": sources.digest,
    }
    return own | arguments(signature(sources, function), given) | shared


def digests(overrides: Iterable[str]) -> list[str]:
    """The digests of the network files that overrides name, and that YAML files of the user's do.

    For caches of what depends on the code: a file that cannot be read has the digest "".
    """
    paths = [o.partition("=")[2] for o in overrides if o.startswith("model.path=")]
    if folder := config_dir():
        for file in yaml_files(folder / "model").values():
            paths += re.findall(r"^path: *(.+?) *$", file.read_text("utf-8", "replace"), re.M)
    found = []
    for path in paths:
        try:
            found.append(read_sources(_located(path.strip("'\""))).digest)
        except UsageError:
            found.append("")
    return found


def _located(path: str) -> Path:
    path = os.path.expanduser(path)
    folder = config_dir()
    if folder is not None and not Path(path).exists() and (folder / path).exists():
        return folder / path
    return Path(path)


def arguments(found: Signature, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given arguments, checked, with plain defaults. Raises UsageError as model.<argument>."""
    schema = _schema(found)
    try:
        checked = schema.model_validate(dict(given))
    except ValidationError as error:
        raise explained(error.errors(), found.fields, "model") from None
    values = {name: getattr(checked, name) for name in found.fields} | (checked.model_extra or {})
    return {name: value for name, value in values.items() if value is not _UNKNOWN}


def _schema(found: Signature) -> type[BaseModel]:
    settings = ConfigDict(
        extra="allow" if found.is_open else "forbid", strict=True, protected_namespaces=()
    )
    fields: dict[str, Any] = found.fields
    return create_model("Arguments", __config__=settings, **fields)


def signature(sources: Sources, function: str) -> Signature:
    """The signature of a function or class, which the file defines or imports from its folder.

    Raises UsageError where there is none, or where it takes an argument that cannot be given.
    """
    file, node = _definition(sources, sources.entry, function)
    where = f"{sources.folder / file}:{node.lineno}"
    taken = _constructor(sources, file, node) if isinstance(node, ast.ClassDef) else node.args
    if taken is None:
        return Signature({}, frozenset(), False, False)
    fields: dict[str, tuple[Any, Any]] = {}
    tuples = set()
    names = set()
    for argument, default in _parameters(taken, isinstance(node, ast.ClassDef)):
        names.add(argument.arg)
        if argument.arg in RESERVED or argument.arg.startswith("_"):
            if default is None and argument.arg != "num_classes":
                raise UsageError(f"{where}: the argument {argument.arg!r} needs another name")
            continue
        value = ... if default is None else _plain(default)
        kind = _type(argument.annotation) if argument.annotation else _type_of(value)
        if isinstance(value, tuple) or _is_tuple(argument.annotation):
            tuples.add(argument.arg)
        fields[argument.arg] = (kind, list(value) if isinstance(value, tuple) else value)
    is_open = taken.kwarg is not None
    return Signature(fields, frozenset(tuples), is_open or "num_classes" in names, is_open)


# --- finding the definition ---------------------------------------------------------------------

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _definition(sources: Sources, file: str, name: str, depth: int = 0) -> tuple[str, Definition]:
    """The file and the definition of a name, through `from ... import` within the folder."""
    known = []
    found: ast.stmt | None = None
    for node in _statements(sources.tree(file)):
        names = list(_bound(node))
        known += names
        if name in names:
            found = node  # the last one counts, as it does in Python
    if isinstance(found, Definition):
        return file, found
    if isinstance(found, ast.ImportFrom) and depth < 20:
        original = next(a.name for a in found.names if (a.asname or a.name) == name)
        package = "" if file == sources.entry else package_of(file)
        other = sources.file_of(absolute(found, package) or "")
        if other is not None:
            return _definition(sources, other, original, depth + 1)
    path = sources.folder / file
    if found is None:
        raise UsageError(f"{path}: no function or class {name!r}{nearest(name, known)}")
    raise UsageError(
        f"{path}:{found.lineno}: {name} is not defined by def or class in this folder, so its "
        "arguments cannot be read; wrap it in a function"
    )


def _statements(tree: ast.AST) -> Iterator[ast.stmt]:
    """The statements of a module, also those within if, try and with."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt):
            yield node
        if not isinstance(node, Definition | ast.expr):
            yield from _statements(node)


def _bound(node: ast.stmt) -> Iterator[str]:
    """The names that a statement defines."""
    if isinstance(node, Definition):
        yield node.name
    elif isinstance(node, ast.ImportFrom | ast.Import):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def _constructor(sources: Sources, file: str, node: ast.ClassDef) -> ast.arguments | None:
    """The arguments of `__init__`, also of a base class in this folder; None where it has none."""
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return statement.args
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id != node.name:
            try:
                where, parent = _definition(sources, file, base.id)
            except UsageError:
                continue  # of a library
            if isinstance(parent, ast.ClassDef):
                return _constructor(sources, where, parent)
    return None


def _parameters(taken: ast.arguments, is_method: bool) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    """The arguments that can be given by keyword, with their defaults."""
    positional = [*taken.posonlyargs, *taken.args]
    defaults = [*[None] * (len(positional) - len(taken.defaults)), *taken.defaults]
    pairs = list(zip(positional, defaults, strict=True))[is_method:]
    yield from (pair for pair in pairs if pair[0] not in taken.posonlyargs)
    yield from zip(taken.kwonlyargs, taken.kw_defaults, strict=True)


# --- types --------------------------------------------------------------------------------------


def _plain(node: ast.expr) -> Any:
    """A default that a configuration can hold, or `_UNKNOWN`."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _UNKNOWN
    items = value if isinstance(value, list | tuple) else [value]
    return value if all(isinstance(i, int | float | str | None) for i in items) else _UNKNOWN


def _type_of(default: Any) -> Any:
    if isinstance(default, bool):
        return bool
    if isinstance(default, int | float):
        return int | float
    if isinstance(default, str):
        return str
    return list[Any] if isinstance(default, list | tuple) else Any


def _type(node: ast.expr | None) -> Any:
    """The type that an annotation stands for; Any for what is neither plain nor made of it."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):  # a quoted annotation
            try:
                return _type(ast.parse(node.value, mode="eval").body)
            except SyntaxError:
                return Any
        return None if node.value is None else Any
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([node.left, node.right])
    if isinstance(node, ast.Subscript):
        return _generic(_last_name(node.value), node.slice)
    return _PLAIN.get(_last_name(node), Any)


def _generic(name: str, content: ast.expr) -> Any:
    parts = content.elts if isinstance(content, ast.Tuple) else [content]
    if name == "Literal":
        words = tuple(part.value for part in parts if isinstance(part, ast.Constant))
        return Literal[words] if words and len(words) == len(parts) else Any
    if name == "Optional":
        return Optional[_type(content)]  # noqa: UP045 (None | Any is no type)
    if name == "Union":
        return _union(parts)
    if name in ("Annotated", "Final"):
        return _type(parts[0])
    if name in _SEQUENCES:
        kinds = {str(_type(p)): _type(p) for p in parts if not _is_ellipsis(p)}
        return list[next(iter(kinds.values()))] if len(kinds) == 1 else list[Any]  # type: ignore[misc]
    return Any


def _union(parts: list[ast.expr]) -> Any:
    kinds = [_type(part) for part in parts]
    if Any in kinds:
        return Any
    union: Any = kinds[0]
    for kind in kinds[1:]:
        union = Optional[kind] if union is None else union | kind  # noqa: UP045
    return union


def _last_name(node: ast.expr | None) -> str:
    """`typing.Literal` is Literal."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _is_ellipsis(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is ...


def _is_tuple(node: ast.expr | None) -> bool:
    inner = node.value if isinstance(node, ast.Subscript) else node
    return _last_name(inner) in ("tuple", "Tuple")
