"""Random input to every door: overrides, tables, image trees, run directories.

Whatever comes, the exit code is a promised one, what is said is an error of ours in a line or two,
and nothing is half-written. The default suite draws the same cases each time; `-m slow` draws
thousands, new ones each time.
"""

import copy
import io
import json
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import ImageFolder

from lwbench.cli import main
from lwbench.commands import _training
from lwbench.data.tree import scan
from lwbench.engine import checkpoint
from lwbench.errors import DamagedError, UsageError
from lwbench.paths import conf_folder
from lwbench.report import build
from lwbench.runs.directory import Run
from lwbench.runs.records import records
from lwbench.sweeps import local
from lwbench.tables import published

PROMISED = {0, 1, 2, 130, 143}
pytestmark = pytest.mark.filterwarnings("ignore")


def times(quick, slow):
    """So many cases in the default suite, the same each time, and so many with `-m slow`."""
    free = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck))
    brief = dict(derandomize=True, phases=[Phase.generate])  # a case that fails is not made smaller
    thorough = [pytest.mark.slow, pytest.mark.timeout(7200)]
    return pytest.mark.parametrize(
        "cases",
        [
            pytest.param(settings(max_examples=quick, **brief, **free), id="quick"),
            pytest.param(settings(max_examples=slow, **free), id="thorough", marks=thorough),
        ],
    )


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty working folder, and folders of data and configuration of its own."""
    for name in ("DATA", "CONFIG"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def answered(*arguments):
    """Run a command in this process; the exit code and the error, after the claims of this file."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        code = main(list(arguments))
    out, err = (stream.buffer.getvalue().decode() for stream in streams)
    assert code in PROMISED, (code, err)
    assert "Traceback" not in out + err
    assert "traceback: " not in err, err  # of an error that is not ours
    assert code == 0 or err.startswith("lwbench: "), err
    # a warning may stand before the error
    assert len(err.splitlines()) <= 4 and len(err) < 3000, err
    return code, err


# --- overrides ----------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=[]), max_size=12)
WORDS = st.sampled_from([
    "null", "true", "none", "auto", "nan", "inf", "-inf", "???", "", "[]", "{}", "''", '"', "\\",
    "cpu", "cuda:7", "ldc3", "digits", "sgd", "5.0", "1e400", "0x10", "1_000", "cosine", "./x", "~",
    "${epochs}", "${seed}", "${oc.env:HOME}", "${basename:${out}}", "${x", "${a:}", "${.}",
    "${..x}", "${oc.create:{a:1}}", "${oc.decode:'[1,2'}", "${hydra:runtime.cwd}", "[1,2",
    "{a:", "{a:1}",
    "[[],{}]", "choice(1,2)", "range(0,3)", "range(1e9)", "glob(*)", "sort(3,1)", "int(a)",
    "float('nan')", "extend_list(1)", "a,b", "1,2", "key=value", "a:b", "!!python/object:os.system",
])  # fmt: skip
NUMBERS = st.one_of(
    st.integers(-3, 3), st.integers(), st.integers(10**15, 10**40), st.floats()
).map(str)
SIMPLE = st.one_of(NUMBERS, WORDS, TEXT)
VALUES = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"),
        st.dictionaries(st.sampled_from(["a", "lr", "builder"]), inner, max_size=2).map(
            lambda pairs: "{" + ",".join(f"{k}:{v}" for k, v in pairs.items()) + "}"
        ),
    ),
    max_leaves=4,
)
PREFIXES = st.sampled_from(["", "", "", "", "+", "++", "~"])


