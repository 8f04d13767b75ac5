"""Whose measurement a published number is: the document's own, quoted, or of unknown origin."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from lwbench.errors import UsageError
from lwbench.tables import captions, cells, formats, layout, published
from lwbench.tables.table import COMPLEXITY

ORIGINS = Path(__file__).parent.parent.parent / "shared" / "papers" / "origins.csv"


def filled(name):
    (table,) = published.load(name)
    return cells.filled(table, {})


def test_every_published_accuracy_and_speed_states_whose_it_is():
    figures = [f for table in published.load("all") for f in table.figures if f.value]
    assert all((f.origin is not None) == (f.kind not in COMPLEXITY) for f in figures)
    words = [f.origin.word for f in figures if f.origin]
    counted = {word: words.count(word) for word in cells.ORIGINS}
    assert counted == {"own": 39, "quoted": 60, "misquoted": 3, "origin unknown": 6}


@pytest.mark.skipif(not ORIGINS.is_file(), reason="needs origins.csv, the digest of the origins")
def test_origins_are_those_of_the_digest():
    figures = {
        (*table.name.split("/"), f.row, f.column): f
        for table in published.load("all")
        for f in table.figures
        if f.origin is not None
    }
    with open(ORIGINS, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(figures) == 108
    for row in rows:
        figure = figures[row["document"], row["table"], row["row"], row["column"]]
        origin = figure.origin
        assert (figure.value, origin.kind) == (row["published"], row["origin_kind"])
        if origin.kind == "quoted":
            assert origin.agrees == row["agrees"]
            assert origin.value in row["origin_value"]
            assert row["origin"].startswith(origin.citation)


def test_a_cell_says_in_every_format_from_where_it_is_quoted():
    one = filled("dcnn/5-3")
    (cell,) = [c for c in one.cells if c.row.endswith("128") and c.column == "imagenet_top1"]
    assert cell.verdict == "open"
    shown = cell.as_json()
    assert (shown["origin"], shown["origin_value"], shown["origin_agrees"]) == (
        "quoted", "64.4", "differs",
    )  # fmt: skip
    assert str(layout.published(cell)) == "64.6, misquoted"
    text = " ".join(formats.render([one], width=200).split())
    assert "64.6≠ ·" in text and '70.6" ·' in text
    assert "Quoted from MobileNet paper (arXiv 1704.04861), Table 7: 1.0 MobileNet-224" in text
    assert "1.0 MobileNet-128, imagenet_top1: 64.4 there: the MobileNet paper" in text


def test_gains_over_a_quoted_baseline_are_said_to_be_confounded():
    for name in ("resmb/2", "resmb/3", "resmb/4"):
        assert any("confounded by the difference of the recipes" in r
                   for r in captions.remarks(filled(name)))  # fmt: skip


def test_the_summary_has_the_origins_beside_the_verdicts():
    found = [filled("hsnet/5"), filled("ldc/4")]
    headers = [header.text for header in layout.of_summary(found).headers]
    assert headers[-4:] == ["own", "quoted", "misquoted", "origin unknown"]
    first, second = json.loads(formats.render_summary(found, "json"))
    assert (first["own"], first["quoted"], first["misquoted"]) == (2, 10, 2)
    assert (second["own"], second["cells"]) == (18, 30)


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        ({"kind": "quoted"}, "has a citation"),
        ({"kind": "own", "citation": "x"}, "has a citation"),
        ({"citation": "x", "agrees": "differs"}, "needs the value that is printed there"),
        ({"citation": "x", "agrees": "nearly"}, "same"),
        ("elsewhere", "own"),
    ],
)
def test_an_origin_that_says_too_little_is_refused(origin, reason, tmp_path):
    row = {"label": "a", "run": "model=mb0", "digits_top1": {"value": "90.0", "origin": origin}}
    content = {"columns": {"digits_top1": {"kind": "top1", "data": "digits"}}, "rows": [row]}
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match=reason):
        published.load(str(path))
