"""Tables on a terminal: a line per row at any width, signs with a legend, colours on request."""

import os
import pty
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from lwbench.tables import cells, formats, layout, published
from lwbench.tables.cells import BESIDE, VERDICTS, WORDS, FilledTable
from lwbench.tables.statistics import OUTCOMES, Comparison, Sample

TABLES = {table.name: table for table in published.load("all")}
COLOUR = re.compile(r"\x1b\[[\d;]*m")


def exact(table):
    """The table with every count exactly as printed."""
    filled = cells.filled(table, {})
    made = [
        replace(c, measured=float(c.published), verdict="exact") if c.request else c
        for c in filled.cells
    ]
    return FilledTable(table, made)


def ran(filled, outcome="better"):
    """The table with three runs behind every accuracy, compared with the first row."""
    made = []
    for cell in filled.cells:
        if cell.verdict == "open":
            mean = float(cell.published)
            sample = Sample({0: mean - 0.31, 1: mean, 2: mean + 0.31})
            found = Comparison(0.42, "paired", 0.01, 0.031, outcome)
            first = cell.row == filled.table.rows[0]
            cell = replace(
                cell, measured=mean, sample=sample, verdict="reproduced", baseline="first",
                comparison=None if first else found,
            )  # fmt: skip
        made.append(cell)
    return FilledTable(filled.table, made)


def lines(filled, width, **options):
    return formats.render([filled], width=width, **options).splitlines()


def body(filled, width, **options):
    """The lines above the legend."""
    found = lines(filled, width, **options)
    return found[: next(i for i, line in enumerate(found) if re.match("published|[a-z ]+: ", line))]


def row(filled, label, width=100):
    (line,) = [line for line in body(filled, width) if line.startswith(f"{label} ")]
    return line


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("width", [80, 100, 160])
def test_every_published_table_has_a_line_per_row(name, width):
    filled = exact(TABLES[name])
    found = lines(filled, width)
    assert max(map(len, found)) <= width
    for label in filled.table.rows:
        assert sum(line.startswith(f"{label} ") for line in body(filled, width)) == 1


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("width", [40, 80, 100, 160])
def test_no_measured_number_is_lost_when_room_is_short(name, width):
    filled = ran(exact(TABLES[name]))
    found = lines(filled, width)
    assert max(map(len, found)) <= width
    text = re.sub(r"\s", "", "".join(found))
    for cell in filled.cells:
        if cell.sample:
            whose = "" if cell.origin.kind == "own" else WORDS[cell.origin.word].sign
            assert f"{cell.published}{whose}|{cell.sample.mean:.2f}±0.31(3)✓" in text
    assert text.count("+0.42▲") >= sum(cell.comparison is not None for cell in filled.cells)


def test_an_exact_count_is_its_printed_number_and_a_sign():
    assert row(exact(TABLES["ldc/4"]), "LDC3").split()[4:8] == ["54.1", "M", "=", "2.35"]


def test_another_count_stands_beside_the_printed_one():
    table = TABLES["dcnn/5-12"]
    counts = {"params": 1_366_792, "macs": {"plain": 40_476_448}}
    filled = cells.filled(table, dict.fromkeys(cells.requirements(table), counts))
    assert "41 M | 40.48 M ≈" in row(filled, "ShuffleNet V2 0.5x")


def test_an_accuracy_stands_beside_the_published_one_with_spread_runs_and_verdict():
    text = row(ran(exact(TABLES["ldc/4"])), "LDC0", width=200)
    assert "90.35 | 90.35 ± 0.31 (3) ✓  +0.42 ▲ (p 0.031)" in text


def test_units_move_to_the_header_before_spaces_are_left_out():
    wide, narrow = ("\n".join(lines(exact(TABLES["ldc/4"]), width)) for width in (100, 80))
    assert "63.4 M =" in wide and "63.4 =" in narrow and "(M)" in narrow
    mixed = "\n".join(lines(exact(TABLES["hsnet/4"]), 80))
    assert "149.23 M =" in mixed and "2.34 G =" in mixed  # the units of one column differ


