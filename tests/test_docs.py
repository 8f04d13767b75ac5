"""README and docs: what they show can be run, and what they claim is so."""

import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from lwbench import commands as lwbench_commands
from lwbench.cli import main
from lwbench.commands import verbs
from lwbench.commands._config_dir import using_config_dir, without_config_dir
from lwbench.config import TEXT_KEYS, expanded, train_config, train_configs
from lwbench.engine.signals import Interrupted
from lwbench.engine.threads import SPINS
from lwbench.registry import MODELS, SCHEDULERS
from lwbench.runs.directory import Run
from lwbench.runs.identity import ALWAYS_IDENTIFYING, NOT_IDENTIFYING
from lwbench.runs.images import PUBLISHED
from lwbench.runs.records import records
from lwbench.runs.schema import Figures, Result, Row
from lwbench.tables import published
from lwbench.tables import statistics as table_statistics

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CHANGELOG.md", "outputs/README.md",
         *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]  # fmt: skip
REDUCED = "table=ldc/4 columns=cifar10 epochs=10 image_size=32"  # the study of outputs/measured


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def commands(page):
    """The lines of indented blocks that run lwbench, without their comments."""
    lines = re.findall(r"^    (lwbench .*)$", text(page), re.MULTILINE)
    return [
        " ".join(shlex.quote(word) for word in shlex.split(line, comments=True)) for line in lines
    ]


def conf(path):
    return yaml.safe_load(text(f"conf/{path}"))


# --- links and paths -----------------------------------------------------------------------------


