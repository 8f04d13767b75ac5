"""Verdicts follow the printed digits, and every format says the same, escaped."""

import csv
import io
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from lwbench.errors import UsageError
from lwbench.tables import cells, formats, layout, published
from lwbench.tables.table import RULES

FIGURE = published.load("ldc/4")[0].figures[0]  # mb0, macs


def figure(value, **changes):
    return replace(FIGURE, value=value, **changes)


def zero_counts(table):
    """Counts for all that the table asks for: 1, which no published number rounds to."""
    zero = {"params": 1, "macs": dict.fromkeys(RULES, 1)}
    return dict.fromkeys(cells.requirements(table), zero)


def filled(name, counts=None):
    (table,) = published.load(name)
    return cells.filled(table, zero_counts(table) if counts is None else counts)


NASTY = r"""
source: 'a & b_c <script>alert("x")</script> 100 % $5 #1 {x} ~ ^ \ [bold] | *'
columns: {macs: {kind: macs}}
rows:
  - label: '<b>&amp; | [red]x[/red] \input{y} 50 %_'
    run: "model=mb0"
    macs: "1e6"
notes: ['a | b', '</table>']
"""


@pytest.fixture
def nasty(tmp_path):
    path = tmp_path / "nasty.yaml"
    path.write_text(NASTY, encoding="utf-8")
    return filled(str(path))


@pytest.mark.parametrize(
    ("value", "digits", "measured", "verdict"),
    [
        ("63.4e6", None, 63_418_100, "exact"),
        ("63.4e6", None, 63_350_000, "exact"),  # half is rounded up
        ("63.4e6", None, 63_349_999, "close"),
        ("63.4e6", None, 63_450_000, "truncated"),
        ("63.4e6", None, 63_499_999, "truncated"),
        ("63.4e6", None, 63_500_000, "close"),
        ("569e6", None, 568_740_000, "exact"),
        ("4.00e6", None, 4_027_940, "close"),
        ("4.00e6", 2, 4_027_940, "exact"),
        ("15300e6", None, 15_346_630_144, "close"),
        ("15300e6", 3, 15_346_630_144, "exact"),
        ("1.30e6", 2, 1_360_896, "truncated"),
        ("0.5e6", None, 470_072, "exact"),
        ("63.99e9", None, 63_985_041_000, "exact"),
    ],
)
def test_a_verdict_follows_the_significant_digits(value, digits, measured, verdict):
    assert figure(value, digits=digits).verdict(measured) == verdict


def test_a_fit_stays_a_fit_and_a_misprint_a_misprint_however_near():
    assert figure("63.4e6", fit="free widths").verdict(63_400_000) == "fit"
    assert figure("63.4e6", misprint="a slip").verdict(63_400_000) == "misprint"


def test_a_figure_without_a_published_number_is_just_measured():
    assert figure(None).verdict(1) == "measured"


def test_a_network_is_asked_for_once_by_its_own_overrides_alone():
    (resolution,) = published.load("mbv1/resolution")
    wanted = cells.requirements(resolution)
    assert [(r.model, r.image_size) for r in wanted] == [
        (("model=mobilenetv1",), size) for size in (224, 192, 160, 128)
    ]
    (ldc,) = published.load("ldc/4")
    assert len(cells.requirements(ldc)) == len(ldc.rows)


def test_accuracies_need_no_counts():
    (table,) = published.load("hsnet/5")
    assert cells.requirements(table) == []
    assert {cell.verdict for cell in cells.filled(table, {}).cells} == {"open"}


def test_a_cell_takes_the_count_of_its_own_network_and_rule():
    (table,) = published.load("hsnet/4")
    counts = {
        request: {
            "params": 10 * n,
            "macs": {rule: 100 * n + i for i, rule in enumerate(RULES)},
        }
        for n, request in enumerate(cells.requirements(table), 1)
    }
    numbers = {(cell.row, cell.column): cell.measured for cell in cells.filled(table, counts).cells}
    by_model = {(r.model[0], r.image_size): count for r, count in counts.items()}
    vgg = by_model["model=vgg16", 224]["macs"]["thop2020"]
    assert numbers["VGG16", "macs"] == vgg
    assert numbers["VGG16", "params"] == by_model["model=cifar_vgg16", 32]["params"]
    assert numbers["ResNet50", "macs"] == by_model["model=cifar_resnet50", 224]["macs"]["torchstat"]


