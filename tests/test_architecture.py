"""The rules of docs/architecture.md: permitted imports, what loads torch, sizes."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lwbench"
FILES = sorted(PACKAGE.rglob("*.py"))
EVERYBODY = {"registry", "errors", "paths", "__init__"}
# package or module -> what it may import of lwbench besides itself and EVERYBODY
MAY = {
    "__init__": set(),
    "__main__": {"cli"},
    "api": {"commands", "config", "deploy", "measure", "runs"},
    "cli": {"commands", "config", "engine"},
    "commands": {
        "config", "data", "deploy", "engine", "layers", "logs", "measure", "models", "report",
        "runs", "sweeps", "tables",
    },
    "config": {"runs"},
    "data": {"logs", "runs"},
    "deploy": {"layers", "measure"},
    "engine": {"runs"},
    "errors": set(),
    "layers": set(),
    "logs": set(),
    "measure": {"layers", "logs"},
    "models": {"layers", "runs"},
    "paths": set(),
    "registry": set(),
    "report": {"runs", "tables"},
    "runs": set(),
    "sweeps": {"engine", "logs", "runs"},
    "tables": {"runs"},
}  # fmt: skip
NO_TORCH = (
    "__init__", "__main__", "api", "cli", "commands", "config", "errors", "logs", "paths",
    "registry", "report", "runs", "sweeps", "tables",
)  # fmt: skip
HEAVY = {"torch", "torchvision", "timm", "sklearn"}


def unit(module):
    """`tables.cells` belongs to `tables`."""
    return module.partition(".")[0]


def name_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def statements(node, functions):
    """All statements below a node, without those for type checkers; with or without functions."""
    for child in ast.iter_child_nodes(node):
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if is_type_checking(child) or (is_function and not functions):
            continue
        yield child
        yield from statements(child, functions)


@cache
def imports(path, functions=True):
    """Absolute dotted names of what a file imports, `lwbench.` left out of ours."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    found = []
    for node in statements(ast.parse(path.read_text()), functions):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            prefix = ["lwbench", *parts][: -node.level] if node.level else []
            module = [*prefix, *([node.module] if node.module else [])]
            found += [".".join([*module, alias.name]) for alias in node.names]
    return tuple(found)


def ours(path, functions=True):
    """The modules of lwbench that a file imports, by their names below `lwbench`."""
    known = {name_of(file) for file in FILES}
    for name in imports(path, functions):
        if name == "lwbench" or name.startswith("lwbench."):
            short = name.removeprefix("lwbench").lstrip(".")
            while short and short not in known:
                short = short.rpartition(".")[0]
            yield short or "__init__"


def graph():
    """What each package or module directly under lwbench imports of the others."""
    edges = {}
    for path in FILES:
        here = unit(name_of(path))
        edges.setdefault(here, set()).update(unit(other) for other in ours(path))
        edges[here].discard(here)
    return edges


def depth(node, edges):
    return 1 + max((depth(other, edges) for other in edges[node]), default=0)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_module_imports_only_what_its_package_may(path):
    here = unit(name_of(path))
    assert {unit(other) for other in ours(path)} <= MAY[here] | EVERYBODY | {here}


def test_packages_import_each_other_in_no_cycle():
    edges, done = graph(), set()
    while left := edges.keys() - done:
        free = {node for node in left if edges[node] <= done}
        assert free, f"a cycle among {sorted(left)}"
        done |= free


def test_modules_import_each_other_in_no_cycle():
    edges = {name_of(path): set(ours(path)) - {name_of(path)} for path in FILES}
    done = set()
    while left := edges.keys() - done:
        free = {node for node in left if edges[node] <= done}
        assert free, f"a cycle among {sorted(left)}"
        done |= free


def test_the_import_graph_is_at_most_seven_levels_deep():
    assert depth("__main__", graph()) <= 7


def test_few_things_lie_directly_under_the_package():
    modules = {p.stem for p in PACKAGE.glob("*.py")} - {"__init__"}
    packages = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert len(modules) <= 8
    assert len(modules | packages) <= 19


def test_tables_and_report_together_stay_small():
    files = [p for package in ("tables", "report") for p in (PACKAGE / package).glob("*.py")]
    # what claims need is in tables/claims; 250 lines are of latencies
    assert sum(len(path.read_text().splitlines()) for path in files) < 3800


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_config_knows_hydra_and_omegaconf(path):
    roots = {unit(name) for name in imports(path)}
    assert unit(name_of(path)) == "config" or not roots & {"hydra", "omegaconf"}


@pytest.mark.parametrize("unit_name", NO_TORCH)
def test_importing_it_loads_no_torch_through_any_chain(unit_name):
    by_name = {name_of(path): path for path in FILES}
    waiting = [name for name in by_name if unit(name) == unit_name]
    seen = {}
    for name in waiting:
        seen[name] = name
    while waiting:
        name = waiting.pop()
        heavy = {unit(other) for other in imports(by_name[name], functions=False)} & HEAVY
        assert not heavy, f"{seen[name]} loads {heavy.pop()}"
        for other in ours(by_name[name], functions=False):
            # importing a.b runs a/__init__.py too
            for part in (other, unit(other)):
                if part not in seen:
                    seen[part] = f"{seen[name]} -> {part}"
                    waiting.append(part)


def test_one_function_level_import_counts_networks_for_tables():
    """Tables and `list` need torch only where a count is in no cache: in commands/_counting.py.

    The others are a training's cost and `lwbench.count`, whose callers have a network.
    """
    users = [
        name_of(path)
        for path in FILES
        if any(other.startswith("measure.complexity") for other in ours(path))
        and unit(name_of(path)) not in ("measure", "deploy")
    ]
    assert sorted(users) == ["api", "commands._building", "commands._counting"]


def test_commands_that_read_only_records_load_no_torch(tmp_path, counted):
    lines = ["--help", "train --help", "table --help", "list", "table table=ldc/4",
             "reproduce table=ldc/4 dry_run=true", "train --cfg", "report", "claims"]  # fmt: skip
    code = (
        "import sys\nfrom lwbench.cli import main\nfor line in sys.argv[1:]:\n"
        "    if main(line.split()) or 'torch' in sys.modules:\n        sys.exit(line)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *lines], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def counted():
    """All counts are in the user's cache, as after a first `lwbench table`."""
    from lwbench.cli import main

    assert main(["table"]) == 0
    assert main(["claims"]) == 0


def test_no_name_says_nothing():
    bad = {"utils", "util", "common", "helpers", "helper", "misc", "base", "core", "legacy"}
    names = {path.stem for path in FILES} | {path.parent.name for path in FILES}
    assert not bad & names