def anchors(page):
    """The anchors that GitHub gives the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text(page)):
        path, _, anchor = target.partition("#")
        found = (ROOT / page).parent / path if path else ROOT / page
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(str(found.resolve().relative_to(ROOT))), target


@pytest.mark.parametrize("page", PAGES)
def test_every_path_of_the_repository_exists(page):
    pattern = r"`((?:lwbench|conf|docs|scripts|tests|outputs/measured)/[\w./-]+)`"
    missing = [path for path in re.findall(pattern, text(page)) if not (ROOT / path).exists()]
    made_by_the_reader = {"outputs/report/index.html"}
    assert set(missing) <= made_by_the_reader


# --- commands ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the archived runs, images of one's own, and the guide's mine.yaml."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "outputs" / "measured", folder / "outputs" / "measured")
    run = next((ROOT / "outputs" / "measured").glob("*/ldc3/*-s0"))  # a page of all takes long
    shutil.copytree(run, folder / "one" / run.relative_to(ROOT / "outputs" / "measured"))
    # the files that the guide shows: indented blocks whose first line names one
    pattern = r"^    # ([\w/-]+\.(?:yaml|py))\n((?:    .*\n|\n(?=\n?    ))+)"
    shown = re.findall(pattern, text("docs/guide.md"), re.MULTILINE)
    assert {"mine.yaml", "conf/model/mb0_stem.yaml"} <= {name for name, _ in shown}
    for name, block in shown:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(re.sub("^    ", "", block, flags=re.MULTILINE))
    return folder


def checked(words):
    """Run a command if it is quick; else compose its configurations, or print its plan.

    Composed alone are `train`, which would take long, and `profile -m`; of `eval`, `export` and
    `bench`, whose run is the reader's, the keys are compared; `reproduce` prints its plan.
    Everything else is run.
    """
    words, config_dir = without_config_dir(words)
    with using_config_dir(config_dir):
        return checked_with_files(words)


def checked_with_files(words):
    verb, *arguments = words
    assert verb in (*verbs(), "--help", "-sc"), words
    overrides = [word for word in arguments if not word.startswith("-")]
    if verb == "train" and "--cfg" not in arguments and "--help" not in arguments:
        jobs = expanded(overrides) if "-m" in arguments else [tuple(overrides)]
        return len(train_configs(jobs)) == len(jobs)
    if verb == "profile" and "-m" in arguments:
        return expanded(overrides, "profile")
    if verb in ("eval", "export", "bench"):  # their run or checkpoint is the reader's
        keys = {word.partition("=")[0].partition(".")[0] for word in overrides}
        return keys <= {*conf(f"{verb}.yaml"), "model", "data"}
    if verb == "report":
        words = [*words, "out=one"]
    if verb == "check":  # a data set of the reader's
        words = [verb, "data=digits"]
    if verb in ("bundle", "verify"):  # runs of the reader's
        return lwbench_commands.command(verb).KEYS.keys() >= {
            w.partition("=")[0] for w in overrides if "=" in w
        }
    if verb == "reproduce":
        words = [*words, *({"dry_run=true"} - set(words))]
    return main(words) == 0


@pytest.mark.parametrize("page", ["README.md", "docs/guide.md", "docs/clusters.md"])
def test_every_command_works(page, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    found = commands(page)
    (finished,) = (workplace / "one").glob("*/ldc3/*")
    for command in found:
        command = command.replace("teacher=<file>", f"teacher={finished / 'config.yaml'}")
        command = command.replace("teacher=outputs/digits/ldc3/<run>", f"teacher={finished}")
        words = shlex.split(command.replace("<folder>", str(workplace)).replace("<file>", "x.pt"))
        assert checked(words[1:]), command + "\n" + capsys.readouterr().err
    batch = re.findall(r"^    sbatch .*?slurm_train.sh (.*?)(?: +#.*)?$", text(page), re.MULTILINE)
    for overrides in batch:
        train_config(overrides.split())
    assert len(found) + len(batch) > 2


@pytest.mark.slow
def test_the_commands_of_files_of_one_s_own_run_as_shown(workplace, monkeypatch):
    """The other test composes them; here they are run, with one epoch."""
    monkeypatch.chdir(workplace)
    found = [c for c in commands("docs/guide.md") if "my_net" in c or "--config-dir conf" in c]
    assert len(found) >= 7
    for command in found:
        words = shlex.split(command)[1:]
        if words[0] == "eval":
            run = next(Path("outputs/digits/my_net").iterdir())
            words = [word.replace("outputs/digits/my_net/<run>", str(run)) for word in words]
        if words[0] == "train":
            words += ["epochs=1", "threads=1"]
        assert main(words) == 0, command


def test_the_completion_of_the_readme_names_a_flag_that_exists(capsys):
    assert 'eval "$(lwbench -sc install=bash)"' in text("docs/guide.md")
    assert main(["-sc", "install=bash"]) == 0
    assert "complete" in capsys.readouterr().out


# --- README: results and figures -----------------------------------------------------------------


def test_the_table_on_the_first_screen_is_what_the_command_prints(workplace, monkeypatch, capsys):
    assert f"lwbench table {REDUCED} " in text("README.md")
    shown = re.search(r"^```\n(row .*?)^```", text("README.md"), re.MULTILINE | re.DOTALL)[1]
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["table", *REDUCED.split()]) == 0
    assert shown in capsys.readouterr().out


def eighteen():
    """The archived runs of the README's study of ldc/4, in which every stem has stride 2."""
    found = [record for record in records(ROOT / "outputs") if record.is_archived]
    found = [record for record in found if record.result.data == "cifar10"]
    return [r for r in found if not (r.config.model.model_extra or {}).get("stem_stride")]


def test_the_table_agrees_with_the_archived_runs():
    rows = re.findall(
        r"^(\w+) .*?\| +([\d.]+) ± ([\d.]+) \((\d)\)", text("README.md"), re.MULTILINE
    )
    assert [row[0].lower() for row in rows] == ["mb0", "dc0", "ldc0", "ldc1", "ldc2", "ldc3"]
    archived = eighteen()
    assert len(archived) == 18 and "eighteen runs" in text("README.md")
    for label, mean, deviation, number in rows:
        values = [r.value("top1") for r in archived if r.result.model == label.lower()]
        assert len(values) == int(number)
        assert f"{statistics.fmean(values):.2f}" == mean
        assert f"{statistics.stdev(values):.2f}" == deviation


def test_every_mean_of_the_findings_is_of_archived_runs():
    runs = {}
    for record in records(ROOT / "outputs"):
        runs.setdefault(record.result.identity, []).append(record.value("top1"))
    means = {
        f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}"
        for values in runs.values()
        if len(values) > 2
    }
    shown = re.findall(r"\d+\.\d\d ± \d+\.\d\d", text("docs/findings.md"))
    assert len(shown) >= 14 and set(shown) <= means


