"""Which images a figure is of: changed images, other classes, foreign data in published columns."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lwbench.cli import main
from lwbench.runs.images import PUBLISHED, differences, digest_of_names, is_same, unlike_published
from lwbench.runs.schema import Images

pytestmark = pytest.mark.filterwarnings("ignore")
TRAIN = ["train", "model=mb0", "data=folder", "epochs=1", "image_size=32", "device=cpu"]


def noise(folder, count, seed=0, side=16):
    rng = np.random.default_rng([seed, *folder.name.encode()])
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png", compress_level=0)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A folder with images and a finished run on them."""
    place = tmp_path_factory.mktemp("pristine")
    for name in ("fern", "reed"):
        noise(place / "here" / "moss" / name, 10)
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("DATA", "CACHE"):
            patch.setenv(f"XDG_{kind}_HOME", str(place / kind))
        patch.chdir(place / "here")
        assert main([*TRAIN, "data.root=moss"]) == 0
    shutil.copytree(place / "here", place / "copy")
    return place


@pytest.fixture
def lwbench(pristine, monkeypatch, capsys):
    """Runs commands where the images and the run lie as they were made, times included."""
    here = pristine / "here"
    shutil.rmtree(here)
    shutil.copytree(pristine / "copy", here)
    for kind in ("DATA", "CACHE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(pristine / kind))
    monkeypatch.chdir(here)

    def run(*arguments):
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def the_run():
    (path,) = Path("outputs").glob("moss/mb0/*-s0")
    return path


# --- a stored figure answers for the images that it was made with -------------------------------


def more_images():
    noise(Path("moss/reed"), 12)


def another_class():
    noise(Path("moss/sage"), 10)


def a_renamed_class():
    Path("moss/reed").rename("moss/rush")


def an_image_less():
    Path("moss/fern/04.png").unlink()


def other_pixels_of_the_same_size():
    sizes = [path.stat().st_size for path in sorted(Path("moss/fern").iterdir())]
    noise(Path("moss/fern"), 10, seed=1)
    assert [path.stat().st_size for path in sorted(Path("moss/fern").iterdir())] == sizes


def exchanged_labels():
    fern, reed = Path("moss/fern/03.png"), Path("moss/reed/03.png")
    content = fern.read_bytes(), reed.read_bytes()
    fern.write_bytes(content[1])
    reed.write_bytes(content[0])


def a_nested_folder():
    noise(Path("moss/fern/north"), 2)


CHANGES = {
    more_images: "18 images to train on and 2 to test on then, 20 and 2 now",
    another_class: "only now: class sage; 18 images to train on",
    a_renamed_class: "only then: class reed; only now: class rush",
    an_image_less: "18 images to train on and 2 to test on then, 17 and 2 now",
    other_pixels_of_the_same_size: "files of the same names and sizes, but other contents",
    exchanged_labels: "files of the same names and sizes, but other contents",
    a_nested_folder: "18 images to train on and 2 to test on then, 20 and 2 now",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_finished_run_gives_no_answer_for_changed_images(lwbench, change):
    assert lwbench(*TRAIN, "data.root=moss")[0] == 0
    change()
    code, out, err = lwbench(*TRAIN, "data.root=moss")
    assert code == 2 and "finished" not in out
    assert CHANGES[change] in err and "force=true" in err and str(the_run()) in err


FEW = [another_class, a_renamed_class, other_pixels_of_the_same_size]


@pytest.mark.parametrize("change", FEW, ids=lambda change: change.__name__)
def test_an_interrupted_run_is_not_resumed_on_changed_images(lwbench, change):
    (the_run() / "result.json").unlink()
    change()
    code, _, err = lwbench(*TRAIN, "data.root=moss")
    assert code == 2 and CHANGES[change] in err
    assert not (the_run() / "result.json").exists()


@pytest.mark.parametrize("change", FEW, ids=lambda change: change.__name__)
def test_a_sweep_shows_no_figures_of_changed_images(lwbench, change):
    assert "mb0" in lwbench(*TRAIN, "-m", "data.root=moss", "seed=0")[1]
    change()
    code, out, err = lwbench(*TRAIN, "-m", "data.root=moss", "seed=0,1")
    assert code == 2 and not out and CHANGES[change] in err
    assert len(list(Path("outputs").glob("*/*/*"))) == 1


@pytest.mark.parametrize("change", FEW, ids=lambda change: change.__name__)
def test_an_evaluation_is_of_the_recorded_images(lwbench, change):
    assert lwbench("eval", f"run={the_run()}")[1].count("as recorded") == 2
    change()
    code, out, err = lwbench("eval", f"run={the_run()}")
    assert code == 2 and not out and CHANGES[change] in err


@pytest.mark.parametrize("change", FEW, ids=lambda change: change.__name__)
def test_a_longer_run_does_not_start_from_one_of_other_images(lwbench, change):
    longer = [part.replace("epochs=1", "epochs=2") for part in TRAIN]
    steady = ["scheduler=constant", "data.root=moss"]
    assert lwbench(*TRAIN, *steady)[0] == 0
    change()
    code, _, err = lwbench(*longer, *steady, "extend=true")
    assert code == 2 and CHANGES[change] in err


@pytest.mark.parametrize("kind", ["finished", "interrupted"])
def test_other_images_are_trained_on_beside_it_and_never_pooled(lwbench, kind):
    another_class()
    if kind == "interrupted":  # a repetition on yet other images that did not end
        assert lwbench(*TRAIN, "data.root=moss", "force=true")[0] == 0
        (path,) = Path("outputs").glob("moss/mb0/*-s0-2")
        (path / "result.json").unlink()
        more_images()
    code, out, _ = lwbench(*TRAIN, "data.root=moss", "force=true")
    assert code == 0 and "finished: " in out
    code, out, _ = lwbench("table", "runs=outputs", "format=json")
    tables = {cell["table"] for cell in json.loads(out)}
    assert code == 0 and len(tables) == 2
    assert any("(2 classes, 18 + 2 images" in name for name in tables)
    assert all(cell["n"] == 1 for cell in json.loads(out) if cell["column"] == "top1")
    assert lwbench(*TRAIN, "data.root=moss")[0] == 0  # the newest run is of these images


def touched():
    for path in Path("moss").rglob("*.png"):
        os.utime(path, (1, 1))


def copied():
    shutil.copytree("moss", "other/moss", copy_function=shutil.copy)
    shutil.rmtree("moss")


def linked():
    Path("link").symlink_to("moss")


@pytest.mark.parametrize(
    ("change", "root"), [(touched, "moss"), (copied, "other/moss"), (linked, "link")]
)
def test_the_same_images_are_answered_for_whatever_their_times_and_place(lwbench, change, root):
    change()
    code, out, err = lwbench(*TRAIN, f"data.root={root}")
    assert code == 0 and "finished earlier" in out and not err


def test_a_sweep_over_folders_of_one_name_takes_no_figure_of_one_for_the_other(lwbench):
    noise(Path("b/moss/fern"), 9)
    noise(Path("b/moss/reed"), 9)
    code, out, err = lwbench(*TRAIN, "-m", "data.root=moss,b/moss", "seed=7")
    assert code == 2 and not out and "data.name=<name> tells them apart" in err
    shutil.copytree("moss", "c/moss", copy_function=shutil.copy)
    assert lwbench(*TRAIN, "-m", "data.root=moss,c/moss")[0] == 0  # a copy is the same set


def test_images_that_are_gone_are_not_compared_and_that_is_said(lwbench):
    shutil.rmtree("moss")
    code, out, err = lwbench(*TRAIN, "data.root=moss")
    assert code == 0 and "finished earlier" in out and "not compared" in err
    code, _, err = lwbench(*TRAIN, "data.root=nowhere", "data.name=moss")
    assert code == 2 and "no such folder" in err


def test_unchanged_images_are_not_read_again(lwbench, monkeypatch):
    def read(*arguments):
        pytest.fail("an image was read")

    monkeypatch.setattr("lwbench.data.decode.read_file", read)
    monkeypatch.setattr("lwbench.data.content.read_file", read)
    assert lwbench(*TRAIN, "data.root=moss")[0] == 0


def test_a_run_that_has_trained_nothing_may_start_on_other_images(lwbench):
    (the_run() / "result.json").unlink()
    shutil.rmtree(the_run() / "checkpoints")
    another_class()
    assert lwbench(*TRAIN, "data.root=moss")[0] == 0


# --- classes are matched by name ----------------------------------------------------------------


@pytest.mark.parametrize("names", [("fern", "rush"), ("fern", "reed", "sage"), ("a", "b")])
def test_weights_are_evaluated_on_the_classes_that_they_were_trained_on(lwbench, names):
    for name in names:
        noise(Path("pool") / name, 8)
    only = sorted({*names} - {"fern", "reed"})
    network = ["model=mb0", "data=folder", "image_size=32"]
    weights = f"checkpoint={the_run()}/checkpoints/best.pt"
    for arguments in (["eval", f"run={the_run()}"], ["eval", weights, *network]):
        code, out, err = lwbench(*arguments, "data.root=pool")
        assert code == 2 and not out and "trained on other classes" in err
        assert all(name in err for name in only)
        assert lwbench(*arguments, "data.root=moss")[0] == 0


def test_a_network_is_evaluated_on_other_images_of_its_classes_and_that_is_said(lwbench):
    for name in ("fern", "reed"):
        noise(Path("pool") / name, 8, seed=3)
    code, out, _ = lwbench("eval", f"run={the_run()}", "data.root=pool")
    assert code == 0 and out.count("not compared: these are other images than the run's") == 2


# --- what is compared ---------------------------------------------------------------------------

THEN = {"digest": "a", "content": "b", "train_size": 9, "test_size": 3, "classes": 2,
        "class_names": ["x", "y"]}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({}, True),
        ({"fingerprint": "other", "root": "/elsewhere"}, True),
        ({"content": None}, True),
        ({"digest": None, "content": None}, True),
        ({"digest": "c"}, False),
        ({"content": "c"}, False),
    ],
    ids=str,
)
def test_images_are_the_same_where_digest_and_content_are_as_far_as_recorded(changed, same):
    then, now = Images.model_validate(THEN), Images.model_validate(THEN | changed)
    assert is_same(then, now) is is_same(now, then) is same


