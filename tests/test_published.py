"""Published tables are read as printed, and what is wrong in one is named with its file and row."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lwbench.config import train_config
from lwbench.errors import UsageError
from lwbench.paths import conf_folder
from lwbench.tables import published
from lwbench.tables.table import COMPLEXITY
from lwbench.tables.table import RULES as RULES_OF_TABLES

CELLS = Path(__file__).parents[2] / "shared" / "papers" / "cells.csv"

MINE = """
source: mine
count: {rule: plain, num_classes: 10, image_size: 32}
columns:
  params: {kind: params}
  macs: {kind: macs}
  digits_top1: {kind: top1, data: digits}
rows:
  - label: conv
    run: "model=mb0"
    macs: "1.50e6"
  - label: low-cost
    run: "model=mb0 model.stem=ldc"
    digits_top1: "90.00"
"""


@pytest.fixture
def mine(tmp_path):
    def write(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture(scope="module")
def tables():
    return published.load("all")


def test_the_tables_are_those_of_the_five_documents():
    assert published.names() == [
        *(f"dcnn/5-{number}" for number in (2, 3, 10, 11, 12, 13)),
        *(f"hsnet/{number}" for number in (1, 2, 3, 4, 5)),
        "ldc/4",
        "mbv1/resolution",
        "mbv1/width",
        *(f"resmb/{number}" for number in (2, 3, 4)),
    ]


def test_every_published_cell_is_there_as_printed(tables):
    if not CELLS.is_file():
        pytest.skip(f"needs the digest of the documents, {CELLS}")
    with CELLS.open(encoding="utf-8", newline="") as file:
        printed = {
            (f"{line['document']}/{line['table']}", line["row"], line["column"]): line["published"]
            for line in csv.DictReader(file)
        }
    ours = {(t.name, f.row, f.column): f.value for t in tables for f in t.figures}
    assert len(printed) == 232
    assert ours == printed


def test_a_published_cell_has_a_number_and_a_column_named_after_its_kind(tables):
    figures = [figure for table in tables for figure in table.figures]
    assert len(figures) == 232
    for figure in figures:
        assert figure.value is not None
        if figure.kind in COMPLEXITY:
            assert figure.kind in figure.column
        else:
            assert not re.search("params|macs", figure.column)


def test_only_detection_has_no_run(tables):
    without = {table.name for table in tables for figure in table.figures if figure.run is None}
    assert without == {"dcnn/5-13"}


def test_an_accuracy_is_trained_on_its_columns_data_by_its_documents_recipe(tables):
    runs = {(t.name, f.row, f.column): f.train for t in tables for f in t.figures}
    assert runs["ldc/4", "LDC3", "cifar100_top1"] == (
        "model=ldc3",
        "data=cifar100",
        "experiment=ldc",
    )
    assert runs["hsnet/2", "HSNet without ECA", "cifar10_top1"] == (
        "model=hsnet",
        "model.eca_stages=[]",
        "data=cifar10",
        "experiment=hsnet",
    )


def test_counts_take_the_image_size_of_the_run_unless_the_row_says_another(tables):
    sizes = {(t.name, f.row, f.kind): f.image_size for t in tables for f in t.figures}
    assert sizes["mbv1/resolution", "1.0 MobileNet-160", "macs"] == 160
    assert sizes["hsnet/4", "ResNet50", "macs"] == 224  # trained at 32
    assert sizes["hsnet/4", "VGG16", "params"] == 32  # the cell's own


def test_every_name_of_a_rule_is_a_rule_of_the_counter():
    from lwbench.measure.rules import RULES

    assert set(RULES_OF_TABLES) <= set(RULES)


def _composed(*overrides):
    return train_config(overrides).values


def test_every_recipe_holds_only_keys_that_are_known_and_leaves_the_columns_data_alone(tables):
    from lwbench.registry import OPTIMIZERS, SCHEDULERS

    runs = {figure.train[1:] for table in tables for figure in table.figures if figure.train}
    recipes = {run[-2:] for run in runs}
    documents = ("ldc", "dcnn", "hsnet", "mbv1", "resmb")
    assert {recipe for _, recipe in recipes} == {f"experiment={name}" for name in documents}
    plain = _composed()
    for data, recipe in recipes:
        config = _composed(data, recipe)
        assert f"data={config['data']['builder']}" == data
        assert set(config) == set(plain)
        assert set(config["data"]) == set(_composed(data)["data"])
        OPTIMIZERS.spec(config["optimizer"])
        SCHEDULERS.spec(config["scheduler"])


@pytest.mark.parametrize("data", ["cifar10", "cifar100", "caltech256"])
def test_the_ldc_recipe_is_what_its_data_sets_have_without_it(data):
    run = ("model=ldc3", f"data={data}")
    assert _composed(*run, "experiment=ldc") == _composed(*run)


def test_mbv1_decays_no_depthwise_kernel_and_crops_nothing_at_random():
    config = _composed("model=mobilenetv1", "data=imagenet", "experiment=mbv1")
    assert config["optimizer"]["builder"] == "rmsprop"
    assert config["optimizer"]["decay_depthwise"] is False
    assert (config["data"]["crop"], config["data"]["augment"]["crop_padding"]) == (1.0, 0)


def test_resmb_takes_sgd_batches_of_64_and_100_epochs():
    config = _composed("data=imagenet", "experiment=resmb")
    assert config["optimizer"]["builder"] == "sgd"
    assert (config["batch_size"], config["epochs"], config["image_size"]) == (64, 100, 224)


def test_a_row_sets_its_own_image_size_over_the_recipe():
    config = _composed("model=mobilenetv1", "image_size=160", "data=imagenet", "experiment=mbv1")
    assert config["image_size"] == 160


@pytest.mark.parametrize("name", ["ldc", "dcnn", "hsnet", "mbv1", "resmb"])
def test_an_experiment_is_global_and_begins_with_its_documents_name(name):
    path = conf_folder() / "experiment" / f"{name}.yaml"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1].startswith(f"# {name}: ")


def test_loading_imports_neither_torch_nor_hydra():
    code = (
        "import sys; from lwbench.tables import published, cells, formats; published.load('all');"
        "assert not {'torch', 'hydra', 'omegaconf'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_users_own_table_needs_no_published_values(mine):
    (table,) = published.load(mine(MINE))
    assert (table.name, table.rows, table.baseline) == ("mine", ("conv", "low-cost"), "conv")
    values = [figure.value for figure in table.figures]
    assert values == [None, "1.50e6", None, None, None, "90.00"]
    assert table.figures[3].model == ("model=mb0", "model.stem=ldc")
    assert table.figures[2].train == ("model=mb0", "data=digits")


def test_a_folder_of_tables_is_all_of_them(mine, tmp_path):
    mine(MINE, "a.yaml")
    mine(MINE, "b.yaml")
    assert [table.name for table in published.load(str(tmp_path))] == ["a", "b"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rule: plain", "rule: plane", "no rule 'plane'; nearest: plain"),
        ("{kind: macs}", "{kind: mac}", "no kind 'mac'; nearest: macs"),
        ("data: digits", "data: digit", "data set 'digit'; nearest: digits"),
        ("label: conv", "label: low-cost", "row 'low-cost': an earlier row has the same label"),
        ("    macs: ", "    mac: ", "row 'conv': unknown key or column 'mac'"),
        ('"model=mb0"', '"model=mb00"', "row 'conv': run: no model 'mb00'; nearest: mb0"),
        ('"model=mb0"', '"model"', "row 'conv': run: 'model' is not of the form key=value or ~key"),
        ('"model=mb0"', "'model=\"mb0'", "row 'conv': run: No closing quotation"),
        ('"model=mb0"', '"model=mb0 image_size=x"', "row 'conv', params: image_size=x"),
        (
            '"model=mb0"',
            '"model=mb0 data=cifar10"',
            "row 'conv', digits_top1: the data set belongs to",
        ),
        ('    run: "model=mb0"\n', "", "row 'conv', params: the row has no run"),
        ('"90.00"', "90.00", "row 'low-cost', digits_top1: quote the number as printed"),
        ('"90.00"', '"90,00"', "row 'low-cost', digits_top1: value: '90,00' is not a number"),
        ('"90.00"', "[90]", "row 'low-cost', digits_top1: "),
        ('"1.50e6"', '{value: "1.50e6", digits: 1}', "digits=1 does not fit 1.50e6"),
        ('"1.50e6"', '{value: "1.50e6", digits: 4}', "digits=4 does not fit 1.50e6"),
        ('"1.50e6"', '{value: "1.50e6", ratio: 2}', "unknown key or column 'ratio'"),
        ("source: mine", "baseline: none", "no row 'none' (baseline)"),
        ("source: mine", "experiment: lcd", "no experiment 'lcd'; nearest: ldc"),
        ("source: mine", "sauce: mine", "unknown key or column 'sauce'; nearest: source"),
        ("  macs: {", "  label: {", "column 'label': rows have a key of this name"),
        ("rows:", "rows: {", "not YAML"),
    ],
)
def test_a_slip_in_a_table_is_named_with_its_file(mine, old, new, message):
    assert old in MINE
    path = mine(MINE.replace(old, new, 1))
    with pytest.raises(UsageError) as error:
        published.load(path)
    assert str(error.value).startswith(path)
    assert message in str(error.value)


@pytest.mark.parametrize("text", ["", "3", "- a", "rows: []", "rows: [3]", "columns: {a: b}"])
def test_a_file_that_is_no_table_is_an_error_not_a_traceback(mine, text):
    with pytest.raises(UsageError, match=r"mine\.yaml"):
        published.load(mine(text))


def test_an_unknown_table_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="no table 'ldc/5'; nearest: ldc/4"):
        published.load("ldc/5")
    with pytest.raises(UsageError, match="no file"):
        published.load(str(tmp_path / "none.yaml"))
    with pytest.raises(UsageError, match=r"no \.yaml file"):
        published.load(str(tmp_path))
