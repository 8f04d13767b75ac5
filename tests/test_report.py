"""The report: where runs belong, what the page says, that nothing in it is executed, its speed."""

import json
import os
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lwbench import cli
from lwbench.config import train_configs
from lwbench.report import build
from lwbench.runs.directory import Run
from lwbench.runs.records import records
from lwbench.tables import published, studies
from lwbench.tables.cells import ORIGINS, VERDICTS

REDUCED = ("epochs=4", "image_size=32")
EVIL = """</script><script>alert(1)</script><img src=x onerror="alert('2')">"""


def make(out, *overrides, seed=0, top1=60.0, env=None, **changes):
    """A finished run's directory with made-up figures, of a configuration that is composed."""
    request = tuple(overrides)
    config = train_configs([request])[request].changed({"seed": seed, "out": str(out)})
    run = Run.of(config)
    run.path.mkdir(parents=True)
    run.write_config(config)
    environment = {
        "command": f"lwbench train {' '.join(overrides)} seed={seed}",
        "started": f"2026-01-02T03:04:{seed % 60:02d}Z",
        "git_revision": "0123456789abcdef",
        "data": {"digest": "abc", "train_size": 50_000, "test_size": 10_000},
    }
    (run.path / "env.json").write_text(json.dumps(environment | (env or {})))
    last = config.epochs
    gains = {epoch: 1 - 0.5**epoch for epoch in range(1, last + 1)}
    run.write_metrics(
        [
            {"epoch": epoch, "train_loss": 2.3 - gain, "train_top1": top1 * gain,
             "test_loss": 2.2 - gain, "test_top1": top1 * gain}
            for epoch, gain in gains.items()
        ]
    )  # fmt: skip
    figures = {"epoch": last, "test_loss": 1.0, "test_top1": top1, "test_top5": 95.0,
               "train_top1": 61.0}  # fmt: skip
    result = {
        "identity": config.identity, "model": config.model_name, "data": run.data_name,
        "seed": seed, "epochs": last, "precision": "fp32", "device": "a processor", "params": 10,
        "seconds": 9.0, "images_per_s": 10.0, "final": figures,
        "best": figures | {"test_top1": top1 + 1},
    }  # fmt: skip
    np.savez(run.path / "confusion.npz", train=np.eye(10) * 9, test=np.eye(10) * 3)
    run.write_result(result | changes)
    return run.path


def ldc4(out, *models, seeds=(0, 1, 2), extra=REDUCED):
    for number, model in enumerate(models):
        for seed in seeds:
            overrides = (f"model={model}", "data=cifar10", "experiment=ldc", *extra)
            make(out, *overrides, seed=seed, top1=60.0 + number + seed / 10)


def write(out, **changes):
    """Writes the report of `out`; returns the page's text."""
    arguments = [f"{key}={value}" for key, value in {"out": out, **changes}.items()]
    assert cli.main(["report", *arguments]) == 0
    return (Path(changes.get("out_dir", out / "report")) / "index.html").read_text()


