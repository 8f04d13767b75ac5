"""Parts of tables: chosen by the names that a reader would use, with all that belongs to them."""

import pytest

from lwbench.errors import UsageError
from lwbench.tables import published
from lwbench.tables.selection import selected
from lwbench.tables.table import CHECK


def part(name="ldc/4", **chosen):
    return selected(published.load(name), **chosen)


def test_without_names_everything_stays():
    assert part("all") == published.load("all")


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        ("cifar10_top1", ["cifar10_top1"]),
        ("cifar10", ["cifar10_top1"]),
        ("CIFAR10, macs", ["macs", "cifar10_top1"]),
        ("top1", ["cifar100_top1", "cifar10_top1", "caltech256_top1"]),
        ("params,macs", ["macs", "params"]),  # in the table's order
    ],
)
def test_a_column_goes_by_its_key_its_data_set_or_its_kind(names, columns):
    (table,) = part(columns=names)
    assert list(table.columns) == columns
    assert [f.column for f in table.figures] == columns * len(table.rows)


def test_rows_keep_their_figures_and_marks():
    (table,) = part(rows="ldc3,mb0", columns="params")
    assert table.rows == ("mb0", "LDC3")
    assert [f.value for f in table.figures] == ["2.51e6", "2.35e6"]
    assert table.marks == {mark: ("", CHECK) for mark in table.marks if mark != "DC"} | {
        "DC": ("", "")
    }


def test_the_first_row_is_the_baseline_where_the_tables_own_is_left_out():
    assert part(rows="mb0,LDC3")[0].baseline == "mb0"
    assert part(rows="LDC0,LDC3")[0].baseline == "LDC0"


def test_a_baseline_can_be_chosen():
    assert part(baseline="ldc1")[0].baseline == "LDC1"


def test_a_selection_without_a_cell_is_wrong():
    with pytest.raises(UsageError, match="no table has both rows=LDC3 and columns=imagenet"):
        part("all", rows="LDC3", columns="imagenet")


def test_tables_that_have_nothing_of_it_are_left_out():
    assert {table.name for table in part("all", columns="cifar10")} == {
        "hsnet/2",
        "hsnet/3",
        "ldc/4",
    }


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"rows": "LDC4"}, "no row 'LDC4'; nearest: LDC"),
        ({"columns": "cifar1"}, "no column 'cifar1'; nearest: .*cifar10"),
        ({"rows": "mb0,mb1"}, "no row 'mb1'"),
        ({"rows": "mb0", "baseline": "LDC3"}, "no row 'LDC3'; there is: mb0"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(chosen, message):
    with pytest.raises(UsageError, match=message):
        part(**chosen)
