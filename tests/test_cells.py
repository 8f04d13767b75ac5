"""Every published parameter and MACs figure, counted: 124 cells, each with the verdict it earns."""

from collections import Counter
from functools import cache

import pytest

from lwbench.commands._counting import cached_counts, counted
from lwbench.tables import cells, published
from lwbench.tables.table import COMPLEXITY

# What is not exact, with ours / published; all else rounds to the printed digits.
# fmt: off
NOT_EXACT = {
    ("dcnn/5-2", "1.0 MobileNet-224", "params"): ("misprint", 0.9842),
    ("dcnn/5-3", "1.0 MobileNet-224", "params"): ("misprint", 0.9842),
    ("dcnn/5-3", "1.0 MobileNet-160", "macs"): ("truncated", 1.0023),
    ("dcnn/5-10", "GoogLeNet", "macs"): ("close", 0.9667),
    ("dcnn/5-10", "GoogLeNet", "params"): ("close", 0.9743),
    ("dcnn/5-10", "MobileNet V2", "macs"): ("close", 0.9226),
    ("dcnn/5-10", "MobileNet V2", "params"): ("close", 1.0308),
    ("dcnn/5-10", "MobileNet V3-Large", "macs"): ("truncated", 1.0036),
    ("dcnn/5-10", "MobileNet V3-Large", "params"): ("truncated", 1.0142),
    ("dcnn/5-10", "MobileNet V3-Small", "macs"): ("close", 0.9109),
    ("dcnn/5-12", "ShuffleNet V2 0.5x", "macs"): ("close", 0.9872),
    ("hsnet/1", "HSNet", "macs"): ("fit", 0.9997),
    ("hsnet/3", "Ghost ResNet50", "macs"): ("fit", 0.9993),
    ("hsnet/3", "Ghost-VGG16", "macs"): ("fit", 1.0002),
    ("hsnet/3", "HSNet", "macs"): ("fit", 0.9997),
    ("hsnet/4", "MobileNetV2", "params"): ("truncated", 1.0040),
    ("hsnet/4", "ShuffleNetV2", "params"): ("truncated", 1.0468),
    ("hsnet/4", "HSNet", "params"): ("fit", 0.9948),
    ("hsnet/4", "HSNet", "macs"): ("fit", 0.9997),
    ("hsnet/4", "ResNeXt101", "params"): ("misprint", 0.5898),
    ("mbv1/resolution", "1.0 MobileNet-160", "macs"): ("truncated", 1.0023),
    ("resmb/2", "1.0 MobileNet-224-full-connect", "macs"): ("close", 0.9988),
    ("resmb/3", "1.0 MobileNet-224-full-connect", "macs"): ("close", 0.9988),
    ("resmb/3", "1.0 MobileNet-224-full-connect-pre-act", "macs"): ("close", 0.9988),
    ("resmb/4", "1.0 MobileNet-224-full-connect-pre-act", "macs"): ("close", 0.9988),
    ("resmb/4", "GoogLeNet", "macs"): ("close", 0.9667),
    ("resmb/4", "GoogLeNet", "params"): ("close", 0.9743),
}
# fmt: on
TABLES = {table.name: table for table in published.load("all")}


def _cells(kind):
    return [
        pytest.param(name, figure, id=f"{name}-{figure.row}-{figure.column}")
        for name, table in TABLES.items()
        for figure in table.figures
        if figure.kind == kind
    ]


@cache
def _counts():
    """The counts of all cells, as `lwbench table` makes and caches them."""
    wanted = [request for table in TABLES.values() for request in cells.requirements(table)]
    return cached_counts(wanted, counted)


def _check(name, figure):
    table = TABLES[name]
    at = table.figures.index(figure)
    wanted = cells.CountRequest(figure.model, figure.num_classes, figure.image_size)
    assert wanted in cells.requirements(table)
    cell = cells.filled(table, {wanted: _counts()[wanted]}).cells[at]
    verdict, ratio = NOT_EXACT.get((name, figure.row, figure.column), ("exact", None))
    assert cell.verdict == verdict, f"{cell.measured} for {cell.published}"
    if ratio is not None:
        assert cell.ratio == pytest.approx(ratio, abs=5e-5)


@pytest.mark.parametrize(("name", "figure"), _cells("params"))
def test_params_match_the_printed_digits(name, figure):
    _check(name, figure)


@pytest.mark.parametrize(("name", "figure"), _cells("macs"))
def test_macs_match_the_printed_digits(name, figure):
    _check(name, figure)


def test_ninety_seven_of_124_cells_are_expected_to_be_exact():
    keys = [
        (name, figure.row, figure.column)
        for name, table in TABLES.items()
        for figure in table.figures
        if figure.kind in COMPLEXITY
    ]
    assert set(NOT_EXACT) <= set(keys)
    verdicts = Counter(NOT_EXACT.get(key, ("exact", None))[0] for key in keys)
    assert verdicts == {"exact": 97, "truncated": 6, "close": 12, "misprint": 3, "fit": 6}


@pytest.mark.parametrize(
    ("model", "num_classes", "params", "macs"),
    [
        # the two that a misprint's argument and a padded zero rest on, to the unit
        ("mobilenetv1", 1000, 4_231_976, {"plain": 568_740_352}),
        ("cifar_resnext101", 100, 25_303_204, {}),
    ],
)
def test_the_networks_behind_the_misprints_have_the_argued_size(model, num_classes, params, macs):
    request = cells.CountRequest((f"model={model}",), num_classes, 224)
    found = cached_counts([request], counted)[request]
    assert found["params"] == params
    assert {rule: found["macs"][rule] for rule in macs} == macs
