"""`lwbench table` over real run directories: full runs, reduced studies, a user's table, sweeps."""

import csv
import io
import json

import pytest

from lwbench.cli import main
from lwbench.commands._keys import parsed
from lwbench.commands._tables import tabulate
from lwbench.commands.table import KEYS
from lwbench.config import train_configs
from lwbench.errors import UsageError
from lwbench.runs.directory import Run

pytestmark = pytest.mark.usefixtures("uncounted")

EPOCH = {"epoch": 1, "test_loss": 1.0, "test_top5": 90.0, "train_top1": 50.0}
MINE = """
source: mine
columns: {digits_top1: {kind: top1, data: digits}}
rows:
  - {label: plain, run: "model=mb0"}
  - {label: low-cost, run: "model=mb0 model.stem=ldc"}
"""


@pytest.fixture
def finish(tmp_path, monkeypatch):
    """Makes the directory of a finished run of these overrides."""

    def make(*overrides, top1=60.0, out=tmp_path / "out"):
        config = train_configs([overrides])[overrides].changed({"out": str(out)})
        run = Run.of(config)
        run.path.mkdir(parents=True)
        run.write_config(config)
        monkeypatch.setattr("sys.argv", ["x/lwbench", "train", *overrides])
        run.record_start()
        run.write_result(
            {
                "identity": run.identity, "model": config.model_name, "data": config.data_name,
                "seed": config.seed, "epochs": config.epochs, "precision": "fp32",
                "device": "a processor", "params": 1_080_000, "seconds": 1.0, "images_per_s": 10.0,
                "final": EPOCH | {"test_top1": top1}, "best": EPOCH | {"test_top1": top1 + 2},
            }
        )  # fmt: skip
        return run.path

    return make


@pytest.fixture
def table(tmp_path):
    """Runs the command on the fixture's runs."""

    def show(*arguments, width=160, **keys):
        keys = {"out": str(tmp_path / "out")} | keys
        if "runs" in keys:
            keys.pop("out")
        values = parsed([f"{key}={value}" for key, value in keys.items()], KEYS)
        return tabulate(values, arguments, train_configs, no_counts, width)

    return show


def no_counts(requests):
    return {}


def cells(text):
    return {(cell["row"], cell["column"]): cell for cell in json.loads(text)}


LDC = ("data=cifar10", "experiment=ldc")
SHORT = ("epochs=10", "image_size=32")


def test_only_full_runs_fill_cells_unless_a_reduced_study_is_asked_for(finish, table):
    for seed, top1 in enumerate([89.0, 89.5, 90.0]):
        finish("model=mb0", *LDC, f"seed={seed}", top1=top1)
        finish("model=mb0", *LDC, *SHORT, f"seed={seed}", top1=top1 - 30)
    full = cells(table(table="ldc/4", columns="cifar10", format="json"))
    assert full["mb0", "cifar10_top1"]["measured"] == 89.5
    assert full["mb0", "cifar10_top1"]["verdict"] == "reproduced"
    assert full["LDC3", "cifar10_top1"]["verdict"] == "open"
    reduced = cells(table(*SHORT, table="ldc/4", columns="cifar10", format="json"))
    assert reduced["mb0", "cifar10_top1"]["measured"] == 59.5
    assert reduced["mb0", "cifar10_top1"]["verdict"] == "reduced"
    assert reduced["mb0", "cifar10_top1"]["overrides"] == list(SHORT)
    other = cells(table("epochs=11", table="ldc/4", columns="cifar10", format="json"))
    assert {cell["measured"] for cell in other.values()} == {None}


def test_a_caption_tells_epoch_recipe_overrides_revision_and_hardware(finish, table):
    finish("model=mb0", *LDC, *SHORT)
    page = table(*SHORT, table="ldc/4", columns="cifar10", select="best", format="markdown")
    assert "a reduced study: epochs=10 image\\_size=32" in page
    assert "best epoch, chosen on the test images, which flatters" in page
    assert "ours: batch\\_size 128, image\\_size 32," in page
    assert "optimizer.weight\\_decay 0.0005" in page
    assert "optimizer.lr" not in page  # the paper's
    assert "Run in fp32 on a processor, with lwbench at " in page
    assert "62.00 (1), reduced" in page


def test_a_wide_interval_is_said_to_show_little(finish, table):
    for seed, top1 in enumerate([80.0, 90.0, 95.0]):
        finish("model=mb0", *LDC, f"seed={seed}", top1=top1)
    shown = {"table": "ldc/4", "rows": "mb0", "columns": "cifar10", "layout": "long"}
    page = " ".join(table(**shown).split())
    assert "reproduced (±37.95)" in page
    assert "mb0 cifar10_top1: an interval wider than one point shows little." in page


def test_kept_runs_are_read_beside_local_ones_unless_left_out(tmp_path, finish, table):
    finish("model=mb0", *LDC, out=tmp_path / "out" / "measured")
    finish("model=mb0", *LDC, "seed=1")
    shown = {"table": "ldc/4", "rows": "mb0", "columns": "cifar10", "format": "json"}
    assert cells(table(**shown))["mb0", "cifar10_top1"]["seeds"] == [0, 1]
    assert cells(table(**shown, archived="false"))["mb0", "cifar10_top1"]["seeds"] == [1]