class Rows(HTMLParser):
    """The texts of the cells of every table, by the id of the heading before it."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.heading, self.depth, self.text = {}, "", 0, ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag in ("h2", "h3"):
            self.heading = attributes.get("id", "")
        if tag == "tr":
            self.tables.setdefault(self.heading, []).append([])
        if tag in ("td", "th"):
            self.tables[self.heading][-1].append("")
            self.depth = 1
        if tag == "div" and attributes.get("class") == "opened":
            self.depth = 0  # what a row opens is no cell

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.depth = 0

    def handle_data(self, data):
        self.text += f" {data} "
        if self.depth:
            self.tables[self.heading][-1][-1] += data

    def of(self, heading):
        """Rows by their label."""
        rows = [[" ".join(text.split()) for text in row] for row in self.tables[heading]]
        return {row[0]: row[1:] for row in rows if len(row) > 1}


@pytest.fixture(scope="module")
def few_pictures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "STUDY_PICTURES", 1)
        patch.setattr(build, "RUN_PICTURES", 1)
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory, few_pictures):
    """A reduced study of three networks, full runs of one, and runs of no table."""
    folder = tmp_path_factory.mktemp("outputs")
    ldc4(folder, "mb0", "dc0", "ldc0")
    ldc4(folder, "mb0", extra=())
    make(folder, "model=mb0", "data=digits", "epochs=3", top1=97.0)
    write(folder)
    return folder


@pytest.fixture(scope="module")
def text(out):
    return (out / "report" / "index.html").read_text()


STUDY = "ldc-2f4-20with-20epochs-3d4-20image-5fsize-3d32"


def test_the_pages_pictures_lie_beside_it_as_png_and_svg(out, text):
    pictures = sorted(path.name for path in (out / "report" / "pictures").iterdir())
    drawn = text.count('src="data:image/svg+xml')
    assert len(pictures) == 2 * drawn and pictures[0] == "01-ldc-4-cifar10-loss-per-epoch.png"
    heads = {(out / "report" / "pictures" / name).read_bytes()[:4] for name in pictures}
    assert heads == {b"\x89PNG", b"<?xm"}


# --- where runs belong --------------------------------------------------------------------------


def sort(out):
    """The studies by table and overrides, with the number of runs of each; and the other runs."""
    tables = published.load("all")
    configs = train_configs(f.train for t in tables for f in t.figures if f.train)
    found, others = studies.all_studies(tables, configs, records(out))
    sizes = {(t.name, s.overrides): sum(map(len, s.records.values())) for t, s in found}
    return sizes, [record.run.path.parent.name for record in others]


def test_runs_are_sorted_into_full_ones_reduced_studies_and_others(out):
    sizes, others = sort(out)
    assert sizes == {("ldc/4", REDUCED): 9, ("ldc/4", ()): 3}
    assert others == ["mb0"]


def test_a_study_is_named_by_all_keys_that_differ_whatever_the_command_said(tmp_path):
    recipe = ("epochs=4", "image_size=32", "optimizer.lr=0.5", "data.augment.flip=false")
    make(tmp_path, "model=mb0", "data=cifar10", "experiment=ldc", *recipe)
    sizes, _ = sort(tmp_path)
    ((table, overrides),) = sizes
    assert table == "ldc/4" and set(overrides) == set(recipe)


def test_another_network_than_the_tables_is_no_reduced_study(tmp_path):
    make(tmp_path, "model=mb0", "data=cifar10", "experiment=ldc", "model.stem=dc", "epochs=4")
    assert sort(tmp_path) == ({}, ["mb0"])


@pytest.mark.parametrize(
    "content",
    ["", "model: 3", "a: [" * 3000]
    + [pytest.param(content, marks=pytest.mark.slow) for content in ("{", "- 1", "\x00")],
)
def test_a_damaged_configuration_makes_a_run_one_of_no_table(tmp_path, few_pictures, content):
    path = make(tmp_path, "model=mb0", "data=cifar10", "experiment=ldc", *REDUCED)
    (path / "config.yaml").write_text(content)
    assert sort(tmp_path) == ({}, ["mb0"])
    assert "runs of no table" in write(tmp_path)


# --- what the page says -------------------------------------------------------------------------


def test_the_summary_counts_every_published_cell_once(text):
    rows = Rows(text).of("summary")
    total = dict(zip(rows["table"], map(int, rows["all"]), strict=True))
    assert total["cells"] == 232 == sum(total.get(word, 0) for word in VERDICTS)
    assert sum(total[word] for word in ORIGINS) == 108
    assert total["open"] == 101 and total["differs"] == 1


def test_a_reduced_study_has_a_table_of_its_own_and_its_verdict_is_reduced(text):
    rows = Rows(text).of(STUDY)
    assert rows["mb0"] == ["", "", "", "", "89.28", "60.10 ± 0.10 (3) reduced", ""]
    assert rows["DC0"][4:6] == ["89.33", "61.10 ± 0.10 (3) reduced"]
    assert re.match(r"\+1.00 no difference shown p 0.\d{3}$", rows["DC0"][6])
    assert set(rows) & {"LDC1", "LDC2", "LDC3"} == set()


def test_full_runs_alone_fill_the_published_table(text):
    rows = Rows(text).of("ldc-2f4")
    assert rows["mb0"][11] == "60.10 ± 0.10 (3) differs ±0.50"
    assert rows["DC0"][11] == "open"


def test_a_row_without_runs_shows_what_would_measure_it(text):
    assert "lwbench train model=ldc3 data=cifar100 experiment=ldc" in text


def test_a_run_opens_to_its_command_configuration_environment_and_metrics(text):
    assert (
        "lwbench train model=dc0 data=cifar10 experiment=ldc epochs=4 image_size=32 seed=2" in text
    )
    for piece in ("builder: mobilenet_ldc", "0123456789ab", "test_loss", "a processor"):
        assert piece in text


def test_a_resumed_run_names_the_code_machine_and_command_of_every_start(tmp_path, few_pictures):
    starts = [
        {"git_revision": "a" * 40, "device": "CPU one", "versions": {"torch": "2.0"}, "steps": 5,
         "started": "2026-01-01T00:00:00Z", "command": "lwbench train one", "system": "Linux 1"},
        {"git_revision": "b" * 40, "device": "GPU two", "versions": {"torch": "2.1"}, "steps": 5,
         "started": "2026-01-02T00:00:00Z", "command": "__main__.py train two", "git_dirty": True},
    ]  # fmt: skip
    make(tmp_path, "model=mb0", "data=cifar10", "experiment=ldc", *REDUCED, env={"starts": starts})
    page = " ".join(Rows(write(tmp_path)).text.split())
    assert "revision aaaaaaaaaa, bbbbbbbbbb+" in page and "device CPU one, GPU two" in page
    assert "torch 2.0 then 2.1" in page and "system Linux 1" in page
    assert "started 2026-01-01T00:00:00Z, 2026-01-02T00:00:00Z" in page
    assert "command lwbench train one python -m lwbench train two" in page
    assert "Run in fp32 on CPU one, GPU two, with lwbench at aaaaaaaaaa, bbbbbbbbbb+." in page


def test_best_is_shown_on_demand_and_said_to_flatter(out, tmp_path):
    page = write(out, select="best", out_dir=tmp_path)
    assert Rows(page).of(STUDY)["mb0"][5].startswith("61.10")
    assert "flatters" in page


def test_the_same_runs_make_the_same_page_whatever_the_times_of_their_files(out, text, tmp_path):
    for age, path in enumerate(sorted(out.rglob("*.json"))):
        os.utime(path, (10**9 - age, 10**9 - age))
    assert write(out, out_dir=tmp_path) == text


def test_an_empty_folder_makes_a_page_of_published_numbers(tmp_path):
    page = write(tmp_path)
    assert "no finished runs yet" in page and Rows(page).of("ldc-2f4")["mb0"][11] == "open"


def test_kept_runs_are_shown_unless_they_are_not_wanted(tmp_path, few_pictures):
    ldc4(tmp_path / "measured", "mb0", seeds=(0,))
    assert STUDY in write(tmp_path)
    assert STUDY not in write(tmp_path, archived="false")


@pytest.mark.parametrize("argument", ["select=last", "kept=maybe", "outdir=x"])
def test_a_wrong_key_is_the_users_error(argument, capsys):
    assert cli.main(["report", argument]) == 2
    assert "lwbench: " in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_said(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["report", f"out={tmp_path}", f"out_dir={tmp_path}/file"]) == 1
    assert "cannot write" in capsys.readouterr().err


# --- damage and malice --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("env.json", b"{"),
        pytest.param("env.json", b"[1]", marks=pytest.mark.slow),
        (
            "env.json",
            b'{"data": 3, "versions": [], "git_revision": 5, "started": {}, "command": []}',
        ),
        ("env.json", b'{"versions": {"a": {}}, "data": {"train_size": "x", "digest": []}}'),
        ("metrics.csv", b"\xff\xfe\x00"),
        ("metrics.csv", b"epoch,test_loss\n1,nan\n2,inf\nx,y\n"),
        pytest.param("metrics.csv", b"", marks=pytest.mark.slow),
        ("confusion.npz", b"PK\x03\x04 no archive"),
    ],
)
def test_a_damaged_file_never_breaks_the_page(tmp_path, few_pictures, name, content):
    path = make(tmp_path, "model=mb0", "data=cifar10", "experiment=ldc", *REDUCED)
    (path / name).write_bytes(content)
    assert Rows(write(tmp_path)).of(STUDY)["mb0"][5] == "60.00 (1) reduced"


@pytest.mark.parametrize("name", ["env.json", "metrics.csv"])
def test_a_missing_file_is_named(tmp_path, few_pictures, name):
    path = make(tmp_path, "model=mb0", "data=cifar10", "experiment=ldc", *REDUCED)
    (path / name).unlink()
    assert f"{name} is missing" in write(tmp_path)


class Markup(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes


@pytest.fixture(scope="module")
def malice(tmp_path_factory, few_pictures):
    """A page of runs in which every text is an attack."""
    out = tmp_path_factory.mktemp("malice")
    path = make(
        out, "model=mb0", "data=digits", "epochs=1",
        env={"command": EVIL, "git_revision": EVIL, "versions": {EVIL: EVIL}, "system": EVIL},
        model=EVIL, data="javascript:alert(4)", device=EVIL, precision=EVIL,
    )  # fmt: skip
    with open(path / "config.yaml", "a") as file:
        file.write(f"evil: {json.dumps(EVIL)}\n")
    (path / "metrics.csv").write_text(f'epoch,test_loss,"{EVIL}"\n1,2.0,3.0\n'.replace('"2"', ""))
    reduced = make(out, "model=mb0", "data=cifar10", "experiment=ldc", "epochs=2")
    config = Run(reduced).read_config().changed({"evil": EVIL})
    result = json.loads((reduced / "result.json").read_text()) | {"identity": config.identity}
    Run(reduced).write_config(config)
    Run(reduced).write_result(result)
    write(out)
    return out / "report" / "index.html"


def test_no_text_of_a_run_becomes_markup(malice, text):
    page = malice.read_text()
    found = Markup(page)
    assert EVIL not in page and "alert(1)" in page and "javascript:alert(4)" in page
    assert found.tags.count("script") == 1 == Markup(text).tags.count("script")
    names = {name for name, _ in found.attributes}
    assert not any(name.startswith("on") for name in names) and "srcdoc" not in names
    links = {value for name, value in found.attributes if name in ("href", "src", "action")}
    assert all(link.startswith(("#", "data:image/")) for link in links)
    assert "evil=&lt;/script&gt;" in page  # an override in a title


def test_the_page_asks_for_nothing_beside_it(text):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy and "http" not in policy
    assert not re.search(r"(src|href)=.?(https?:|//|file:)", text)
    assert "@import" not in text and "url(" not in text


# --- speed --------------------------------------------------------------------------------------


def many(out, number):
    """Copies of one run, under other seeds."""
    path = make(out, "model=mb0", "data=cifar10", "experiment=ldc", "epochs=100", "image_size=32")
    for seed in range(1, number):
        copy = path.with_name(path.name.replace("-s0", f"-s{seed}"))
        shutil.copytree(path, copy)
        config = (copy / "config.yaml").read_text().replace("seed: 0\n", f"seed: {seed}\n")
        (copy / "config.yaml").write_text(config)
        result = json.loads((copy / "result.json").read_text()) | {"seed": seed}
        (copy / "result.json").write_text(json.dumps(result))


@pytest.mark.parametrize("number", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_report_of_many_runs_is_quick_and_small(tmp_path, number):
    many(tmp_path, number)
    start = time.process_time()
    page = write(tmp_path)
    # the processor's time: a busy machine is no slower report
    assert time.process_time() - start < 20
    assert page.count('<details class="run">') == number
    assert len(page) < 2_000_000 + number * 10_000


def test_of_very_many_runs_the_newest_open_and_the_others_are_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "DETAILED", 2)
    monkeypatch.setattr(build, "STUDY_PICTURES", 0)
    monkeypatch.setattr(build, "RUN_PICTURES", 0)
    ldc4(tmp_path, "mb0", seeds=range(5))
    page = write(tmp_path)
    assert page.count('<details class="run">') == 2 and page.count('<p class="run">') == 3


def test_of_runs_that_differ_in_their_seed_one_shows_the_configuration(tmp_path, few_pictures):
    ldc4(tmp_path, "mb0", seeds=range(3))
    page = write(tmp_path)
    assert page.count("builder: mobilenet_ldc") == 1
    found = re.findall(r"that of (\S+)-s0, except\nseed: (\d)</pre>", page)
    assert [seed for _, seed in found] == ["1", "2"]


# --- in a browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Opens a page at a width, gathers what the browser complains of."""

    def visit(path, width=1280):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(120_000)
        page.complaints = []
        page.on("console", lambda message: page.complaints.append(message.text))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("dialog", lambda dialog: page.complaints.append(dialog.message))
        page.on("request", lambda r: page.complaints.extend([r.url] * r.url.startswith("http")))
        page.goto(path.as_uri())
        return page

    return visit


