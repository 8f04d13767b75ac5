"""Claims as data, their verdicts by counting and by runs, and what is printed of them."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lwbench import cli
from lwbench.config import train_configs
from lwbench.errors import UsageError
from lwbench.tables import cells, published
from lwbench.tables.claims import claim, counting, expressions, judge, listing, printed, testing
from lwbench.tables.claims.designs import Design
from lwbench.tables.statistics import Sample

DOCUMENTS = {document.name: document for document in claim.load("all")}
# what counting says of every claim of cost: the digest of the documents has the same
COSTS = {
    "holds": {
        "dcnn/width-10", "dcnn/res-params", "dcnn/res-cost", "dcnn/order-cost", "dcnn/group-cost",
        "dcnn/concat", "dcnn/v2-widths", "dcnn/nonlin", "dcnn/g1-g2", "hsnet/flops-large",
        "hsnet/params", "hsnet/het-cost", "hsnet/w16-cost", "hsnet/ghost-cost", "ldc/ldc0-cost",
        "ldc/dc-ldc", "ldc/cut-cost", "ldc/ldc2-cheaper", "ldc/dsc-ninth", "mbv1/ratio",
        "mbv1/beta2", "resmb/s-free", "resmb/vs-cost", "resmb/pw-share",
    },
    "holds in part": {
        "dcnn/width-cost", "hsnet/flops-light", "hsnet/one-by-one", "ldc/dc-heavy",
        "ldc/resnet152", "mbv1/alpha2", "resmb/f-cost", "resmb/no-cost", "resmb/googlenet",
    },
    "does not hold": {"dcnn/dsc-ratio", "dcnn/linear", "dcnn/pool-head"},
    "not decidable": {"hsnet/few-1x1", "hsnet/stem"},
}  # fmt: skip


def part_of(identifier, column=None):
    document = DOCUMENTS[identifier.partition("/")[0]]
    (one,) = (c for c in document.claims if c.id == identifier.partition("/")[2])
    found = printed.parts(document, one)
    return next(part for part in found if column in (None, part.columns[0]))


def ran(table, values):
    """The table with samples of the given rows: (row, column) -> accuracies by seed."""
    filled = cells.filled(table, {})
    samples = {key: Sample(dict(enumerate(some))) for key, some in values.items()}
    found = [replace(c, sample=samples.get((c.row, c.column))) for c in filled.cells]
    return filled._replace(cells=found)


def outcome(part, left, right, design=None):
    column = part.columns[0]
    filled = ran(part.table, {(part.left, column): left, (part.right, column): right})
    (one,) = testing.corrected([testing.outcome(part, filled)])
    return one


def test_there_are_93_claims_of_which_16_contradict_their_document():
    found = [one for document in DOCUMENTS.values() for one in document.claims]
    assert Counter(one.kind for one in found) == {"accuracy": 52, "cost": 38, "speed": 3}
    assert {name: len(d.claims) for name, d in DOCUMENTS.items()} == {
        "dcnn": 25, "hsnet": 21, "ldc": 22, "mbv1": 8, "resmb": 17,
    }  # fmt: skip
    assert sum(bool(one.contradiction) for one in found) == 16
    assert all(one.decide for one in found if one.kind != "cost")


def test_published_differences_are_those_of_the_tables():
    compared = 0
    for document in DOCUMENTS.values():
        for one in document.claims:
            for part in printed.parts(document, one):
                figures = {(f.row, f.column): f.value for f in part.table.figures}
                pair = [figures[row, part.columns[0]] for row in (part.left, part.right)]
                if part.is_range or None in pair:
                    continue
                assert float(part.published) == pytest.approx(float(pair[0]) - float(pair[1]))
                compared += 1
    assert compared == 102


def test_a_printed_difference_stands_beside_its_binomial_error():
    part = part_of("ldc/ldc0-gain", "cifar10_top1")
    assert part.error == pytest.approx(0.43, abs=0.01)  # sqrt(2 * 0.9 * 0.1 / 10,000)
    assert part.evidence == "clear" and part.in_errors == pytest.approx(2.5, abs=0.01)
    assert part_of("ldc/dc0-null", "cifar10_top1").evidence == "weak"
    assert part_of("resmb/simple").evidence == "not comparable"
    assert "MobileNet paper" in part_of("resmb/simple").mixed
    assert part_of("ldc/ldc2-best", "cifar10_top1").is_as_printed is False


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """`lwbench claims format=json` in a folder without runs, by id."""
    import contextlib
    import io
    import os

    before, text = os.getcwd(), io.StringIO()
    os.chdir(tmp_path_factory.mktemp("empty"))
    try:
        with contextlib.redirect_stdout(text):
            assert cli.main(["claims", "format=json"]) == 0
    finally:
        os.chdir(before)
    return {one["id"]: one for one in json.loads(text.getvalue())}


def test_every_claim_of_cost_is_decided_by_counting(shown):
    found = {word: set() for word in COSTS}
    for identifier, one in shown.items():
        if one["kind"] == "cost":
            found[one["verdict"]].add(identifier)
    assert found == COSTS
    assert all("lost" in shown[one]["reason"] for one in COSTS["not decidable"])


def test_the_findings_name_every_claim_of_cost_that_does_not_simply_hold():
    page = (Path(__file__).parent.parent / "docs" / "findings.md").read_text(encoding="utf-8")
    named = {verdict: set() for verdict in COSTS}
    row = r"^\| (`.*?) \| (does not hold|holds in part|not decidable) \|"
    for identifiers, verdict in re.findall(row, page, re.M):
        named[verdict] |= set(re.findall(r"`(.*?)`", identifiers))
    assert named == {**COSTS, "holds": set()}
    words = {"holds": "hold,", "holds in part": "hold in part", "does not hold": "do not hold"}
    for verdict, word in {**words, "not decidable": "cannot be decided"}.items():
        assert f"{len(COSTS[verdict])} {word}" in page


def test_the_studies_of_the_findings_are_valid():
    folder = Path(__file__).parents[1] / "docs" / "studies"
    (decay,) = published.load(str(folder / "decay.yaml"))
    runs = {figure.train for figure in decay.figures if figure.train}
    assert len(runs) == 4 and all("~data.crop" in run for run in runs)
    (config, *_) = train_configs(runs).values()
    assert "crop" not in config.values["data"]
    files = [folder / "decay_claims.yaml", folder / "ldc.yaml"]
    ids = [one.id for file in files for found in claim.load(str(file)) for one in found.claims]
    assert ids == ["recipe", "stronger", "ldc0-gain", "ldc3-gain", "cut-carried"]


def test_without_runs_an_accuracy_is_not_decided_and_says_why(shown):
    words = {one["verdict"].partition(" ")[0] for one in shown.values() if one["kind"] != "cost"}
    assert words <= {"undecided", "needs", "not"}
    assert shown["resmb/simple"]["verdict"] == "not comparable"
    assert shown["dcnn/coco-acc"]["verdict"] == "needs coco"
    assert shown["ldc/ldc2-best"]["as_printed"] is False
    assert shown["ldc/ldc0-gain"]["command"].startswith("lwbench reproduce claims=ldc/ldc0-gain")


@pytest.mark.parametrize(
    ("identifier", "left", "right", "verdict"),
    [
        ("ldc/ldc0-gain", [61, 62, 63.1], [60, 61, 62], "supported"),
        ("ldc/ldc0-gain", [60, 61, 62], [61, 62, 63.1], "contradicted"),
        ("ldc/ldc0-gain", [60, 64, 62], [61, 62, 63], "undecided"),
        ("ldc/ldc0-gain", [61, 62], [60, 61], "undecided"),  # too few
        # within the margin of 0.1: equal; 0.05 away is not shown to differ
        ("ldc/dc0-null", [60.00, 61.01, 62.00, 63.01], [60, 61, 62, 63], "supported"),
        ("ldc/dc0-null", [60.2, 61.21, 62.2, 63.21], [60, 61, 62, 63], "contradicted"),
        ("ldc/dc0-null", [60.5, 60.6, 62.1, 63], [60, 61, 62, 63], "undecided"),
        # no loss: a loss of 0.02 is within the margin, one of 1 is not
        ("ldc/ldc3-gain", [59.98, 60.99, 61.98, 62.97], [60, 61, 62, 63], "supported"),
        ("ldc/ldc3-gain", [59.0, 60.1, 61.0, 62.1], [60, 61, 62, 63], "contradicted"),
        # errors: lower is what is claimed
        ("hsnet/best-light", [30, 31.1, 32], [31, 32, 33], "supported"),
    ],
)
def test_runs_decide_an_accuracy_as_its_relation_says(identifier, left, right, verdict):
    one = outcome(part_of(identifier), left, right)
    assert one.verdict == verdict
    if one.interval:
        low, high = one.interval
        assert low < one.difference < high


def test_a_claim_is_supported_by_all_of_its_comparisons_and_contradicted_by_one():
    assert testing.combined(["supported", "supported"]) == "supported"
    assert testing.combined(["supported", "undecided"]) == "undecided"
    assert testing.combined(["supported", "contradicted", "undecided"]) == "contradicted"
    assert testing.combined([]) == "undecided"


def test_p_is_corrected_for_all_tests_of_a_document():
    document = DOCUMENTS["hsnet"]
    column = "cifar10_top1"
    part = part_of("hsnet/eca-helps")
    rows = {"HSNet without ECA": [60, 61, 62], "HSNet ECA stage 1": [61, 62, 63.2]}
    rows["HSNet ECA stage 2"] = [62, 63.3, 64]
    filled = ran(part.table, {(row, column): some for row, some in rows.items()})
    found = judge.judged(document, {}, {("epochs=1",): {"hsnet/2": filled}})
    tested = [o for one in found for s in one.studies.values() for o in s if o.p is not None]
    # stages 1 and 2 above none, and 2 above 1 in the order
    assert len(tested) == 3
    assert min(o.corrected for o in tested) == pytest.approx(3 * min(o.p for o in tested))
    helps = next(one for one in found if one.claim.id == "eca-helps")
    assert helps.recipe == ("epochs=1",) and helps.verdict == "undecided"
    expected = f"3 pairs of runs for 2 of {len(helps.outcomes)} comparisons, reduced: epochs=1"
    assert listing.basis(helps) == expected and len(helps.outcomes) > 2


def test_ranges_over_data_sets_are_compared_seed_by_seed():
    part = part_of("ldc/ldc2-stable")
    values = {}
    for row, gains in (("mb0", (0, 0, 0)), ("LDC2", (1, 1.5, 1)), ("LDC1", (1, 4, 1))):
        for key, gain in zip(part.columns, gains, strict=True):
            values[row, key] = [60 + gain + seed for seed in range(3)]
    (one,) = testing.corrected([testing.outcome(part, ran(part.table, values))])
    assert one.difference == pytest.approx(-2.5) and one.towards == "supported"


def test_a_design_looks_at_consecutive_seeds_alone():
    assert testing._consecutive({0: 1.0, 1: 2.0, 3: 4.0}) == {0: 1.0, 1: 2.0}
    design = Design(0.05, 20, frozenset({("aaaa", "bbbb")}))
    assert design.covers("bbbb", "aaaa") and not design.covers("aaaa", "cccc")
    assert design.p([1.0, 1.1]) == 1.0


def test_expressions_are_arithmetic_over_counts_and_nothing_else():
    counts = {"LDC0": 65.0, "mb0": 60.0}
    text = "100 * (macs['LDC0'] - macs['mb0']) / -macs['mb0'] + 2**3"
    assert expressions.value(text, lambda quantity, label: counts[label]) == pytest.approx(-1 / 3)
    for bad in ("__import__('os')", "macs", "macs[0]", "x['LDC0']", "2**99", "[1]", "1 <", "'a'"):
        with pytest.raises(ValueError):
            expressions.value(bad, lambda quantity, label: 1.0)
    with pytest.raises(ValueError, match="division"):
        expressions.value("1 / 0", lambda quantity, label: 1.0)


MINE = {
    "table": "mine.yaml",
    "claims": [
        {"id": "gain", "kind": "accuracy", "says": "b beats a",
         "compare": [{"left": "b", "relation": ">", "right": "a", "columns": ["digits_top1"]}]},
        {"id": "cost", "kind": "cost", "says": "b has more parameters",
         "checks": [{"that": "more", "left": "params['b']", "relation": ">",
                     "right": "params['a']"}]},
    ],
}  # fmt: skip
TABLE = {
    "columns": {"params": {"kind": "params"}, "digits_top1": {"kind": "top1", "data": "digits"}},
    "rows": [{"label": "a", "run": "model=mb0"}, {"label": "b", "run": "model=ldc0"}],
}


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(TABLE))

    def write(content):
        path = tmp_path / "said.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def test_users_state_claims_about_their_own_tables(mine, capsys):
    path = mine(MINE)
    (document,) = claim.load(str(path))
    requests = counting.requests(document)
    counts = {r: {"params": 5 + ("ldc0" in r.model[0])} for r in requests}
    found = judge.judged(document, counts, {})
    assert [one.verdict for one in found] == ["undecided", "holds"]
    assert cli.main(["claims", f"document={path}"]) == 0
    text = capsys.readouterr().out
    assert "said/cost  cost  holds" in text and "said/gain  accuracy  undecided" in text


def test_the_command_of_a_claim_names_the_users_file_and_the_study_that_was_asked_for(mine, capsys):
    path = mine(MINE)
    assert cli.main(["claims", f"document={path}/gain", "epochs=2"]) == 0
    text = capsys.readouterr().out
    assert "said/cost" not in text
    command = f"lwbench reproduce claims={path}/gain until=decided epochs=2"
    assert f"runs: {command}\n" in text
    assert cli.main([*command.split()[1:], "dry_run=true"]) == 0
    assert "# next:\nlwbench train model=" in capsys.readouterr().out
    assert cli.main(["claims", f"document={path}/gein"]) == 2
    assert "nearest: gain" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "price"}, "'cost', 'accuracy' or 'speed'"),
        ({"compare": []}, "one of compare, checks and open"),
        ({"compare": [{"left": "b", "relation": ">", "columns": ["digits_top1"]}]},
         "left and right"),
        ({"compare": [{"left": "b", "right": "a", "relation": "~", "columns": ["digits_top1"]}]},
         "needs a margin"),
        ({"compare": [{"left": "c", "right": "a", "relation": ">", "columns": ["digits_top1"]}]},
         "no row 'c'"),
        ({"compare": [{"left": "b", "right": "a", "relation": ">", "columns": ["params"]}]},
         "no accuracy or speed 'params'"),
        ({"checks": [{"that": "x", "left": "params['z']", "relation": ">", "right": "1"}]},
         "no row or network 'z'"),
        ({"checks": [{"that": "x", "left": "open('z')", "relation": ">", "right": "1"}]},
         "only numbers"),
        ({"id": "Not An Id"}, "match pattern"),
        ({"sais": "typo"}, "unknown key or column 'sais'; nearest: says"),
    ],
)  # fmt: skip
def test_a_claim_that_cannot_be_meant_is_refused_with_its_place(change, reason, mine):
    path = mine(MINE | {"claims": [MINE["claims"][0] | change]})
    with pytest.raises(UsageError, match=r"said\.yaml, claim") as error:
        claim.load(str(path))
    assert reason in str(error.value)


def test_unknown_names_are_answered_with_the_nearest(capsys):
    assert cli.main(["claims", "document=lcd"]) == 2
    assert "nearest: ldc" in capsys.readouterr().err
    assert cli.main(["claims", "document=ldc/ldc0-gian"]) == 2
    assert "nearest: ldc0-gain" in capsys.readouterr().err
