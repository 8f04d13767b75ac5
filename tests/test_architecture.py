"""The arrows of docs/design.md: who may import whom."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lwbench"
FILES = sorted(PACKAGE.rglob("*.py"))
# room -> what it may import of lwbench, besides itself, registry and errors
MAY = {
    "layers": set(),
    "models": {"layers"},
    "data": {"folders", "runs"},
    "engine": {"runs"},
    "measure": {"layers"},
    "results": {"folders", "runs"},
    "runs": set(),
    "folders": set(),
    "usage": {"folders", "results"},
    "compose": {"cache", "folders", "usage"},
    "cache": {"folders", "runs"},
    "counts": {"cache", "results"},
    "reproduce": {"counts", "results", "runs", "sweep", "tabulate"},
    "reporting": {"counts", "folders", "results", "tabulate"},
    "tabulate": {"counts", "folders", "results", "runs"},
    "registry": set(),
    "errors": set(),
    "console": set(),
    "check": {"console", "data"},
    "threads": set(),
    "logs": {"runs"},
    "resume": {"runs"},
    "sweep": {"console", "engine", "runs"},
}
# fmt: off
NO_TORCH = (
    "results", "runs", "registry", "errors", "console", "sweep", "cli", "folders", "threads",
    "compose", "usage",
    "cache", "counts", "logs", "tabulate",
    "reproduce", "reporting", "resume",
)
# fmt: on


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Absolute dotted names of everything that a file imports, at any depth."""
    package = ["lwbench", *path.relative_to(PACKAGE).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = package[: -node.level] if node.level else []
            module = [*prefix, *([node.module] if node.module else [])]
            yield from (".".join([*module, alias.name]) for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_arrows_run_one_way(path):
    if room(path) not in MAY:
        pytest.skip("cli and commands may call everyone")
    allowed = MAY[room(path)] | {room(path), "registry", "errors", "__version__"}
    used = {name.split(".")[1] for name in imports(path) if name.startswith("lwbench.")}
    assert used <= allowed


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_configs_end_in_compose(path):
    roots = {name.split(".")[0] for name in imports(path)}
    assert room(path) == "compose" or not roots & {"hydra", "omegaconf"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_that_answer_at_once_import_no_torch(path):
    roots = {name.split(".")[0] for name in imports(path)}
    assert room(path) not in NO_TORCH or not roots & {"torch", "torchvision"}


def test_no_room_is_without_a_name_of_its_own():
    bad = {"utils", "util", "common", "helpers", "helper", "misc", "base", "core", "legacy"}
    assert not bad & {path.stem for path in FILES}