def test_a_difference_is_always_described():
    then = Images.model_validate(THEN)
    for changed in ({"digest": "c"}, {"content": "c"}, {"digest": "c", "class_names": ["y", "z"]},
                    {"digest": "c", "class_names": [], "classes": 3}):  # fmt: skip
        assert differences(then, Images.model_validate(THEN | changed))


def test_many_class_names_are_cut_and_odd_ones_escaped():
    names = [f"c{i}" for i in range(9)] + ["\x1b[2J\n"]
    text = differences(Images(class_names=("x",)), Images(class_names=tuple(names)))
    assert "10 classes: " in text and "..." in text and "\x1b" not in text and "\n" not in text


def test_the_names_of_the_published_sets_are_those_of_their_archives():
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not shared.is_dir():
        pytest.skip("no folder ../shared with the names")
    for name in ("cifar10", "cifar100"):
        names = (shared / name / "classes.txt").read_text().split()
        assert digest_of_names(names) == PUBLISHED[name].names
        assert len(names) == PUBLISHED[name].classes


def test_the_names_of_imagenet_are_the_wnids_that_timm_ships():
    timm = pytest.importorskip("timm")
    file = Path(timm.__file__).parent / "data" / "_info" / "imagenet_synsets.txt"
    assert digest_of_names(file.read_text().split()) == PUBLISHED["imagenet"].names