def keys_of(verb, *more):
    """Dotted keys of a verb's configuration, a few groups, and slips of the finger."""
    config = yaml.safe_load((conf_folder() / f"{verb}.yaml").read_text())
    names = [key for key in config if key != "defaults"]
    names += ["model", "data", "optimizer", "scheduler", "experiment", "model.width", "model.stem",
              "model.builder", "model.eca_stages", "data.root", "data.name", "data.builder",
              "data.augment", "data.augment.flip", "data.augment.rotation", "data.recipe",
              "data.recipe.lr", "optimizer.lr", "optimizer.builder", "optimizer.momentum",
              "scheduler.restart_epochs", "scheduler.milestones", "hydra.run.dir", "hydra.verbose",
              "hydra/launcher", "model@x", "model@_global_", "checkpoint.every", *more]  # fmt: skip
    typing = st.sampled_from(names).flatmap(
        lambda name: st.integers(0, len(name)).map(lambda at: name[:at] + "x" + name[at + 1 :])
    )
    return st.one_of(*[st.sampled_from(names)] * 4, typing, TEXT)


def overrides_of(verb, *more):
    one = st.builds(lambda p, k, v: f"{p}{k}={v}", PREFIXES, keys_of(verb, *more), VALUES)
    return st.lists(st.one_of(one, one, one, one, TEXT), min_size=1, max_size=3)


@times(60, 3000)
def test_overrides_of_train_are_answered_before_any_data_is_read(cases, monkeypatch):
    def no_data(*arguments, **keywords):
        raise UsageError("all of it was right")

    monkeypatch.setattr(_training, "configured_data", no_data)

    @cases
    @given(overrides_of("train"), st.sampled_from([[], [], ["--cfg"]]))
    def claim(overrides, flags):
        code, _ = answered("train", *flags, *overrides)
        assert code == 2 or flags or any(word[:1] == "-" for word in overrides) or code == 0
        assert not os.listdir()

    claim()


@times(25, 1500)
def test_overrides_of_a_sweep_are_answered_before_a_run_starts(cases, monkeypatch):
    monkeypatch.setattr(local, "run_all", lambda jobs, at_once: [])

    @cases
    @given(overrides_of("train"))
    def claim(overrides):
        answered("train", "-m", *overrides)
        assert not os.listdir()

    claim()


@times(10, 1500)
def test_overrides_of_profile_are_answered(cases):
    @cases
    @given(overrides_of("profile"))
    def claim(overrides):
        answered("profile", "image_size=32", *overrides)

    claim()


@times(25, 1500)
def test_overrides_of_eval_are_answered(cases, tmp_path):
    (tmp_path / "text.pt").write_text("no checkpoint")
    config = tmp_path / "run"
    config.mkdir()
    (config / "config.yaml").write_text("{}")
    choices = [[], [f"checkpoint={tmp_path / 'text.pt'}"], [f"run={config}"], ["run=."]]

    @cases
    @given(overrides_of("eval"), st.sampled_from(choices))
    def claim(overrides, what):
        code, _ = answered("eval", *what, *overrides)
        assert code in (0, 1, 2)

    claim()


SMALL = """
columns: {params: {kind: params}, digits_top1: {kind: top1, data: digits}}
rows: [{label: MB0, run: model=mb0, params: "1e6"}]
"""


@times(40, 2000)
def test_keys_of_table_and_reproduce_are_answered(cases, tmp_path):
    (tmp_path / "small.yaml").write_text(SMALL)
    keys = st.sampled_from(
        [
            "table",
            "rows",
            "columns",
            "seeds",
            "jobs",
            "archived",
            "format",
            "out",
            "epochs",
            "seed",
            "select",
            "ci",
            "runs",
            "baseline",
            "dry_runn",
        ]
    )
    names = ["hsnet", "MB0", "digits", "top1", "0,1", "[7]", "json", "html", "best", "no/such.yaml"]
    values = st.one_of(SIMPLE, st.sampled_from(names))
    words = st.lists(st.one_of(st.builds("{}={}".format, keys, values), TEXT), max_size=3)

    @cases
    @given(st.sampled_from(["table", "reproduce"]), words)
    def claim(verb, arguments):
        fixed = ["dry_run=true"] if verb == "reproduce" else []
        answered(verb, f"table={tmp_path / 'small.yaml'}", *arguments, *fixed)

    claim()