def test_the_guides_study_of_recipes_agrees_with_the_archived_runs():
    pattern = r"^\| (labels alone|with the teacher) \| (.*?) \| (.*?) \|$"
    rows = re.findall(pattern, text("docs/guide.md"), re.MULTILINE)
    assert len(rows) == 2
    found = [r for r in records(ROOT / "outputs") if r.result.data == "cifar100" and r.config.ema]
    means = {}
    for label, *cells in rows:
        runs = [r for r in found if bool(r.config.teacher) == (label == "with the teacher")]
        for cell, which in zip(cells, ("raw", "final"), strict=True):
            values = [getattr(r.result, which).test_top1 for r in runs]
            means[label, which] = statistics.fmean(values)
            spread = statistics.stdev(values)
            assert cell == f"{means[label, which]:.2f} ± {spread:.2f} ({len(values)})"
    gain = means["with the teacher", "raw"] - means["labels alone", "raw"]
    assert f"Distillation gives {gain:+.2f} points" in text("docs/guide.md")


def test_the_conditions_of_the_study_are_those_recorded():
    page = text("README.md")
    for record in eighteen():
        (start,) = record.starts
        assert start.git_revision[:10] in page and start.cpu.startswith("Intel(R) Xeon(R)")
        assert (record.result.precision, start.threads, start.cores) == ("fp32", 1, 2)
    assert "in fp32, one thread per run, two runs at once, on two cores of an Intel Xeon" in page


def test_the_printed_training_is_the_default_run():
    page = text("README.md")
    config = train_config([])
    assert f"finished: {Run.of(config).path}\n" in page
    assert config.model_name == "ldc3" and f"epoch {config.epochs}/{config.epochs}  lr" in page
    from lwbench.measure.complexity import count
    from lwbench.registry import DATASETS

    cost = count(MODELS.spec(config.model.spec).build(10), image_size=config.image_size)
    parameters, macs = cost.params / 1e6, cost.macs["plain"] / 1e6
    assert f"ldc3: {parameters:.2f} M parameters, {macs:.2f} M MACs at 32 px" in page
    source = DATASETS.spec(config.data.spec).build().load(32)
    train, test = len(source.train), len(source.test)
    assert f"{train:,} images to train on, {test} to test on" in page
    assert f"{train + test:,} digits" in page


@pytest.mark.parametrize("model", ["mb0", "ldc0", "ldc3"])
def test_at_32_px_a_network_has_a_thirtieth_of_the_macs(model):
    from lwbench.measure.complexity import count

    assert "a 49th" not in text("README.md") and "1/49" not in text("conf/data/cifar10.yaml")
    for page in ("README.md", "conf/data/cifar10.yaml", "conf/data/cifar100.yaml"):
        assert "a thirtieth of the MACs" in text(page)
    spec = MODELS.spec(train_config([f"model={model}"]).model.spec)
    large, small = (count(spec.build(10), image_size=size).macs["plain"] for size in (224, 32))
    assert 27.5 < large / small < 32.5


def test_cifar_is_trained_at_224_px():
    assert "CIFAR is trained at 224 px by default" in text("README.md")
    for name in ("cifar10", "cifar100"):
        assert conf(f"data/{name}.yaml")["recipe"]["image_size"] == 224


def test_the_number_of_published_values_tables_and_documents():
    tables = published.load("all")
    documents = {table.name.partition("/")[0] for table in tables}
    values = sum(figure.value is not None for table in tables for figure in table.figures)
    found = re.search(r"The tables of (\w+) documents .*?, (\d+) published values in (\d+) tables",
                      text("README.md"))  # fmt: skip
    assert found.groups() == ("five", str(values), str(len(tables))) and len(documents) == 5


def test_the_python_versions_are_those_of_the_package():
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert project["requires-python"] == ">=3.11"
    tested = [c.rpartition(" ")[2] for c in project["classifiers"] if "Python ::" in c]
    assert f"3.11 or later (tested with {tested[0]}, {tested[1]} and {tested[2]})" in text(
        "README.md"
    )


# --- defaults and constants ----------------------------------------------------------------------


def test_checkpoints_are_written_as_often_as_the_pages_say():
    every = conf("train.yaml")["checkpoint"]["every"]
    for page in ("README.md", "docs/guide.md", "docs/reliability.md"):
        assert re.search(rf"`checkpoint\.every`\s+seconds\s+\({every}\b", text(page)), page