def test_columns_that_do_not_fit_follow_below_with_the_labels_repeated():
    filled = ran(exact(TABLES["ldc/4"]))
    found = [line for line in lines(filled, 80) if line.startswith("LDC3 ")]
    assert len(found) > 1 and "54.1 =" in found[0] and "89.82 | 89.82 ± 0.31 (3) ✓" in found[-2]


@pytest.mark.parametrize("width", [60, 80])
def test_a_difference_stays_beside_its_column(width):
    found = lines(ran(exact(TABLES["ldc/4"])), width)
    headers = [line for line in found if line.startswith("row ")]
    assert len(headers) > 1 and not any(line.split()[:2] == ["row", "vs"] for line in headers)


def test_every_verdict_origin_and_outcome_has_a_sign_of_its_own():
    assert set(WORDS) == {*VERDICTS, *BESIDE, *OUTCOMES}
    signs = [one.sign for word, one in WORDS.items() if word != "measured"]
    assert all(signs) and len(set(signs)) == len(signs)


def test_the_legend_explains_the_signs_that_occur_and_no_others():
    text = " ".join(" ".join(lines(exact(TABLES["hsnet/3"]), 100)).split())
    assert "published | measured here = exact: our count, rounded, has the printed digits" in text
    assert "· open: not run yet" in text
    assert not {WORDS[word].sign for word in ("close", "reproduced", "better")} & set(text)


def test_the_long_form_has_a_line_per_cell():
    filled = ran(exact(TABLES["hsnet/3"]))
    found = body(filled, 100, is_long=True)
    (line,) = [line for line in found if line.startswith("ResNet50 ")]
    assert line.split() == ["ResNet50", "macs", "4.09", "G", "4.0900", "G,", "exact"]
    assert len([line for line in found if "cifar10_top1 (%)" in line]) >= len(filled.table.rows)


def test_colours_change_no_character():
    filled = ran(exact(TABLES["ldc/4"]), "worse")
    plain, coloured = (formats.render([filled], width=100, colours=c) for c in (False, True))
    assert "\x1b" not in plain
    bare = COLOUR.sub("", coloured).splitlines()
    assert [line.rstrip() for line in bare] == plain.splitlines()
    assert "\x1b[32m=" in coloured or "\x1b[32m =" in coloured  # green: exact


def shown(monkeypatch, tmp_path, **environment):
    """What `lwbench table` writes to a terminal of 100 columns."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "100", **environment}.items():
        monkeypatch.setenv(name, value)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lwbench", "table", "table=hsnet/2"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=theirs, stderr=subprocess.DEVNULL)
    os.close(theirs)
    text = b""
    try:
        while chunk := os.read(ours, 65536):
            text += chunk
    except OSError:  # Linux reports the end of a terminal as an error
        pass
    os.close(ours)
    assert process.wait() == 0
    return text.decode()


def test_a_terminal_has_colours_unless_they_are_not_wanted(monkeypatch, tmp_path):
    assert COLOUR.search(shown(monkeypatch, tmp_path))
    assert "\x1b" not in shown(monkeypatch, tmp_path, NO_COLOR="1")
    assert "\x1b" not in shown(monkeypatch, tmp_path, TERM="dumb")


def test_a_pipe_has_no_colours(tmp_path):
    command = [sys.executable, "-m", "lwbench", "table", "table=hsnet/2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "87.54 ·" in done.stdout and "\x1b" not in done.stdout


def test_a_layout_holds_an_entry_per_header_in_every_row():
    for table in TABLES.values():
        wide = layout.of_table(ran(exact(table)))
        for one in (wide, layout.long(wide)):
            assert {len(row) for row in one.rows} == {len(one.headers)}