def test_a_count_that_is_missing_leaves_its_cell_open():
    cells = filled("hsnet/1", counts={}).cells
    assert [(cell.verdict, cell.measured) for cell in cells] == [("open", None)]


def test_detection_is_not_runnable_here_and_has_no_command():
    cells = filled("dcnn/5-13").cells
    assert {(c.verdict, c.command, c.measured) for c in cells} == {("not runnable here", "", None)}


def test_commands_survive_a_shell():
    cells = {cell.row: cell for cell in filled("hsnet/2").cells}
    command = cells["HSNet ECA stage 3"].command
    assert "'model.eca_stages=[3]'" in command
    assert shlex.split(command)[:2] == ["lwbench", "train"]
    macs = filled("mbv1/resolution").cells[4]
    assert macs.command == "lwbench profile model=mobilenetv1 num_classes=1000 image_size=192"


def test_json_is_one_list_of_every_published_cell_in_base_units():
    sheets = [filled(name) for name in published.names()]
    cells = json.loads(formats.render(sheets, "json"))
    assert len(cells) == 232
    keys = ["table", "row", "column", "published", "measured", "verdict", "rule", "command", "note"]
    assert all(list(cell)[: len(keys)] == keys for cell in cells)
    assert all(isinstance(cell["published"], float) for cell in cells)
    counted = [cell for cell in cells if re.search("params|macs", cell["column"])]
    assert len(counted) == 124
    assert all(cell["measured"] == 1 and cell["rule"] for cell in counted)
    assert cells[0]["published"] == 70.6
    by_key = {(c["table"], c["row"], c["column"]): c for c in cells}
    assert by_key["ldc/4", "mb0", "macs"]["published"] == 63_400_000.0
    assert by_key["hsnet/4", "HSNet", "cifar100_top1_error"]["published"] == 29.25


def written(value):
    if isinstance(value, list):
        return ";".join(map(str, value))
    return "" if value is None else str(value)


def test_csv_holds_what_json_holds():
    sheets = [filled("ldc/4"), filled("hsnet/4")]
    lines = list(csv.DictReader(io.StringIO(formats.render(sheets, "csv"))))
    cells = json.loads(formats.render(sheets, "json"))
    text = [{k: written(v) for k, v in cell.items()} for cell in cells]
    assert lines == text


def test_published_and_measured_stand_side_by_side_as_printed():
    request = cells.requirements(published.load("ldc/4")[0])[0]
    counts = {request: {"params": 2_509_748, "macs": {"thop2020": 63_418_100}}}
    page = formats.render([filled("ldc/4", counts)], "markdown")
    row = next(line for line in page.splitlines() if line.startswith("| mb0 "))
    assert row.startswith(
        "| mb0 |  |  |  |  | 63.4 M | 63.418 M, exact | 2.51 M | 2.5097 M, exact | 67.97 | open"
    )
    assert "| 52.50 |" in row


def test_a_close_cell_tells_its_ratio():
    (table,) = published.load("dcnn/5-12")
    macs = {"params": 1_366_792, "macs": {"plain": 40_476_448}}
    cell = cells.filled(table, dict.fromkeys(cells.requirements(table), macs)).cells[0]
    assert (cell.verdict, str(layout.measured(cell))) == ("close", "40.48 M, close (0.987)")
    assert cell.note.startswith("ours / published = 0.9872; ")


def test_captions_name_source_rule_and_notes_and_explain_the_verdicts_that_occur():
    text = formats.render([filled("dcnn/5-10")], "markdown")
    assert "table 5-10" in text
    assert "Counted under rule plain, 1000 classes, 224 px; conv\\_only for VGG-16 macs." in text
    assert "close: our count has other digits" in text
    assert "truncated:" not in text
    assert "listing of 5.4.1" in text