def test_exit_codes_are_those_of_the_code(capsys):
    codes = {name: Interrupted(getattr(signal, name)).exit_code for name in ("SIGINT", "SIGTERM")}
    assert codes == {"SIGINT": 130, "SIGTERM": 143}
    assert Interrupted(signal.SIGUSR1).exit_code == 75
    listed = re.findall(r"^\| (\d+) \| (.*) \|$", text("docs/guide.md"), re.MULTILINE)
    assert [int(code) for code, _ in listed] == [0, 1, 2, 75, 130, 141, 143]
    for page in ("README.md", "docs/reliability.md"):
        assert re.search(r"SIGTERM, SIGINT and SIGUSR1 .* 143, 130 and 75", text(page))
    assert main(["list", "nothing"]) == 2 and main(["--help"]) == 0
    capsys.readouterr()


def test_photographs_and_cifar_are_cached_by_default():
    for path in (ROOT / "conf" / "data").glob("*.yaml"):
        expected = None if path.stem.startswith(("cifar", "digits")) else "auto"
        assert conf(f"data/{path.name}").get("cache") == expected
    assert "the default where it fits (`data.cache: auto`)" in text("docs/performance.md")
    assert "`data.cache=<folder>` names another place" in text("docs/guide.md")
    bytes_per_image = round(224 / 0.875) ** 2 * 3
    for page in ("docs/performance.md", "docs/guide.md"):
        assert f"{bytes_per_image // 1000 + (bytes_per_image % 1000 >= 500)} kB" in text(page)


def test_sizes_of_the_data_sets():
    rows = dict(re.findall(r"^\| (`\w+`.*?) \| ([\d,]+)", text("docs/guide.md"), re.MULTILINE))
    assert {name: int(number.replace(",", "")) for name, number in rows.items()} == {
        "`digits` (default)": 1797,
        "`cifar10`, `cifar100`": PUBLISHED["cifar10"].images,
        "`caltech256`": PUBLISHED["caltech256"].images,
        "`imagenet`": PUBLISHED["imagenet"].images,
        "`tiny_imagenet`": 200 * (500 + 50),
        "`cifar10_1`, `cifar10_c`": 2000,
    }
    options = {path.stem for path in (ROOT / "conf" / "data").glob("*.yaml")}
    section = text("docs/guide.md").partition("## Data sets")[2].partition("\n## ")[0]
    assert options == set(
        re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (.*?) \|", section, re.M))[8:])
    ) - {"data"}


def test_keys_that_are_taken_as_typed():
    found = re.search(r"Values of (.*?) are taken as they are typed", text("docs/guide.md"))[1]
    assert set(re.findall(r"`([\w.]+)`", found)) == set(TEXT_KEYS)


def test_statistics_are_those_of_the_code():
    guide = text("docs/guide.md")
    assert f"alpha is {table_statistics.ALPHA}" in guide and "95 % prediction interval" in guide
    assert table_statistics.MIN_RUNS == 3 and "`too few runs` below three seeds" in guide


@pytest.mark.parametrize(
    "name", ["constant", "multistep", "exponential", "cosine_restarts", "cosine"]
)
def test_which_schedules_let_a_run_be_extended(name):
    required = {"multistep": {"milestones": [3]}, "exponential": {"gamma": 0.9}}
    config = conf(f"scheduler/{name}.yaml") | required.get(name, {})
    config = {k: v for k, v in config.items() if not isinstance(v, str) or "${" not in v}
    if name == "cosine_restarts":
        config["restart_epochs"] = 5
    build = SCHEDULERS.spec(config).build
    short, long = build(0.1, 5), build(0.1, 10)
    same = all(short(step / 10) == long(step / 10) for step in range(50))
    assert same == (name != "cosine")
    claim = re.search(
        r"same learning rates\. This is the case for(.*?)\.\n", text("docs/guide.md"), re.S
    )
    yes, _, no = claim[1].partition("not for")
    assert (f"`{name}`" in yes) == same and ("cosine over all epochs" in no)


# --- docs/performance.md -------------------------------------------------------------------------


def benchmark_rows():
    """The rows of performance.md: bench, case, compared with, ratio, spread, bar, met."""
    for line in re.findall(
        r"^\| (?:epoch|deform|input|streaming|check|startup) \|.*",
        text("docs/performance.md"),
        re.M,
    ):
        yield [cell.strip() for cell in line.strip("|").split("|")]


