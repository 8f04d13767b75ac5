"""The Python sources of a user's network: its file, and what that imports from its own folder.

They are found by reading import statements, so that a plan, a table or a report knows the digest of
a network without running its code. The loader of `models.file` serves exactly these bytes, so that
nothing else of the folder can be part of a network without being part of its run's identity.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import UsageError, plural
from .files import write_atomically

FOLDER = "sources"  # the folder of a run directory that keeps them
# names of the standard library and of lwbench always mean these, whatever lies in the folder
_ELSEWHERE = sys.stdlib_module_names | {"lwbench"}

_allowed: set[str] = set()  # digests of the code that this process may run


@dataclass(frozen=True)
class Sources:
    """A network's file (`entry`) and the modules that it imports from `folder`.

    `files`: the content by path relative to the folder.
    """

    folder: Path
    entry: str
    files: dict[str, bytes]

    @property
    def path(self) -> Path:
        """The network's file."""
        return self.folder / self.entry

    @property
    def digest(self) -> str:
        """Sixteen hex digits of all contents; the name of the file itself is left out."""
        content = hashlib.sha256()
        for name in sorted(self.files):
            shown = "" if name == self.entry else name
            content.update(f"{len(shown)} {shown} {len(self.files[name])} ".encode())
            content.update(self.files[name])
        return content.hexdigest()[:16]

    def tree(self, name: str) -> ast.Module:
        """The syntax tree of one file. Raises UsageError with the line of a syntax error."""
        path = self.folder / name
        try:
            return ast.parse(self.files[name], str(path))
        except SyntaxError as error:
            place = f"{path}:{error.lineno}" if error.lineno else str(path)
            raise UsageError(f"{place}: {type(error).__name__}: {error.msg}") from None
        except (ValueError, RecursionError, MemoryError) as error:  # null bytes, deep nesting
            raise UsageError(f"{path}: not Python: {str(error)[:100]}") from None

    def file_of(self, module: str) -> str | None:
        """The file of a module by its dotted name, or None where it is not of the folder."""
        return next((name for name in _places(module) if name in self.files), None)

    def contains(self, module: str) -> bool:
        """Whether a dotted name is a module, a package or a plain folder of modules here."""
        prefix = module.replace(".", "/") + "/"
        return self.file_of(module) is not None or any(f.startswith(prefix) for f in self.files)


def read_sources(path: Path) -> Sources:
    """Read a file and, through import statements in any of them, all it imports of its folder.

    Raises UsageError where the file is missing or where one of them has a syntax error.
    """
    path = Path(path).absolute()
    if path.suffix != ".py" or not path.is_file():
        raise UsageError(f"model.path={path}: no Python file (.py) is there")
    found = Sources(path.parent, path.name, {})
    waiting = [path.name]
    while waiting:
        name = waiting.pop()
        if name in found.files:
            continue
        try:
            found.files[name] = (path.parent / name).read_bytes()
        except OSError as error:
            raise UsageError(f"{path.parent / name}: {error.strerror or error}") from None
        package = "" if name == found.entry else package_of(name)
        for module in imported(found.tree(name), package):
            waiting += _files_of(module, path.parent)
    return found


def package_of(name: str) -> str:
    """The dotted name of the package that a file belongs to: `blocks/conv.py` is of `blocks`."""
    return ".".join(PurePosixPath(name).parent.parts)


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """The dotted names that import statements anywhere in a file may load."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (module := absolute(node, package)) is not None:
            yield module
            yield from (f"{module}.{alias.name}".lstrip(".") for alias in node.names)


def absolute(node: ast.ImportFrom, package: str) -> str | None:
    """The module that `from ... import` names; None where it leaves the folder."""
    if node.level == 0:
        return node.module
    parts = package.split(".") if package else []
    if node.level > len(parts):
        return None
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _files_of(module: str, folder: Path) -> Iterator[str]:
    """The files that importing a dotted name loads: those of its packages, and its own."""
    parts = module.split(".")
    if parts[0] in _ELSEWHERE:
        return
    for end in range(1, len(parts) + 1):
        places = _places(".".join(parts[:end]))
        yield from [name for name in places if (folder / name).is_file()][:1]


def _places(module: str) -> tuple[str, str]:
    base = module.replace(".", "/")
    return f"{base}/__init__.py", f"{base}.py"  # Python's order


# --- in a run directory -------------------------------------------------------------------------


def store_code(group: Mapping[str, Any], run: Path) -> None:
    """Write the sources of a network in a user's file into a run directory. Raises OSError.

    Nothing is written for other networks.
    """
    if group.get("builder") != "file":
        return
    sources = read_sources(Path(group["path"]))
    check_digest(sources, group.get("digest"))
    for name, content in sources.files.items():
        path = run / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def stored_code(group: Mapping[str, Any], run: Path) -> dict[str, str]:
    """The change of a stored configuration that makes a network's file the one kept with the run.

    Nothing for networks that come from no file.
    """
    if group.get("builder") != "file":
        return {}
    name = PurePosixPath(str(group.get("path")).replace("\\", "/")).name
    return {"model.path": str((run / FOLDER / name).absolute())}


def described_code(group: Mapping[str, Any]) -> str:
    """What is run of a user's files, for the screen; empty for other networks."""
    if group.get("builder") != "file":
        return ""
    sources = read_sources(Path(group["path"]))
    others = len(sources.files) - 1
    more = f" and {plural(others, 'module')} of its folder" if others else ""
    return f"{sources.path}{more}, kept in {FOLDER}/"


def check_digest(sources: Sources, digest: object) -> None:
    """Raise UsageError where the files are not those of `digest`; None is no demand."""
    if digest not in (None, sources.digest):
        raise UsageError(
            f"{sources.path} is not the code of this run: its digest, with the modules that it "
            f"imports from its folder, is {sources.digest} rather than {digest}"
        )


# --- whose code may run -------------------------------------------------------------------------


def allow(group: Mapping[str, Any]) -> None:
    """Let this process run the code of a model group (`builder: file`), known by its digest.

    Commands call it for what the user named on the command line, or with trust_code=true.
    """
    if group.get("builder") == "file":
        _allowed.add(str(group.get("digest")))


def check_allowed(sources: Sources) -> None:
    """Raise UsageError where nobody has allowed to run this code."""
    if sources.digest not in _allowed:
        raise UsageError(
            f"the code in {sources.path} would be run, and this command does not name it\n"
            "read it first; then trust_code=true runs it (eval, table, reproduce, report)"
        )
