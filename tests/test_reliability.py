"""docs/reliability.md: each claim names a test that exists, runs and can fail.

pytest itself collects the tests, so that a name in a comment, a nested function or a class does not
count.
"""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import COLLECTED
from quick_suite import collected_tests

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")
PROMISES = [f"R{n}" for n in range(1, 8)]
FAULTS = [str(n) for n in range(1, 31)]
ASSERTIONS = {"raises", "fail", "warns", "assert_close"}  # besides the statement


def collect(folder, files, work):
    """The names of the tests in the files -> whether a case of it runs in the quick suite."""
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    # markers by command line: the suite's own configuration deselects the slow ones
    options = ["--collect-only", "-q", "-p", "quick_suite", "-o", "addopts=",
               "-o", "markers=slow\ngpu"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files], cwd=folder, capture_output=True,
        text=True, env={**os.environ, "PYTHONPATH": paths, "COLLECTED": str(work / "found")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((work / "found").read_text())


def claims(page):
    """Each promise and each row of a table of faults -> the names of its tests."""
    found = {}
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        title = section.splitlines()[0]
        for promise in re.split(r"^### ", section, flags=re.MULTILINE)[1:]:
            found[promise.partition(":")[0]] = NAMED.findall(promise)
        if not title.startswith("Faults"):
            continue
        for number, line in enumerate(re.findall(r"^\| (?!---).*\|$", section, re.MULTILINE)):
            first = line.split("|")[1].strip()
            if number:  # the first line is the head
                found[first] = NAMED.findall(line)
    return found


def can_fail(tree, name, seen=()):
    """Whether the test, or a function of its file that it calls, asserts something."""
    functions = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    for node in ast.walk(functions[name]):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.rpartition(".")[2] in ASSERTIONS:
                return True
            is_new = called in functions and called not in (*seen, name)
            if is_new and can_fail(tree, called, (*seen, name)):
                return True
    return False


def always_skips(tree, name):
    """Whether pytest.skip or pytest.xfail is called whatever the circumstances."""
    (test,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name)
    calls = (
        s.value for s in test.body if isinstance(s, ast.Expr) and isinstance(s.value, ast.Call)
    )
    return any(ast.unparse(call.func) in ("pytest.skip", "pytest.xfail") for call in calls)


def problems(page, collected, folder):
    """What is wrong with the page's claims, one line each."""
    trees = {}
    for claim, tests in claims(page).items():
        if not tests:
            yield f"{claim}: no test"
        if tests and not any(collected.get(f"{file}::{name}") for file, name in tests):
            yield f"{claim}: no test that runs in the quick suite"
    for file, name in sorted(set(NAMED.findall(page))):
        if f"{file}::{name}" not in collected:
            yield f"{file}::{name}: not collected"
            continue
        if file not in trees:
            trees[file] = ast.parse((folder / file).read_text(encoding="utf-8"))
        if not collected[f"{file}::{name}"]:
            yield f"{file}::{name}: skipped, slow or expected to fail"
        if always_skips(trees[file], name):
            yield f"{file}::{name}: skips always"
        if not can_fail(trees[file], name):
            yield f"{file}::{name}: asserts nothing"


def test_every_promise_and_every_fault_is_on_the_page():
    found = list(claims(PAGE))
    assert [name for name in found if re.fullmatch(r"R\d+", name)] == PROMISES
    assert [name for name in found if name.isdigit()] == FAULTS
    assert len(found) > len(PROMISES + FAULTS)  # and the faults of data sets


def test_every_claim_has_a_test_that_exists_runs_and_can_fail(request, tmp_path):
    files = {file for file, _ in NAMED.findall(PAGE)}
    folder = Path(__file__).parent
    items = [item for item in request.config.stash[COLLECTED] if item.path.name in files]
    if files == {item.path.name for item in items}:
        collected = collected_tests(items)
    else:  # a part of the suite is run
        collected = collect(folder, sorted(files), tmp_path)
    assert len(NAMED.findall(PAGE)) > 50
    assert list(problems(PAGE, collected, folder)) == []


SUITE = """
import pytest

def helper(value):
    assert value == 1

def test_good():
    helper(1)

@pytest.mark.parametrize("value", [pytest.param(1, marks=pytest.mark.skip), 2])
def test_skipped_in_part(value):
    assert value

@pytest.mark.skip(reason="always")
def test_marked_skip():
    assert True

@pytest.mark.skipif(True, reason="always")
def test_marked_skipif():
    assert True

@pytest.mark.xfail
def test_marked_xfail():
    assert False

@pytest.mark.slow
def test_marked_slow():
    assert True

def test_that_skips():
    pytest.skip("always")
    assert False

def test_without_assertion():
    print("done")

def outer():
    def test_nested():
        assert True

# def test_in_a_comment(): assert True
"""
WRONG = {
    "marked_skip": "skipped, slow or expected to fail",
    "marked_skipif": "skipped, slow or expected to fail",
    "marked_xfail": "skipped, slow or expected to fail",
    "marked_slow": "skipped, slow or expected to fail",
    "that_skips": "skips always",
    "without_assertion": "asserts nothing",
    "nested": "not collected",
    "in_a_comment": "not collected",
    "of_no_file": "not collected",
}


@pytest.fixture(scope="module")
def some(tmp_path_factory):
    """The folder of a small suite, and what was collected from it."""
    folder = tmp_path_factory.mktemp("some")
    (folder / "test_some.py").write_text(SUITE)
    return folder, collect(folder, ["test_some.py"], folder)


def test_a_claim_whose_test_proves_nothing_is_found(some):
    folder, collected = some
    page = "## Promises\n\n### R1: some\n\n`test_some.py::test_good`, `test_some.py::{}`\n"
    for name in ("test_good", "test_skipped_in_part"):
        assert list(problems(page.format(name), collected, folder)) == []
    for name, problem in WRONG.items():
        found = list(problems(page.format(f"test_{name}"), collected, folder))
        assert found == [f"test_some.py::test_{name}: {problem}"]


def test_a_claim_without_a_test_is_found(some):
    folder, collected = some
    page = (
        "## Promises\n\n### R1: none\n\nWords.\n\n"
        "### R2: slow\n\n`test_some.py::test_marked_slow`\n"
        "\n## Faults\n\n| | fault | tests |\n| --- | --- | --- |\n| 1 | some | |\n"
        "\n## Faults of data sets\n\n| fault | tests |\n| --- | --- |\n| a disk | `test_some` |\n"
    )
    assert list(problems(page, collected, folder)) == [
        "R1: no test", "R2: no test that runs in the quick suite", "1: no test", "a disk: no test",
        "test_some.py::test_marked_slow: skipped, slow or expected to fail",
    ]  # fmt: skip


@pytest.mark.parametrize("claim", PROMISES)
def test_the_readme_has_the_same_promises(claim):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(re.findall(rf"\*\*{claim}\*\*", readme)) == 1