@pytest.mark.parametrize("name", ["ldc/4", "resmb/3", "hsnet/4", "dcnn/5-13"])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_on_a_terminal_is_wider_than_it(name, width):
    page = formats.render([filled(name)], width=width)
    assert max(map(len, page.splitlines())) <= width


@pytest.mark.parametrize("width", [40, 200])
def test_a_narrow_terminal_loses_no_number(width):
    whole = filled("resmb/3")
    page = re.sub(r"\s", "", formats.render([whole], width=width))
    for cell in whole.cells:
        assert layout.published(cell).text.removesuffix(" M") in page
    assert "params(M)" in page or page.count("M") > 2 * len(whole.table.rows)


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.text += data


def test_html_escapes_every_text(nasty):
    page = Page(formats.render([nasty], "html"))
    assert not {"script", "b"} & set(page.tags)
    assert page.tags.count("table") == 1
    assert nasty.table.source in page.text
    assert nasty.table.rows[0] in page.text
    assert "</table>" in page.text


def test_latex_escapes_every_text(nasty):
    page = formats.render([nasty], "latex")
    assert r"a \& b\_c \textless{}script\textgreater{}" in page
    assert r"\textbackslash{}input\{y\} 50 \%\_" in page
    assert r"\toprule" in page and r"\bottomrule" in page
    rows = [line for line in page.splitlines() if line.endswith(r" \\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [2, 2]


def test_latex_compiles_and_no_table_is_wider_than_the_page(tmp_path, nasty):
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex")
    body = formats.render([nasty, *map(filled, published.names())], "latex")
    head = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
    (tmp_path / "all.tex").write_text(head + body + r"\end{document}", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000
    assert "Overfull" not in done.stdout


def test_a_cell_that_begins_a_latex_row_is_no_argument_of_the_row_before(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text('rows: [{label: "[x]", run: model=mb0}, {label: "*", run: model=mb0}]')
    page = formats.render([filled(str(path))], "latex")
    assert "\n{[}x] &" in page and "\n{*} &" in page


def test_marks_stand_as_printed_in_columns_or_in_lines():
    rows = formats.render([filled("ldc/4")], width=200).splitlines()
    assert next(line for line in rows if line.startswith("LDC2 ")).split()[1:3] == ["x", "x"]
    assert " DC  LDC  shallow cut  deep cut " in next(line for line in rows if " macs " in line)
    long = formats.render([filled("ldc/4")], width=80, is_long=True)
    lines = [line.split() for line in long.splitlines()]
    assert ["LDC2", "LDC", "x"] in lines and ["deep", "cut", "x"] in lines
    assert sum(line[-2:] == ["DC", "x"] for line in lines) == 1


def test_markdown_rows_keep_their_columns_whatever_a_label_holds(nasty):
    lines = formats.render([nasty], "markdown").splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}


def test_terminal_takes_labels_for_text_not_for_markup(nasty):
    assert "[red]x[/red]" in formats.render([nasty], width=120)


def test_the_summary_adds_up_in_every_format():
    found = [filled(name) for name in published.names()]
    stands = [one.summary() for one in found]
    assert sum(one["cells"] for one in stands) == 232
    for one in stands:
        assert one["cells"] == sum(one[word] for word in cells.VERDICTS)
    listing = layout.of_summary(found)
    assert [str(entry) for entry in listing.total[:2]] == ["all", "232"]
    assert {header.text for header in listing.headers[2:]} == {
        word for one in stands for word in (*cells.VERDICTS, *cells.ORIGINS) if one[word]
    }
    lines = json.loads(formats.render_summary(found, "json"))
    assert lines == stands
    assert [line["table"] for line in lines] == published.names()
    assert len(formats.render_summary(found, "csv").splitlines()) == len(stands) + 1
    for form in ("markdown", "latex", "html", "terminal"):
        assert "ldc/4" in formats.render_summary(found, form, width=100)
    assert max(map(len, formats.render_summary(found, width=80).splitlines())) <= 80


@pytest.mark.parametrize("draw", [formats.render, formats.render_summary])
def test_an_unknown_format_is_answered_with_the_nearest(draw):
    with pytest.raises(UsageError, match="no format 'latx'; nearest: latex"):
        draw([], "latx")