def test_the_page_loads_sorts_and_opens_a_row(out, opened):
    page = opened(out / "report" / "index.html")
    table = page.locator(f"section:has(#{STUDY}) table")
    labels = table.locator("tbody th.label")
    order = table.locator("th[aria-sort]").nth(6)
    assert labels.all_inner_texts() == ["mb0", "DC0", "LDC0"]
    assert order.get_attribute("aria-sort") == "none"
    order.locator("button").press("Enter")  # by keyboard, as by mouse
    assert order.get_attribute("aria-sort") == "ascending"
    order.locator("button").click()
    assert order.get_attribute("aria-sort") == "descending"
    assert labels.all_inner_texts() == ["LDC0", "DC0", "mb0"]
    order.locator("button").click()
    assert labels.all_inner_texts() == ["mb0", "DC0", "LDC0"]

    command = table.get_by_text("lwbench train model=dc0").first
    assert not command.is_visible()
    table.get_by_role("button", name="DC0", exact=True).click()
    table.locator("tr.detail.open details.run > summary").first.click()
    assert command.is_visible()
    assert page.complaints == []


def test_cells_without_a_number_stay_last_however_a_table_is_sorted(out, opened):
    page = opened(out / "report" / "index.html")
    table = page.locator("section:has(#ldc-2f4) table")
    head = table.locator("th[aria-sort]").nth(12)  # cifar10_top1, measured
    for _ in range(2):
        head.locator("button").click()
        assert table.locator("tbody th.label").first.inner_text() == "mb0"


def test_every_picture_is_drawn(out, opened):
    page = opened(out / "report" / "index.html")
    page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    page.evaluate("Promise.all([...document.images].map(i => i.decode()))")
    widths = page.evaluate("[...document.images].map(i => i.naturalWidth)")
    assert len(widths) == 2 and all(widths)


def test_a_phone_scrolls_tables_and_not_the_page(out, opened):
    page = opened(out / "report" / "index.html", width=390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    box = page.locator("section:has(#ldc-2f4) .box")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    page.locator(f"section:has(#{STUDY}) button.opens").first.click()
    assert page.locator("tr.detail.open .opened").bounding_box()["width"] <= 390


def test_an_attack_in_a_runs_texts_does_nothing(malice, opened):
    page = opened(malice)
    assert page.locator("script").count() == 1 and page.complaints == []