def test_a_ratio_is_called_met_where_it_reaches_its_bar():
    rows = list(benchmark_rows())
    assert len(rows) > 15
    for _, case, _, ratio, spread, bar, met in rows:
        if not bar:
            assert not met, case
            continue
        value = float(ratio.rstrip("x"))
        low, high = map(float, spread.split("-"))
        assert low <= value <= high, case
        required, _, stretch = bar.partition(" / ")
        reached = "yes" if value >= float(required.rstrip("x")) else "**no**"
        if stretch not in ("", "-") and value >= float(stretch.rstrip("x")):
            reached = "stretch"
        assert met == reached, case


def test_the_rule_for_waiting_threads_is_the_code_s():
    page = text("docs/performance.md")
    assert f"spin for {SPINS:,} iterations" in page and "0.1 s" in page and "an eighth" in page


# --- docs/extending.md ---------------------------------------------------------------------------


def files_of(page):
    """`**path**` above a fenced block -> (its content, whether it is appended to the file)."""
    pattern = r"^\*\*(\S+)\*\*( \(appended\))?\n\n```\w+\n(.*?)^```"
    found = re.findall(pattern, text(page), re.MULTILINE | re.DOTALL)
    return {path: (content, bool(appended)) for path, appended, content in found}


def test_the_steps_of_extending_work_in_a_copy_of_the_package(tmp_path):
    for folder in ("lwbench", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    files = files_of("docs/extending.md")
    assert len(files) == 9
    for path, (content, appended) in files.items():
        assert (tmp_path / path).exists() == appended, path
        (tmp_path / path).parent.mkdir(exist_ok=True)
        with open(tmp_path / path, "a", encoding="utf-8") as file:
            file.write(("\n\n" if appended else "") + content)
    (tmp_path / "work").mkdir()
    lines = commands("docs/extending.md")
    assert len(lines) > 8
    script = (
        "import sys\nfrom lwbench.cli import main\n"
        f"for line in {[line.split()[1:] for line in lines]}:\n"
        "    print('$', *line, flush=True)\n"
        "    if code := main(line):\n"
        "        sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "work", capture_output=True, text=True,
        env={"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for wanted in ("simplenet at 3 x 32 x 32", "digits/simplenet_wide/", "stripes", "mine/1"):
        assert wanted in done.stdout
    # the count that the table prints, and the runs that `rank` lists
    assert re.search(r"narrow +24.3 k =", done.stdout)
    assert len(re.findall(r"^ *\d+\.\d\d %  outputs/", done.stdout, re.MULTILINE)) >= 4


# --- docs/architecture.md ------------------------------------------------------------------------

UBIQUITOUS = {"registry", "errors", "paths", "logs", "__init__", "__main__"}


def test_the_diagram_has_the_imports_of_the_packages(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    from test_architecture import graph

    page = text("docs/architecture.md")
    assert page.count("```mermaid") == 1
    drawn = set(re.findall(r"^    (\w+) --> (\w+)$", page, re.MULTILINE))
    actual = {
        (here, other)
        for here, others in graph().items()
        for other in others
        if not {here, other} & UBIQUITOUS
    }
    assert drawn == actual


def test_the_page_names_every_package_and_module_under_lwbench():
    page = text("docs/architecture.md")
    packages = {path.parent.name for path in (ROOT / "lwbench").glob("*/__init__.py")}
    modules = {path.name for path in (ROOT / "lwbench").glob("*.py")}
    rows = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    named = {name.rstrip("/") for row in rows for name in re.findall(r"`([\w./]+)`", row)}
    assert packages <= named
    assert modules - {"__init__.py", "__main__.py"} <= named


def test_the_page_lists_what_a_run_directory_holds():
    page = text("docs/architecture.md")
    section = page.partition("## The run directory")[2].partition("\n## ")[0]
    words = set(re.findall(r"`([\w.]+)`", section))
    assert {*Row.__annotations__, *Result.model_fields, *Figures.model_fields} <= words


def test_the_page_lists_the_keys_that_are_not_part_of_the_identity():
    page = text("docs/architecture.md")
    section = page.partition("## Identity")[2].partition("\n## ")[0]
    left_out = re.search(r"Not part of it:.*?\. A key", section, re.DOTALL)[0]
    named = {word.removesuffix(".*") for word in re.findall(r"`([\w.*]+)`", left_out)}
    assert named == NOT_IDENTIFYING - {"seed", "data.recipe"}
    always = re.search(r"empty list\).*?always count", section, re.DOTALL)[0]
    assert set(re.findall(r"`(\w+)`", always)) == ALWAYS_IDENTIFYING
