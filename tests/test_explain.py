"""`lwbench explain` finds how published figures were counted."""

import json
from decimal import Decimal

import pytest

from lwbench.cli import main
from lwbench.commands._counting import cached_counts, counted
from lwbench.commands._explaining import Printed, best, candidates, printed, ranks
from lwbench.errors import UsageError
from lwbench.tables import published
from lwbench.tables.cells import CountRequest

ONE = CountRequest(("model=mb0",), 1000, 224)
OTHER = CountRequest(("model=mb0",), 10, 224)


def counts(**macs: int) -> dict:
    return {"params": 2_509_748, "macs": macs}


@pytest.mark.parametrize(
    "text, value, digits",
    [("54.1M", 54_100_000, 3), ("2.35e6", 2_350_000, 3), ("4.090G", 4_090_000_000, 4),
     ("300m", 300_000_000, 3), ("569", 569, 3), ("0.30G", 300_000_000, 2), ("1.5e+3k", 1.5e6, 2)],
)  # fmt: skip
def test_a_figure_is_read_with_its_digits(text, value, digits):
    assert printed(text, "macs") == Printed(Decimal(value), digits)


@pytest.mark.parametrize("text", ["", "much", "-3M", "0", "1.2.3M", "5 x", "1e999"])
def test_another_text_is_refused(text):
    with pytest.raises(UsageError, match=r"expected a figure as printed, such as 54\.1M"):
        printed(text, "macs")


def test_candidates_are_ranked_by_the_printed_digits_that_they_have():
    found = candidates(
        printed("54.1M", "macs"),
        "macs",
        {ONE: counts(plain=54_117_120, far=99_000_000, cut=54_190_000, near=53_900_000)},
    )
    assert [(c.rule, c.digits, c.is_cut) for c in found[:4]] == [
        ("plain", 3, False), ("cut", 3, True), ("near", 2, False), ("far", 0, False)
    ]  # fmt: skip
    assert ranks(found)[:3] == [1, 2, 3]


def test_a_figure_that_is_called_macs_may_be_flops():
    (first, *_) = candidates(printed("600M", "macs"), "macs", {ONE: counts(plain=300_000_000)})
    assert (first.unit, first.value) == ("FLOPs, 2 per MAC", 600_000_000)


def test_ties_share_the_first_rank():
    both = {ONE: counts(plain=54_117_120), OTHER: counts(plain=54_090_000)}
    found = candidates(printed("54.1M", "macs"), "macs", both)
    assert {c.request for c in best(found)} == {ONE, OTHER}
    assert ranks(found)[:2] == [1, 1]


def test_parameters_are_listed_once_whatever_the_image_sizes():
    small = ONE._replace(image_size=128)
    found = candidates(printed("2.51M", "params"), "params", {ONE: counts(), small: counts()})
    assert [c.request for c in found] == [ONE]


def complexity_figures() -> list:
    tables = published.load("all")
    return [f for t in tables for f in t.figures if f.kind in ("macs", "params") and f.value]


def test_for_every_exact_cell_the_tables_rule_is_among_those_ranked_first():
    figures = [f for f in complexity_figures() if f.run is not None]
    requests = {f: CountRequest(f.model, f.num_classes, f.image_size) for f in figures}
    known = cached_counts(requests.values(), counted)
    exact = 0
    for figure, request in requests.items():
        count = known[request]
        value = count["params"] if figure.kind == "params" else count["macs"][figure.rule]
        if figure.verdict(value) != "exact":
            continue
        exact += 1
        as_printed = Decimal(figure.value)
        digits = figure.digits or len(as_printed.as_tuple().digits)
        first = best(candidates(Printed(as_printed, digits), figure.kind, {request: count}))
        rules = {c.rule for c in first if c.unit != "FLOPs, 2 per MAC"}
        assert (figure.rule if figure.kind == "macs" else "") in rules, figure
        assert first[0].digits == digits
    assert exact >= 60


def test_the_command_names_rule_and_form(capsys):
    assert main(["explain", "macs=54.1M", "model=ldc3", "format=json"]) == 0
    first = json.loads(capsys.readouterr().out)["macs"][0]
    assert (first["rule"], first["unit"], first["form"]) == ("thop2020", "MACs", "train")
    assert (first["digits_matched"], first["digits_printed"]) == (3, 3)


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["model=ldc3"], "give a figure and a network"),
        (["macs=54.1M"], "give a figure and a network"),
        (["macs=many", "model=ldc3"], "macs=many: expected a figure as printed"),
        (["macs=1M", "model=ldc3", "image_size=big"], "image_size=big: expected whole numbers"),
        (["macs=1M", "model=ldc4"], "ldc4"),
        (["mac=1M", "model=ldc3"], "unknown key 'mac'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, reason, capsys):
    assert main(["explain", *arguments]) == 2
    assert reason in capsys.readouterr().err


# what papers and libraries print for well-known networks, and the counts behind it
WELL_KNOWN = {
    "resnet18": ("1.81G", 224), "resnet50": ("4.09G", 224), "mobilenet_v2": ("0.30G", 224),
    "mobilenet_v3_small": ("0.06G", 224), "shufflenet_v2_x1_0": ("0.14G", 224),
    "efficientnet_b0": ("0.39G", 224), "vit_b_16": ("17.56G", 224), "densenet121": ("2.83G", 224),
    "vgg16": ("15.47G", 224), "regnet_y_400mf": ("0.40G", 224), "squeezenet1_1": ("0.35G", 224),
}  # fmt: skip


@pytest.mark.parametrize(
    "arch",
    [arch if arch == "resnet18" else pytest.param(arch, marks=pytest.mark.slow)
     for arch in WELL_KNOWN],
)  # fmt: skip
def test_figures_of_well_known_networks_are_explained(arch, capsys):
    from torchvision.models import get_model_weights

    text, size = WELL_KNOWN[arch]
    network = ["model=torchvision", f"model.arch={arch}", f"image_size={size}"]
    # the figure as usually quoted, and the one that torchvision states with three decimals
    stated = f"{get_model_weights(arch).DEFAULT.meta['_ops']:.3f}G"
    for figure in (text, stated):
        assert main(["explain", f"macs={figure}", *network, "format=json"]) == 0
        rows = json.loads(capsys.readouterr().out)["macs"]
        first = [row for row in rows if row["rank"] == 1]
        assert first[0]["digits_matched"] == first[0]["digits_printed"]
        assert not first[0]["is_cut"]
        assert ("plain", "MACs", "train") in [(r["rule"], r["unit"], r["form"]) for r in first]
