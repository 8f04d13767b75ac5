"""README and docs: what they show can be run, and what they claim is so."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def commands(page):
    """The lines of indented blocks that run lwbench, without their comments."""
    lines = re.findall(r"^    (lwbench .*)$", text(page), re.MULTILINE)
    return [" ".join(shlex.split(line, comments=True)) for line in lines]


# --- docs/extending.md ---------------------------------------------------------------------------


def files_of(page):
    """`**path**` above a fenced block -> (its content, whether it is appended to the file)."""
    pattern = r"^\*\*(\S+)\*\*( \(appended\))?\n\n```\w+\n(.*?)^```"
    found = re.findall(pattern, text(page), re.MULTILINE | re.DOTALL)
    return {path: (content, bool(appended)) for path, appended, content in found}


def test_the_steps_of_extending_work_in_a_copy_of_the_package(tmp_path):
    for folder in ("lwbench", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    files = files_of("docs/extending.md")
    assert len(files) == 9
    for path, (content, appended) in files.items():
        assert (tmp_path / path).exists() == appended, path
        (tmp_path / path).parent.mkdir(exist_ok=True)
        with open(tmp_path / path, "a", encoding="utf-8") as file:
            file.write(("\n\n" if appended else "") + content)
    (tmp_path / "work").mkdir()
    lines = commands("docs/extending.md")
    assert len(lines) > 8
    script = (
        "import sys\nfrom lwbench.cli import main\n"
        f"for line in {[line.split()[1:] for line in lines]}:\n"
        "    print('$', *line, flush=True)\n"
        "    if code := main(line):\n"
        "        sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "work", capture_output=True, text=True,
        env={"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for wanted in ("simplenet at 3 x 32 x 32", "digits/simplenet_wide/", "stripes", "mine/1"):
        assert wanted in done.stdout
    # the count that the table prints, and the runs that `rank` lists
    assert re.search(r"narrow +24.3 k =", done.stdout)
    assert len(re.findall(r"^ *\d+\.\d\d %  outputs/", done.stdout, re.MULTILINE)) >= 4


# --- docs/architecture.md ------------------------------------------------------------------------

UBIQUITOUS = {"registry", "errors", "paths", "logs", "__init__", "__main__"}


def test_the_diagram_has_the_imports_of_the_packages(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    from test_architecture import graph

    page = text("docs/architecture.md")
    assert page.count("```mermaid") == 1
    drawn = set(re.findall(r"^    (\w+) --> (\w+)$", page, re.MULTILINE))
    actual = {
        (here, other)
        for here, others in graph().items()
        for other in others
        if not {here, other} & UBIQUITOUS
    }
    assert drawn == actual


def test_the_page_names_every_package_and_module_under_lwbench():
    page = text("docs/architecture.md")
    packages = {path.parent.name for path in (ROOT / "lwbench").glob("*/__init__.py")}
    modules = {path.name for path in (ROOT / "lwbench").glob("*.py")}
    rows = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    named = {name.rstrip("/") for row in rows for name in re.findall(r"`([\w./]+)`", row)}
    assert packages <= named
    assert modules - {"__init__.py", "__main__.py"} <= named


def test_the_page_lists_what_a_run_directory_holds():
    from lwbench.runs.directory import METRICS, OFFSET_METRICS
    from lwbench.runs.schema import Figures, Result

    page = text("docs/architecture.md")
    section = page.partition("## The run directory")[2].partition("\n## ")[0]
    words = set(re.findall(r"`([\w.]+)`", section))
    assert {*METRICS, *OFFSET_METRICS, *Result.model_fields, *Figures.model_fields} <= words


def test_the_page_lists_the_keys_that_are_not_part_of_the_identity():
    from lwbench.runs.runconfig import _ALWAYS_IDENTIFYING, _NOT_IDENTIFYING

    page = text("docs/architecture.md")
    section = page.partition("## Identity")[2].partition("\n## ")[0]
    left_out = re.search(r"Not part of it:.*?\. A key", section, re.DOTALL)[0]
    named = {word.removesuffix(".*") for word in re.findall(r"`([\w.*]+)`", left_out)}
    assert named == _NOT_IDENTIFYING - {"seed", "data.recipe"}
    always = re.search(r"empty list\).*?always count", section, re.DOTALL)[0]
    assert set(re.findall(r"`(\w+)`", always)) == _ALWAYS_IDENTIFYING