def test_the_summary_counts_the_verdicts_of_runs(finish, table):
    finish("model=mb0", *LDC)
    listed = json.loads(table(columns="cifar10", rows="mb0,LDC3", format="json"))
    lines = {line["table"]: line for line in listed}
    assert (lines["ldc/4"]["too few runs"], lines["ldc/4"]["open"]) == (1, 1)


def test_a_users_table_needs_no_published_value(tmp_path, finish, table):
    mine = tmp_path / "mine.yaml"
    mine.write_text(MINE)
    for seed, top1 in enumerate([90.0, 91.0, 92.5]):
        finish("model=mb0", "data=digits", f"seed={seed}", top1=top1)
        finish("model=mb0", "model.stem=ldc", "data=digits", f"seed={seed}", top1=top1 + 2)
    page = table(table=str(mine), format="markdown")
    assert "| row | digits\\_top1 (%) | vs plain |" in page
    assert "| plain | 91.17 ± 1.26 (3) |  |" in page
    assert "| low-cost | 93.17 ± 1.26 (3) | +2.00 no difference shown (p 0.250) |" in page
    assert "exact permutation test" in page
    assert "published" not in page


def test_intervals_stand_beside_means_on_demand(finish, table):
    for seed, top1 in enumerate([89.0, 90.0, 91.0]):
        finish("model=mb0", *LDC, f"seed={seed}", top1=top1)
    assert "[87.52, 92.48]" in table(table="ldc/4", columns="cifar10", ci="true")
    assert "[87.52, 92.48]" not in table(table="ldc/4", columns="cifar10")


def sweep(finish):
    for rate in ("0.1", "0.2"):
        for seed, top1 in enumerate([90.0, 91.0, 92.5]):
            more = 3.0 + seed / 10 if rate == "0.2" else 0.0
            job = ("model=mb0", "data=digits", f"seed={seed}", f"optimizer.lr={rate}")
            finish(*job, top1=top1 + more)


def test_a_sweep_is_tabulated_by_the_keys_in_which_its_runs_differ(tmp_path, finish, table):
    sweep(finish)
    page = table(runs=str(tmp_path / "out"), format="markdown")
    assert "| row | optimizer.lr | params | top1 (%) | vs mb0 lr=0.1 |" in page
    assert "| mb0 lr=0.1 | 0.1 | 1.080 M | 91.17 ± 1.26 (3) |  |" in page
    assert "| mb0 lr=0.2 | 0.2 | 1.080 M | 94.27 ± 1.36 (3) | +3.10 better (p \\< 0.001) |" in page
    part = cells(table(runs=str(tmp_path / "out" / "digits"), format="json"))
    assert part["mb0 lr=0.2", "top1"]["difference"] == pytest.approx(3.1)
    assert part["mb0 lr=0.2", "top1"]["command"].startswith("lwbench train model=mb0 data=digits")
    other = table(runs=str(tmp_path / "out"), baseline="mb0 lr=0.2", format="markdown")
    assert "worse (p \\< 0.001)" in other


def test_networks_go_by_their_names_and_data_sets_are_apart(tmp_path, finish, table):
    finish("model=mb0", "data=digits")
    finish("model=ldc3", "data=digits")
    finish("model=ldc3", "data=digits", "model.stem=dc")
    finish("model=mb0", *LDC)
    lines = list(csv.DictReader(io.StringIO(table(runs=str(tmp_path / "out"), format="csv"))))
    of_digits = {line["row"] for line in lines if line["table"].endswith(", digits")}
    assert of_digits == {"mb0 stem=conv", "ldc3 stem=ldc", "ldc3 stem=dc"}
    assert {line["row"] for line in lines if line["table"].endswith(", cifar10")} == {"mb0"}


@pytest.mark.parametrize(
    ("overrides", "keys", "message"),
    [
        ([], {"table": "ldc/5"}, "no table 'ldc/5'; nearest: ldc/4"),
        ([], {"table": "ldc/4", "select": "last"}, "select=last: expected final or best"),
        ([], {"table": "ldc/4", "ci": "yes"}, "ci=yes: expected false or true"),
        ([], {"runs": "nowhere"}, "runs=nowhere: no finished run in it"),
        (["epochs=1"], {"runs": "nowhere"}, "epochs=1 cannot be combined with runs="),
        (["epoch=1"], {"table": "ldc/4"}, "unknown key 'epoch'; nearest: epochs"),
        (["epochs=1"], {"table": "ldc/4", "columns": "params"}, "epochs=1: no accuracy"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(table, overrides, keys, message):
    with pytest.raises(UsageError, match=message):
        table(*overrides, **keys)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("tabel=ldc/4", "unknown key 'tabel'; nearest: table"),
        ("seed=1", "seed=1: the table's rows and columns determine it"),
        ("data=digits", "data=digits: the table's rows and columns determine it"),
        ("ldc/4", "cannot read 'ldc/4'; arguments are written key=value"),
    ],
)
def test_a_mistyped_argument_ends_with_two_and_what_would_be_right(capsys, argument, message):
    assert main(["table", argument]) == 2
    assert message in capsys.readouterr().err
