"""Damaged or foreign records cost one row: no table, plan or report ends with a traceback."""

import json
import shutil
from pathlib import Path

import pytest

from lwbench.cli import main
from lwbench.report import build
from lwbench.runs.directory import Run

ROOT = Path(__file__).parent.parent
MEASURED = ROOT / "outputs" / "measured" / "cifar10" / "mb0"
STUDY = ("table=ldc/4", "columns=cifar10", "epochs=10", "image_size=32")
VALUES = ["50000", -1, 1e308, 10**400, None, True, [], {}, [{"a": []}], "", "\x00\ud800", "💥" * 99]


def places(content, path=()):
    """Every key of a JSON document, as a path."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def changed(content, path, value):
    """A copy of the document with another value at a path."""
    copy = json.loads(json.dumps(content))
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return copy


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Three runs of a study as they are, and a copy for every damage of every field."""
    if not MEASURED.is_dir():
        pytest.skip("needs the runs of a checkout, outputs/measured")
    folder = tmp_path_factory.mktemp("damaged")
    runs = sorted(MEASURED.glob("5ac5605e-s*"))
    for run in runs:
        shutil.copytree(run, folder / "cifar10" / "mb0" / run.name)
    number = 100
    for name in ("result.json", "env.json"):
        content = json.loads((runs[0] / name).read_text())
        for path in places(content):
            for value in VALUES:
                copy = folder / "cifar10" / "mb0" / f"{runs[0].name[:-1]}{number}"
                shutil.copytree(runs[0], copy, ignore=shutil.ignore_patterns("*.npz", "*.log"))
                result = json.loads((copy / "result.json").read_text()) | {"seed": number}
                (copy / "result.json").write_text(json.dumps(result))
                original = result if name == "result.json" else content
                (copy / name).write_text(json.dumps(changed(original, path, value)))
                number += 1
    assert number > 400
    return folder


def test_a_table_has_a_row_of_what_can_be_read(out, capsys):
    assert main(["table", *STUDY, f"out={out}", "format=json"]) == 0
    cells = {cell["row"]: cell for cell in json.loads(capsys.readouterr().out)}
    assert {0, 1, 2} <= set(cells["mb0"]["seeds"])
    assert cells["LDC3"]["verdict"] == "open"
    for form in ("terminal", "markdown", "latex", "html", "csv"):
        assert main(["table", *STUDY, f"out={out}", f"format={form}"]) == 0
        assert "mb0" in capsys.readouterr().out
    assert main(["table", f"out={out}"]) == 0


def test_a_table_of_any_runs_has_those_that_can_be_read(out, capsys):
    assert main(["table", f"runs={out}", "format=json"]) == 0
    cells = json.loads(capsys.readouterr().out)
    found = [cell for cell in cells if {0, 1, 2} <= set(cell["seeds"])]
    assert [cell["column"] for cell in found] == ["top1"]


def test_a_plan_names_a_damaged_result_or_is_made(out, capsys):
    code = main(["reproduce", *STUDY, "rows=mb0", "dry_run=true", f"out={out}"])
    assert code == 0 and "# finished: lwbench train model=mb0" in capsys.readouterr().out


def test_the_report_shows_what_can_be_read(out, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "RUN_PICTURES", 0)
    monkeypatch.setattr(build, "STUDY_PICTURES", 2)
    assert main(["report", f"out={out}", f"out_dir={tmp_path}"]) == 0
    page = (tmp_path / "index.html").read_text()
    assert "seed 0: top-1" in page and "ldc/4 with epochs=10 image_size=32" in page


def test_a_changed_configuration_takes_its_run_out_of_the_studies_only(out, tmp_path, monkeypatch):
    copy = shutil.copytree(out / "cifar10", tmp_path / "cifar10")
    for path in copy.glob("*/*"):
        config = Run(path).read_config()
        (path / "config.yaml").write_text(json.dumps(config.values | {"epochs": [3]}))
    monkeypatch.setattr(build, "RUN_PICTURES", 0)
    assert main(["report", f"out={tmp_path}", f"out_dir={tmp_path}/report"]) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert "runs of no table" in page and "Reduced studies" not in page