@times(40, 1000)
def test_any_words_at_all_are_answered(cases):
    verbs = ["train", "eval", "list", "-m", "--cfg", "--help", "-h", "help", "--version", "model"]
    words = st.one_of(TEXT, st.sampled_from(verbs))

    @cases
    @given(st.lists(words, max_size=3))
    def claim(arguments):
        if arguments[:1] == ["train"] and "-sc" not in arguments:
            arguments = [*arguments, "--cfg"]
        answered(*[word for word in arguments if word != "-sc"])

    claim()


# --- tables -------------------------------------------------------------------------------------

TREES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(TEXT, st.integers()), inner, max_size=3),
    ),
    max_leaves=6,
)
PRINTED = st.one_of(
    st.sampled_from(["2.35e6", "68.13", "-1", "1e999999", "nan", "9" * 5000, "0", "", "1.", "٣"]),
    TREES,
)
RUNS = st.one_of(
    st.sampled_from(["model=mb0", "model=ldc3 image_size=0", "model=mb0 model.width=-1", "model=",
                     "'", "model=mb0 data=cifar10", "x=1", "model=mb0 +x=${y}", "image_size=1e9",
                     "model=mb0 image_size=99999999999999999999"]), TEXT,
)  # fmt: skip
CELLS = st.fixed_dictionaries(
    {}, optional={"value": PRINTED, "digits": st.one_of(st.integers(), TREES), "rule": TREES}
)
ROWS = st.fixed_dictionaries(
    {"label": st.one_of(st.sampled_from(["A", "B", "Ä\u202e\x07", "<b>&"]), TREES)},
    optional={
        "run": RUNS,
        "params": PRINTED,
        "macs": st.one_of(PRINTED, CELLS),
        "top1": PRINTED,
        "marks": TREES,
        "image_size": st.one_of(st.integers(), TREES),
    },
)  # fmt: skip
COLUMNS = st.dictionaries(
    st.sampled_from(["params", "macs", "top1", "label", ""]),
    st.one_of(
        st.fixed_dictionaries(
            {"kind": st.sampled_from(["params", "macs", "top1", "speed", "none"])},
            optional={"data": st.sampled_from(["digits", "cifar10", "x", 3])},
        ),
        TREES,
    ),
    max_size=3,
)
TABLES = st.one_of(
    TREES,
    st.fixed_dictionaries(
        {"rows": st.one_of(st.lists(ROWS, max_size=3), TREES)},
        optional={"columns": COLUMNS, "source": TREES, "count": TREES, "marks": TREES,
                  "baseline": TREES, "notes": TREES, "select": TREES, "experiment": TREES},
    ),
)  # fmt: skip
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
SNIPPETS = [
    "!!python/object/apply:os.system ['touch ran']",
    "rows: [{label: !!python/object/apply:os.system ['touch ran']}]",
    "rows: [{label: !!python/name:os.system ''}]",
    "rows: [{label: 2001-99-99}]",
    "rows: [{label: !!int x}]",
    "rows: [{label: !!float x}]",
    "rows: [{label: !!timestamp x}]",
    "rows: [{label: !!binary é}]",
    "rows: [{label: A, run: model=mb0, params: 2024-01-01}]",
    "rows: &a [*a]",
    "rows: &a [{label: *a}]",
    "&a {rows: [*a]}",
    "rows: [{? [a]: b}]",
    "rows: [{<<: 3}]",
    "rows: [{=: 3}]",
    "rows: " + "[" * 2000,
    "[" * 800 + "]" * 800,
    "rows: [{label: " + "[" * 300 + "]" * 300 + "}]",
    "rows: [{label: " + "9" * 5000 + "}]",
    LAUGHS + "rows: [{label: *i}]",
    LAUGHS + "rows: [{label: a, run: *i}]",
    LAUGHS + "rows: *i",
    LAUGHS + "rows: [{label: a}]\nsource: *i",
    "\0", "\ufeffrows: []", "%YAML 9.9\n---\nrows: []", "---\n---\n", "rows: [{label: \ud800}]",
]  # fmt: skip


