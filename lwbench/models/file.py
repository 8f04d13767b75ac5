"""A network from a Python file of the user's: `model=file model.path=... model.function=...`.

Building it runs the code of the file, with the rights of the user. Modules of the file's folder are
served from the bytes that its digest covers (`runs.sources`); other modules are imported as usual.
"""

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ..errors import CodeError, UsageError, user_place
from ..registry import MODELS
from ..runs.network_file import arguments as checked
from ..runs.network_file import signature
from ..runs.sources import Sources, check_allowed, check_digest, read_sources
from .external import classifier


@MODELS.register
def file(
    num_classes: int, *, path: str, function: str, digest: str | None = None, **arguments: Any
) -> nn.Module:
    """The network that `function` in the file `path` returns; (N, 3, H, W) -> logits.

    `num_classes` is passed where the function takes it, `arguments` as they are. Raises UsageError
    where the file is not that of `digest`, where nobody has allowed to run its code, or where it
    returns something else than a network, and CodeError where its code fails.
    """
    sources = read_sources(Path(path))
    check_digest(sources, digest)
    check_allowed(sources)
    found = signature(sources, function)
    given = checked(found, arguments)
    given |= {name: tuple(v) for name in found.tuples if isinstance(v := given.get(name), list)}
    if found.takes_num_classes:
        given["num_classes"] = num_classes
    with _explained(sources):
        model = getattr(_module(sources), function)(**given)
    _check_covered(sources)
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"{path}: {function} returns {type(model).__name__}, not a torch.nn.Module"
        )
    return classifier(model)


@contextmanager
def _explained(sources: Sources) -> Iterator[None]:
    """Turn an exception of the user's code into a CodeError with its file and line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        text = (str(error).splitlines() or [""])[0][:200]
        place = user_place(error) or str(sources.path)
        hint = ""
        if isinstance(error, ModuleNotFoundError) and error.name:
            first = error.name.partition(".")[0]
            if (sources.folder / f"{first}.py").exists() or (sources.folder / first).is_dir():
                hint = "\n" + _UNCOVERED
        raise CodeError(f"{place}: {type(error).__name__}: {text}{hint}") from error


_UNCOVERED = (
    "modules of the file's folder are imported by import statements alone: only these can be "
    "followed, so that a change of them makes another run"
)


class _Finder(MetaPathFinder):
    """Finds the modules of a network's folder among the sources that were read of it."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.loader = _Loader(sources)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module of this dotted name, or None where it is not of the folder."""
        file = self.sources.file_of(name)
        folder = self.sources.folder / name.replace(".", "/")
        if file is not None:
            path_of_file = str(self.sources.folder / file)
            self.loader.paths[name] = path_of_file
            places = [str(folder)] if file.endswith("/__init__.py") else None
            return importlib.util.spec_from_file_location(
                name,
                path_of_file,
                loader=self.loader,
                submodule_search_locations=places,
            )
        if self.sources.contains(name):
            spec = ModuleSpec(name, None, is_package=True)  # a folder without __init__.py
            spec.submodule_search_locations = [str(folder)]
            self.loader.paths[name] = None
            return spec
        return None


class _Loader(SourceLoader):
    """Loads modules from the bytes that were digested; bytecode is neither read nor written."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.paths: dict[str, str | None] = {}  # module -> file, None for a folder

    def get_filename(self, fullname: str) -> str:
        """The file of a module."""
        return str(self.paths[fullname])

    def get_data(self, path: Any) -> bytes:
        """The content of a file."""
        name = Path(path).relative_to(self.sources.folder).as_posix()
        if name not in self.sources.files:  # bytecode
            raise OSError(f"{name} is not among the network's sources")
        return self.sources.files[name]

    def exec_module(self, module: ModuleType) -> None:
        """Run a module's code, marked as the user's for the messages about its errors."""
        module.__dict__["__network_file__"] = True
        super().exec_module(module)


_current: tuple[_Finder, ModuleType] | None = None


def _module(sources: Sources) -> ModuleType:
    """The module of the network's file, run once per process and content.

    Imports within functions find the folder as long as no other network file is loaded.
    """
    global _current
    if _current is not None and _current[0].sources == sources:
        return _current[1]
    _forget()
    finder = _Finder(sources)
    name = f"network_file_{sources.path.stem}"
    finder.loader.paths[name] = str(sources.path)
    spec = importlib.util.spec_from_file_location(name, sources.path, loader=finder.loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    before = {n: m for n, m in sys.modules.items() if sources.contains(n)}
    for other in before:  # a notebook's, perhaps of an older state of the file
        del sys.modules[other]
    sys.modules[name] = module
    sys.meta_path.insert(0, finder)
    try:
        # neither a device of ours nor the state of the random numbers concerns the module's code
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            finder.loader.exec_module(module)
    except BaseException:
        sys.meta_path.remove(finder)
        for loaded in finder.loader.paths:
            sys.modules.pop(loaded, None)
        raise
    finally:
        sys.modules.update(before)
    _current = (finder, module)
    return module


def _forget() -> None:
    """Remove what an earlier network's file has loaded."""
    global _current
    if _current is not None:
        finder, _ = _current
        sys.meta_path.remove(finder)
        for name, place in finder.loader.paths.items():
            if getattr(sys.modules.get(name), "__file__", None) == place:
                del sys.modules[name]
    _current = None


def _check_covered(sources: Sources) -> None:
    """Raise UsageError for a module of the folder that the digest does not cover."""
    covered = {str(sources.folder / name) for name in sources.files}
    for module in list(sys.modules.values()):
        place = getattr(module, "__file__", None)
        if not isinstance(place, str) or place in covered or "site-packages" in place:
            continue
        loader = getattr(module, "__spec__", None)
        is_ours = module.__name__.partition(".")[0] in (sys.stdlib_module_names | {"lwbench"})
        if loader is not None and not is_ours and Path(place).is_relative_to(sources.folder):
            raise UsageError(f"{place} was loaded by {sources.path}\n{_UNCOVERED}")
