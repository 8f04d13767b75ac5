"""Bundles of a table and its runs: made, verified, tampered with, and run again."""

import json
import zipfile

import pytest

from lwbench import cli
from lwbench.config import train_configs
from lwbench.errors import DamagedError, UsageError
from lwbench.runs import bundle
from lwbench.runs.directory import Run

pytestmark = pytest.mark.usefixtures("uncounted")

FACTS = {"made": "2026-01-01T00:00:00Z", "lwbench": "0.1.0", "revision": None, "table": "t.yaml",
         "cells": "cells.json"}  # fmt: skip
FILES = {"t.yaml": b"rows: []", "cells.json": b"[]", "runs/a/b/c/result.json": b"{}"}
EPOCH = {"epoch": 1, "test_loss": 1.0, "test_top5": 90.0, "train_top1": 50.0}
MINE = """
columns: {digits_top1: {kind: top1, data: digits}}
rows:
  - {label: plain, run: "model=mb0 epochs=1"}
  - {label: better, run: "model=ldc0 epochs=1"}
"""


@pytest.fixture
def made(tmp_path):
    bundle.write(tmp_path / "a.zip", FILES, FACTS)
    return tmp_path / "a.zip"


def rewritten(path, change):
    """The archive with its files changed by a function of name and content."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    target = path.with_name("b.zip")
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in change(content).items():
            archive.writestr(name, data)
    return target


def test_what_is_unpacked_is_what_was_put_in(made, tmp_path):
    manifest = bundle.unpacked(made, tmp_path / "out")
    assert set(manifest.digests) == set(FILES)
    for name, content in FILES.items():
        assert (tmp_path / "out" / name).read_bytes() == content
    again = tmp_path / "again.zip"
    bundle.write(again, FILES, FACTS)
    assert again.read_bytes() == made.read_bytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c | {"cells.json": b"[1]"}, "changed: 'cells.json'"),
        (lambda c: {k: v for k, v in c.items() if k != "t.yaml"}, "removed: 't.yaml'"),
        (lambda c: c | {"extra.py": b"print(1)"}, "added: 'extra.py'"),
    ],
)
def test_tampering_is_noticed(change, reason, made, tmp_path):
    with pytest.raises(DamagedError, match=reason):
        bundle.unpacked(rewritten(made, change), tmp_path / "out")


def manifest_with(content, **changes):
    return content | {bundle.MANIFEST: json.dumps(json.loads(content[bundle.MANIFEST]) | changes)}


@pytest.mark.parametrize("key", ["table", "claims", "cells"])
def test_a_manifest_names_files_of_the_bundle_alone(key, made, tmp_path):
    path = rewritten(made, lambda content: manifest_with(content, **{key: "../other.yaml"}))
    with pytest.raises(UsageError, match="missing or damaged"):
        bundle.unpacked(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "C:evil", "a\\evil"])
def test_no_file_is_written_outside_the_folder(name, made, tmp_path):
    def lead_out(content):
        digests = json.loads(content[bundle.MANIFEST])["digests"]
        digests[name] = bundle._sha256(b"x")
        return manifest_with(content, digests=digests) | {name: b"x"}

    with pytest.raises(DamagedError, match="leads out of the bundle"):
        bundle.unpacked(rewritten(made, lead_out), tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("*evil"))


@pytest.mark.parametrize(
    "content", [b"", b"no archive", b"PK\x03\x04" + b"\0" * 40], ids=["empty", "text", "cut"]
)
def test_what_is_no_bundle_is_said_to_be_none(content, tmp_path):
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UsageError, match="not a readable bundle"):
        bundle.unpacked(tmp_path / "a.zip", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", b"y")
    with pytest.raises(UsageError, match=r"manifest\.json is missing or damaged"):
        bundle.unpacked(tmp_path / "a.zip", tmp_path / "out")


def test_a_file_that_is_too_large_is_not_read(made, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "LARGEST", 100)
    with pytest.raises(UsageError, match="larger than"):
        bundle.unpacked(made, tmp_path / "out")


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A table of one's own with three finished runs of each row."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(MINE)
    for model, gain in (("mb0", 0.0), ("ldc0", 1.0)):
        request = (f"model={model}", "epochs=1", "data=digits")
        for seed in range(3):
            config = train_configs([request])[request].changed({"seed": seed})
            run = Run.of(config)
            run.path.mkdir(parents=True)
            run.write_config(config)
            run.record_start()
            figures = EPOCH | {"test_top1": 60 + gain + seed}
            run.write_result(
                {"identity": run.identity, "model": model, "data": "digits", "seed": seed,
                 "epochs": 1, "precision": "fp32", "device": "a processor", "params": 1_000_000,
                 "seconds": 1.0, "images_per_s": 10.0, "final": figures, "best": figures}
            )  # fmt: skip
    return tmp_path


def test_a_bundle_is_verified_without_its_makers_folder(study, capsys):
    assert cli.main(["bundle", "table=mine.yaml", "file=claim.zip"]) == 0
    assert "6 runs" in capsys.readouterr().out
    (study / "mine.yaml").unlink()
    (study / "outputs").rename(study / "gone")
    assert cli.main(["verify", "claim.zip"]) == 0
    text = capsys.readouterr().out
    assert "digests: " in text and "table: 2 measured cells from 6 runs" in text
    assert not (study / "outputs").exists()


CLAIMS = """
table: mine.yaml
rows:
  - {label: "a third", run: "model=dc0"}
