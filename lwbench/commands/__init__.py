"""The commands, one module per verb.

The module `lwbench/commands/<verb>.py` is the command `lwbench <verb>`; adding a module adds the
verb. The first line of its docstring is what `lwbench --help` says of it, and it has

    FLAGS       the options that it takes besides -h and --help
    KEYS        `key -> Key` where it reads its keys itself; {} where Hydra composes them from
                `conf/<verb>.yaml`
    help()      what `lwbench <verb> --help` prints
    run(arguments, flags) -> exit code

and imports no torch before `run` is called. Modules whose names start with an underscore are shared
by several verbs.
"""

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType


def verbs() -> list[str]:
    """The names of all commands, in alphabetical order."""
    return [m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")]


def command(verb: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(f"{__name__}.{verb}")


def summary(verb: str) -> str:
    """What a command does, in a line; read from its source, so that help imports no command."""
    source = (Path(__file__).parent / f"{verb}.py").read_text(encoding="utf-8")
    text = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return text.removesuffix(".")