@pytest.mark.parametrize(
    ("images", "how"),
    [
        ({"classes": 10, "train_size": 50_000, "test_size": 10_000}, "10 classes instead of 100"),
        ({"classes": 2, "train_size": 18, "test_size": 8}, "2 classes instead of 100"),
        ({"classes": 100, "train_size": 500, "test_size": 100}, "600 images instead of 60,000"),
        ({"classes": 100, "train_size": 40_000, "test_size": 20_000}, "40,000 training images"),
        ({"classes": 100, "train_size": 50_000, "test_size": 10_000,
          "class_names": [str(n) for n in range(100)]}, "other class names"),
        ({}, ""),
    ],
    ids=str,
)  # fmt: skip
def test_foreign_data_in_the_place_of_a_published_set_is_told_apart(images, how):
    found = unlike_published(Images.model_validate(images), "cifar100")
    assert found.startswith(how) and bool(found) == bool(how)
    assert unlike_published(Images.model_validate(images), "moss") == ""


def test_a_sample_in_a_published_sets_place_fills_no_cell(lwbench):
    for part, count in (("train", 9), ("test", 4)):
        for name in ("a", "b"):
            noise(Path("h10") / part / name, count, side=32)
    study = ["experiment=ldc", "epochs=1", "image_size=8"]
    train = ["train", "model=mb0", "data=cifar100", "data.root=h10", *study]
    assert lwbench(*train)[0] == 0
    table = ["table=ldc/4", "columns=cifar100", "rows=mb0", "epochs=1", "image_size=8"]
    code, out, err = lwbench("table", *table, "archived=false", "format=json")
    (cell,) = json.loads(out)
    assert code == 0 and (cell["verdict"], cell["measured"], cell["n"]) == ("open", None, None)
    assert re.search(
        r"not of cifar100 as published \(2 classes instead of 100, 26 images instead of 60,000\)",
        err,
    )
    code, out, err = lwbench("reproduce", *table, "dry_run=true", "archived=false")
    assert code == 2 and "2 classes instead of 100" in err