claims:
  - id: gain
    kind: accuracy
    says: It is more accurate.
    compare: [{left: better, relation: ">", right: plain, columns: [digits_top1]}]
  - id: third
    kind: accuracy
    says: So is the third.
    compare: [{left: "a third", relation: ">", right: plain, columns: [digits_top1]}]
"""


def test_claims_of_a_bundle_are_judged_by_its_records_and_designs(study, capsys):
    (study / "said.yaml").write_text(CLAIMS)
    finished = study / "outputs" / "digits"
    # as archived runs with the design of a study that grew
    (study / "outputs" / "measured").mkdir()
    finished.rename(study / "outputs" / "measured" / "digits")
    request = ("model=dc0", "epochs=1", "data=digits")
    identities = {m: train_configs([(f"model={m}", *request[1:])]) for m in ("mb0", "ldc0")}
    pair = [next(iter(one.values())).identity for one in identities.values()]
    design = study / "outputs" / "measured" / "studies" / "abc" / "design.json"
    design.parent.mkdir(parents=True)
    comparison = {"name": "better", "identities": pair}
    design.write_text(json.dumps({"alpha": 0.05, "max_seeds": 5, "comparisons": [comparison]}))
    assert cli.main(["bundle", "table=mine.yaml", "claims=said.yaml", "file=claim.zip"]) == 0
    (study / "mine.yaml").unlink()
    (study / "outputs").rename(study / "gone")
    capsys.readouterr()
    assert cli.main(["verify", "claim.zip"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "table: 2 measured cells from 6 runs"
    assert [line.split()[:3] for line in lines[2:]] == [
        ["said/gain", "accuracy", "undecided"],  # p is 0 for a fixed number of seeds, 0.2 here
        ["said/third", "accuracy", "undecided"],
    ]


def test_rows_that_claims_add_are_in_the_bundle(study, capsys):
    (study / "mine.yaml").write_text(MINE.partition("  - {label: better")[0])
    rows = CLAIMS.replace(
        'label: "a third", run: "model=dc0"', 'label: better, run: "model=ldc0 epochs=1"'
    )
    (study / "rows.yaml").write_text(rows.partition("  - id: third")[0])
    assert cli.main(["bundle", "table=mine.yaml", "file=a.zip"]) == 0
    assert "3 runs" in capsys.readouterr().out
    assert cli.main(["bundle", "table=mine.yaml", "claims=rows.yaml", "file=b.zip"]) == 0
    assert "6 runs" in capsys.readouterr().out
    assert cli.main(["verify", "b.zip"]) == 0
    assert "2 measured cells from 6 runs" in capsys.readouterr().out


def test_a_table_that_does_not_follow_from_its_records_is_noticed(study, capsys):
    assert cli.main(["bundle", "table=mine.yaml", "file=claim.zip"]) == 0

    def improve(content):
        cells = json.loads(content["cells.json"])
        cells[1]["measured"] += 5  # with a digest that fits, as its maker can do
        text = json.dumps(cells).encode()
        digests = json.loads(content[bundle.MANIFEST])["digests"]
        digests["cells.json"] = bundle._sha256(text)
        return manifest_with(content, digests=digests) | {"cells.json": text}

    path = rewritten(study / "claim.zip", improve)
    capsys.readouterr()
    assert cli.main(["verify", str(path)]) == 1
    assert "differs: better, digits_top1: measured 67.0, from the records 62.0" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["bundle", "table=mine.yaml"], "needs file="),
        (["bundle", "table=mine.yaml", "file=a.tar"], "ends in .zip"),
        (["bundle", "table=mine.yaml", "file=a.zip", "out=empty"], "no finished run"),
        (["bundle", "table=all", "file=a.zip"], "of one table"),
        (["verify"], "needs one bundle"),
        (["verify", "none.zip"], "no file none.zip"),
        (["verify", "none.zip", "rerun=some"], "expected a number"),
    ],
)
def test_wrong_input_is_said_in_a_line(command, reason, study, capsys):
    assert cli.main(command) == 2
    assert reason in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_of_a_bundle_is_made_again_and_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(MINE)
    for model in ("mb0", "ldc0"):
        assert cli.main(["train", f"model={model}", "epochs=1", "data=digits"]) == 0
    assert cli.main(["bundle", "table=mine.yaml", "file=claim.zip", "weights=true"]) == 0
    assert cli.main(["verify", "claim.zip", "rerun=1"]) == 0
    assert "alike" in capsys.readouterr().out