def table_is_answered(text):
    Path("t.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    code, _ = answered("table", "table=t.yaml")
    assert not Path("ran").exists()
    if code == 0:  # what can be shown at all can be shown in every format, and planned
        for format in ("html", "json", "latex"):
            assert answered("table", "table=t.yaml", f"format={format}")[0] == 0
        answered("reproduce", "table=t.yaml", "dry_run=true")
    return code


@pytest.mark.parametrize("text", SNIPPETS, ids=range(len(SNIPPETS)))
def test_a_table_that_plays_tricks_is_refused_and_runs_nothing(text):
    assert table_is_answered(text) == 2


@times(100, 4000)
def test_any_table_is_answered(cases):
    @cases
    @given(TABLES)
    def claim(content):
        table_is_answered(yaml.safe_dump(content, allow_unicode=True))

    claim()


@times(6, 2000)
def test_a_damaged_table_is_answered(cases):
    whole = (conf_folder() / "table" / "ldc" / "4.yaml").read_text()

    @cases
    @given(
        st.integers(0, len(whole)), st.integers(0, 30), st.one_of(TEXT, st.sampled_from(SNIPPETS))
    )
    def claim(at, length, text):
        table_is_answered(whole[:at] + text + whole[at + length :])

    claim()


@times(40, 2000)
def test_bytes_that_are_no_table_are_answered(cases):
    @cases
    @given(st.binary(max_size=60))
    def claim(content):
        Path("t.yaml").write_bytes(content)
        assert answered("table", "table=t.yaml")[0] == 2

    claim()


# --- image trees --------------------------------------------------------------------------------


def encoded(kind, mode="RGB", side=9):
    buffer = io.BytesIO()
    Image.effect_noise((side, side), 90).convert(mode).save(buffer, kind)
    return buffer.getvalue()


WHOLE = [encoded("png"), encoded("jpeg"), encoded("png", "P"), encoded("jpeg", "CMYK"),
         encoded("png", "I;16"), encoded("gif", "L"), encoded("png", side=1)]  # fmt: skip


@st.composite
def damaged(draw, whole):
    """`whole` cut somewhere, or with a bit flipped, or with bytes put in."""
    at = draw(st.integers(0, len(whole) - 1))
    kind = draw(st.sampled_from(["cut", "flip", "insert"]))
    if kind == "cut":
        return whole[:at]
    if kind == "insert":
        return whole[:at] + draw(st.binary(min_size=1, max_size=9)) + whole[at:]
    return whole[:at] + bytes([whole[at] ^ 1 << draw(st.integers(0, 7))]) + whole[at + 1 :]


IMAGES = st.sampled_from(WHOLE)
CONTENTS = st.one_of(IMAGES, IMAGES, IMAGES.flatmap(damaged), st.binary(max_size=40))
NAMES = st.one_of(
    st.sampled_from(["a", "b", "ä", "<img src=x onerror=alert(1)>", "a\nb", "-rf", "${x}", "%s",
                     " ", "\x1b[31m", "\u202e", "CON", "a,b", "=", "\udcff", "x" * 200]),
    st.text(st.characters(exclude_characters="/\0", categories=["L", "Zs", "P"]), min_size=1),
).filter(lambda name: name not in (".", "..") and len(os.fsencode(name)) < 240)  # fmt: skip
SUFFIXES = st.sampled_from([".png", ".jpg", ".JPEG", ".gif", ".txt", ""])
FOLDERS = st.dictionaries(
    NAMES,
    st.dictionaries(st.builds(str.__add__, NAMES, SUFFIXES), CONTENTS, max_size=3),
    max_size=3,
)
SPLITS = st.fixed_dictionaries({"train": FOLDERS}, optional={"test": FOLDERS, "val": FOLDERS})


def planted(root, splits):
    shutil.rmtree(root, ignore_errors=True)
    for split, classes in splits.items():
        for name, files in classes.items():
            (root / split / name).mkdir(parents=True)
            for file, content in files.items():
                (root / split / name / file).write_bytes(content)


def same_classes(splits):
    """The same classes everywhere, with something in each: a tree that may well be right."""
    names = [*splits["train"], "a", "b"][:2]
    files = [content for files in splits["train"].values() for content in files.values()]
    content = dict(enumerate([WHOLE[0], WHOLE[1], *files[:2]]))
    return {
        split: {name: {f"{i}.png": c for i, c in content.items()} for name in names}
        for split in ("train", "test")
    }


@times(6, 600)
def test_any_tree_of_files_is_answered_and_leaves_a_whole_run_or_none(cases, tmp_path):
    root = tmp_path / "tree"
    fixed = ["data=folder", f"data.root={root}", "model=mb0", "epochs=1", "image_size=8",
             "batch_size=4", "out=runs"]  # fmt: skip

    @cases
    @given(st.one_of(SPLITS, SPLITS.map(same_classes)), st.sampled_from(["raise", "skip"]))
    def claim(splits, policy):
        planted(root, splits)
        shutil.rmtree("runs", ignore_errors=True)
        code, _ = answered("train", *fixed, f"data.on_bad_image={policy}")
        results = list(Path().rglob("result.json"))
        assert len(results) == (code == 0)
        assert not list(Path().rglob("*.part"))
        assert code != 2 or not Path("runs").exists()

    claim()


KNOWN = [".jpg", ".JPEG", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"]
FURTHER = [".gif", ".jfif", ".JPE", ".tga", ".ico", ".pbm", ".pcx", ".qoi", ".jp2", ".dds"]
OTHERS = ["", ".txt", ".mp4", ".npy", ".h5", ".mpg", ".png.txt", ".db", "png"]
HIDDEN = st.sampled_from([".git", "._0.png", ".DS_Store", ".hidden.jpg"])
FILES = st.builds(str.__add__, NAMES, st.sampled_from(KNOWN + FURTHER + OTHERS))
NESTED = st.recursive(
    st.one_of(st.none(), st.sampled_from(["file", "folder"])),  # a file, or a link to one of these
    lambda inner: st.dictionaries(st.one_of(FILES, NAMES, HIDDEN), inner, max_size=4),
    max_leaves=12,
)
FORESTS = st.dictionaries(st.one_of(NAMES, NAMES, FILES, HIDDEN), NESTED, max_size=4)


def grown(place, tree, targets):
    """Make files, folders and links at `place`."""
    if isinstance(tree, dict):
        place.mkdir()
        for name, inner in tree.items():
            grown(place / name, inner, targets)
    elif tree is None:
        place.touch()
    else:
        place.symlink_to(targets[tree])


@times(60, 3000)
def test_any_tree_has_the_images_that_image_folder_finds_less_hidden_and_further_ones(
    cases, tmp_path
):
    Image.init()
    undecodable = {"BUFR", "GRIB", "HDF5", "MPEG"}
    endings = tuple(
        ending
        for ending, name in Image.registered_extensions().items()
        if name in Image.OPEN and name not in undecodable
    )
    targets = {"file": tmp_path / "image.png", "folder": tmp_path / "folder"}
    targets["file"].touch()
    grown(targets["folder"], {"a.png": None, "deep": {"b.jfif": None, "c.txt": None}}, targets)
    root = tmp_path / "tree"

    def is_image(path):
        return path.lower().endswith(endings)

    def is_hidden(name):
        return any(part.startswith(".") for part in name.split("/"))

    @cases
    @given(FORESTS)
    def claim(forest):
        shutil.rmtree(root, ignore_errors=True)
        grown(root, forest, targets)
        found = scan(root)
        try:
            wanted = ImageFolder(str(root), is_valid_file=is_image, allow_empty=True)
        except FileNotFoundError:  # no folder at all
            assert not found.class_names
            return
        assert found.class_names == [name for name in wanted.classes if not is_hidden(name)]
        samples = {(os.path.relpath(p, root), wanted.classes[c]) for p, c in wanted.samples}
        assert {
            (found.relative(path), found.class_names[label])
            for path, label in zip(found.paths, found.labels, strict=True)
        } == {(name, label) for name, label in samples if not is_hidden(name)}
        assert len(set(found.paths)) == len(found.paths)
        # and everything else is counted
        others = 0
        for place, folders, files in os.walk(root, followlinks=True):
            others += sum(is_hidden(name) for name in folders)
            folders[:] = [name for name in folders if not is_hidden(name)]
            is_top = place == str(root)
            others += sum(is_top or is_hidden(name) or not is_image(name) for name in files)
        assert sum(count for count, _ in found.passed_over.values()) == others

    claim()


# --- run directories ----------------------------------------------------------------------------


@times(150, 5000)
def test_a_damaged_checkpoint_is_never_loaded(cases, tmp_path):
    path = tmp_path / "x.pt"
    state = {"model": {"weight": torch.arange(300.0), "bias": torch.ones(3)}, "epoch": 3}
    checkpoint.save(path, state)
    whole = path.read_bytes()

    @cases
    @given(damaged(whole))
    def claim(content):
        path.write_bytes(content)
        with pytest.raises(DamagedError) as caught:
            checkpoint.load(path)
        assert len(str(caught.value).splitlines()) == 1

    claim()
    path.write_bytes(whole)
    assert checkpoint.load(path)["model"]["weight"].equal(state["model"]["weight"])


TINY = ["model=mb0", "epochs=2", "batch_size=512", "image_size=8", "checkpoint.every=1000"]
RECORDS = ["checkpoints/last.pt", "checkpoints/previous.pt", "checkpoints/best.pt", "config.yaml",
           "env.json", "metrics.csv", "result.json"]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished run, and its result."""
    folder = tmp_path_factory.mktemp("finished")
    with redirect_stdout(io.StringIO()):
        assert main(["train", *TINY, f"out={folder}"]) == 0
    (path,) = folder.glob("*/*/*/result.json")
    return folder, path.parent.relative_to(folder)


@times(3, 500)
def test_a_damaged_run_is_answered_and_never_gives_other_figures(cases, finished):
    folder, name = finished
    before = Run(folder / name).read_result()
    contents = {record: (folder / name / record).read_bytes() for record in RECORDS}
    harm = st.sampled_from(RECORDS).flatmap(
        lambda record: st.tuples(
            st.just(record),
            st.one_of(st.none(), damaged(contents[record]), st.binary(max_size=30)),
        )
    )

    @cases
    @given(st.lists(harm, min_size=1, max_size=3))
    def claim(harms):
        shutil.rmtree("outputs", ignore_errors=True)
        shutil.copytree(folder, "outputs")
        run = Run(Path("outputs") / name)
        for record, content in harms:
            (run.path / record).unlink(missing_ok=True)
            if content is not None:
                (run.path / record).write_bytes(content)
        answered("eval", f"run={run.path}")
        (run.path / "result.json").unlink(missing_ok=True)  # or it would answer, as it should
        code, _ = answered("train", *TINY)
        found = run.read_result()
        assert (found is not None) == (code == 0)
        assert code != 0 or (found.final, found.best) == (before.final, before.best)

    claim()


# every field of a configuration, of metrics and of an environment with several starts, one at a
# time; test_damaged_records.py has results, and environments of version 0.1

ARCHIVED = Path(__file__).parent.parent / "outputs/measured/cifar10/ldc0/7ac6b42b-s0"
INVALID = [None, "x", "\x00\ud800", -1, 0, True, 10**400, 1e308, float("nan"), float("inf"), [],
           [[1]], {}, {"a": {"b": [1]}}, "9" * 5000, MISSING := "missing"]  # fmt: skip


def fields_of(content, prefix=()):
    """The path of every value in nested mappings and lists, groups included."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in pairs:
        yield (*prefix, key)
        if isinstance(value, dict | list):
            yield from fields_of(value, (*prefix, key))


def changed(content, path, value):
    """A copy of nested data with one value replaced or, with MISSING, taken out."""
    made = copy.deepcopy(content)
    inner = made
    for key in path[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return made


def damaged_records():
    """A file and its content, for each field of each record with each invalid value."""
    env = json.loads((ARCHIVED / "env.json").read_text())
    start = {key: env[key] for key in env if key != "data"} | {"epochs": 1, "steps": 4}
    files = {
        "env.json": {"starts": [start, start], "data": env["data"]},
        "config.yaml": yaml.safe_load((ARCHIVED / "config.yaml").read_text()),
    }
    for file, content in files.items():
        write = json.dumps if file.endswith("json") else yaml.safe_dump
        for path in fields_of(content):
            for value in INVALID:
                yield file, write(changed(content, path, value))
    header, *rows = (ARCHIVED / "metrics.csv").read_text().splitlines()
    for column in range(len(header.split(","))):
        for value in ["", "x", "nan", "-inf", "1e999", "9" * 5000, "1,2,3", '"', "\x00"]:
            cells = rows[1].split(",")
            cells[column] = value
            yield "metrics.csv", "\n".join([header, rows[0], ",".join(cells)])


@pytest.mark.skipif(not ARCHIVED.is_dir(), reason="needs a checkout's outputs/measured")
@pytest.mark.parametrize(
    "every", [37, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_an_invalid_field_of_a_record_costs_its_own_row_alone(every, monkeypatch):
    """A folder of runs, each with one invalid value somewhere, beside one whole run."""
    monkeypatch.setattr(build, "STUDY_PICTURES", 1)
    monkeypatch.setattr(build, "RUN_PICTURES", 1)
    load = published.load
    # not to count all networks; claims name their rows
    monkeypatch.setattr(
        published, "load", lambda name, *rows: load(name, *rows) if rows else load("ldc/4")
    )
    out = Path("outputs")
    whole = out / "cifar10" / "ldc0" / "7ac6b42b-s0"
    shutil.copytree(ARCHIVED, whole)
    count = 0
    for number, (file, text) in enumerate(damaged_records(), 10):
        if number % every:
            continue
        folder = whole.with_name(f"7ac6b42b-s{number}")
        folder.mkdir()
        for name in ("result.json", "env.json", "config.yaml", "metrics.csv"):
            shutil.copyfile(ARCHIVED / name, folder / name)
        result = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps(result | {"seed": number}))
        (folder / file).write_bytes(text.encode("utf-8", "surrogatepass"))
        count += 1
    assert count > 1000 / every
    found = records(out)
    assert len(found) == count + 1  # their results are all valid
    reduced = ["table=ldc/4", "columns=cifar10", "epochs=10", "image_size=32", "archived=false"]
    said = answered_at_length("table", *reduced)
    assert "ldc0" in said or "LDC0" in said
    answered_at_length("table", "runs=outputs")
    answered_at_length("table", "runs=outputs", "format=json")
    answered_at_length("reproduce", *reduced, "dry_run=true")
    answered_at_length("report", "archived=false")


def answered_at_length(*arguments):
    """The output of a command that warns of many damaged files, and does its work all the same."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        code = main(list(arguments))
    out, err = (stream.buffer.getvalue().decode() for stream in streams)
    assert code == 0 and "Traceback" not in out + err, err[-2000:]
    return out
