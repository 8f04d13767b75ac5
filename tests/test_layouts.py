"""What is read of a folder: every image, what is passed over, which folder is used for what."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lwbench.cli import main
from lwbench.data.splits import Tree
from lwbench.data.tree import endings, scan
from lwbench.errors import UsageError
from lwbench.registry import DATASETS

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty working folder."""
    for kind in ("DATA", "CACHE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def mk(*folders):
    """`folder:n` makes n random images in a folder."""
    for text in folders:
        folder, count = text.rsplit(":", 1)
        Path(folder).mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list(folder.encode()))
        for i in range(int(count)):
            pixels = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(f"{folder}/{i:03}.png")


def load(root, **arguments):
    return DATASETS.build({"builder": "folder", "root": root, **arguments}).load(8)


def check(root, capsys):
    code = main(["check", "data=folder", f"data.root={root}"])
    return code, capsys.readouterr().out


# --- every image is read ------------------------------------------------------------------------


def test_images_in_nested_folders_belong_to_their_class(capsys):
    mk("dune/ant:10", "dune/bee:10", "dune/ant/site2:50", "dune/bee/site2:50", "dune/bee/a/b/c:8")
    found = load("dune")
    assert (found.train.labels == 0).sum() + (found.test.labels == 0).sum() == 60
    assert (found.train.labels == 1).sum() + (found.test.labels == 1).sum() == 68
    assert "train 113 images in 2 classes" in check("dune", capsys)[1]


@pytest.mark.parametrize("ending", [".avif", ".jfif", ".JPE", ".gif", ".tga", ".qoi", ".pbm"])
def test_every_format_that_pillow_decodes_is_read(ending, capsys):
    mk("dune/ant:8", "dune/bee:8")
    kind = {".jfif": "jpeg", ".JPE": "jpeg", ".pbm": "ppm"}.get(ending, ending[1:])
    for path in list(Path("dune").rglob("*.png")):
        image = Image.open(path)
        if ending == ".pbm":
            image = image.convert("1")
        image.save(path.with_suffix(ending), kind)
        path.unlink()
    found = load("dune")
    assert len(found.train) + len(found.test) == 16 and not found.notes
    assert check("dune", capsys)[0] == 0


def test_formats_that_pillow_only_recognises_are_passed_over_and_counted():
    assert {".png", ".jpg", ".avif", ".jfif", ".ico"} <= set(endings())
    assert not {".mpg", ".mpeg", ".h5", ".hdf", ".grib", ".bufr", ".txt", ""} & set(endings())


def test_the_digest_of_a_flat_tree_is_the_one_of_version_0_1():
    for part, count in (("train", 3), ("test", 2)):
        for name in ("ant", "bee"):
            folder = Path("tree") / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i}.png").write_bytes(bytes(10 + i))
    splits = Tree(scan(Path("tree/train")), scan(Path("tree/test"))).splits()
    assert splits.digest == "38d051c816479b4816a6c750f6ffce261a4caefb88e4471846a32f6a9b0d8077"


@pytest.mark.parametrize(
    ("link", "target", "reason"),
    [("ant/loop", ".", "a link to a folder that it lies in"), ("cow", "gone", "a link to nothing")],
)
def test_a_folder_that_cannot_be_read_is_named_and_skipping_it_is_said(
    link, target, reason, capsys
):
    mk("dune/ant:8", "dune/bee:8")
    Path("dune", link).symlink_to(Path("dune", target).absolute())
    with pytest.raises(UsageError, match=reason):
        load("dune")
    found = load("dune", on_bad_image="skip")
    assert len(found.train) == 14 and any(reason in note for note in found.notes)
    code, out = check("dune", capsys)
    assert code == 1 and reason in out and out.endswith("1 problem\n")


# --- what is passed over is counted and said ----------------------------------------------------


def texts():
    for i in range(3):
        Path(f"dune/train/ant/{i}.txt").touch()


def hidden():
    shutil.copy("dune/train/ant/000.png", "dune/train/ant/._000.png")
    Path("dune/train/.cache").mkdir()


def loose_images():
    shutil.copy("dune/train/ant/000.png", "dune/train/cover.png")


def an_untested_class():
    mk("dune/train/cow:4")


def an_empty_test_class():
    mk("dune/train/cow:4")
    Path("dune/val/cow").mkdir()


def further_splits():
    mk("dune/test/ant:3", "dune/test/bee:3")


def a_folder_of_no_split():
    mk("dune/unlabelled:5")


def unlabelled_test_images():
    mk("dune/test:5")


def a_contradiction():
    shutil.copy("dune/train/ant/000.png", "dune/train/bee/again.png")


def a_leak():
    shutil.copy("dune/train/ant/000.png", "dune/val/ant/again.png")


def a_repetition():
    shutil.copy("dune/train/ant/000.png", "dune/train/ant/again.png")


NOTES = {
    texts: "passed over in dune/train: 3 .txt (ant/0.txt)",
    hidden: "passed over in dune/train: 2 hidden",
    loose_images: "passed over in dune/train: 1 image beside the class folders (cover.png)",
    an_untested_class: "no images to test on in class cow",
    an_empty_test_class: "no images to test on in class cow",
    further_splits: "train/ is trained on, test/ is tested on after every epoch and chooses the "
    "best weights, val/ is not used",
    a_folder_of_no_split: "not used, since they are neither train nor test folders: unlabelled",
    unlabelled_test_images: "not used, since they are neither train nor test folders: test",
}
EQUAL = {
    a_contradiction: ("contradictory labels: 1 image is equal to one of another class", 1),
    a_leak: ("1 image is both in the training and the test images", 1),
    a_repetition: ("1 image is equal to another one of the same class", 0),
}


@pytest.mark.parametrize("change", [*NOTES, *EQUAL], ids=lambda change: change.__name__)
def test_what_is_unusual_is_said_in_the_first_lines_of_a_run_and_by_check(change, capsys):
    mk("dune/train/ant:8", "dune/train/bee:8", "dune/val/ant:4", "dune/val/bee:4")
    assert not load("dune").notes
    change()
    train = ["train", "model=mb0", "data=folder", "data.root=dune", "epochs=1", "image_size=32"]
    assert main([*train, "device=cpu"]) == 0
    first, _, _ = capsys.readouterr().out.partition("\ntraining ")
    code, out = check("dune", capsys)
    if change in NOTES:
        assert NOTES[change] in first and f"note: {NOTES[change].split(';')[0]}" in out
        assert code == 0 and out.endswith("nothing wrong\n")
    else:
        assert EQUAL[change][0] in first and code == EQUAL[change][1]
        assert "has the pixels of" in out


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_images_lie_in_a_folder_of_any_of_these_names(name):
    mk("dune/train/ant:8", "dune/train/bee:8", f"dune/{name}/ant:4", f"dune/{name}/bee:4")
    found = load("dune")
    assert (len(found.train), len(found.test)) == (16, 8) and not found.notes
    mk("dune/test/ant:3", "dune/test/bee:3")
    assert len(load("dune").test) == 6
    assert any(f"{name}/ is not used" in note for note in load("dune").notes)


def test_test_images_are_labelled_by_the_name_of_their_class():
    mk("dune/train/ant:4", "dune/train/bee:4", "dune/train/cow:4", "dune/val/cow:3")
    assert load("dune").test.labels.tolist() == [2, 2, 2]


# --- one class, and folders a level off ---------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "root", "likely"),
    [
        (["pile/photos:16"], "pile", None),
        (["moss/fern:8", "moss/reed:8"], ".", "moss"),
        (["moss/fern:8", "moss/reed:8"], "moss/fern", "moss"),
        (["a/b/moss/fern:8", "a/b/moss/reed:8"], "a", "a/b/moss"),
        (["fjord/train/cod:8", "fjord/train/eel:8", "fjord/val/cod:4"], ".", "fjord"),
        (["fjord/train/cod:8", "fjord/val/cod:4"], "fjord", None),
        (["pile:16"], "pile", None),
    ],
    ids=str,
)
def test_one_class_is_an_error_that_names_the_folder_that_looks_right(
    folders, root, likely, capsys
):
    mk(*folders)
    with pytest.raises(UsageError, match="class") as caught:
        load(root)
    said = re.search(r"did you mean data\.root=(.*)\?", str(caught.value))
    assert (said and said[1]) == likely
    if likely:  # the advice leads somewhere
        assert load(likely).class_names
    code, out = check(root, capsys)
    assert code == 1 and str(caught.value).split("\n")[0] in out


@pytest.mark.parametrize(
    "folders",
    [
        ["rails/bus:9", "rails/car:9", "rails/train:9"],
        ["rails/bus:9", "rails/test:9"],
        ["rails/bus:9", "rails/car:9", "rails/train:9", "rails/train/more:3"],
        ["rails/bus:9", "rails/val:9", "rails/test:9", "rails/train:9"],
    ],
    ids=str,
)
def test_images_directly_in_a_folder_named_like_a_split_make_it_a_class(folders):
    mk(*folders)
    found = load("rails")
    expected = sorted({folder.split("/")[1].split(":")[0] for folder in folders})
    assert found.class_names == expected
    assert any("is a class: images lie directly in it" in note for note in found.notes)


@pytest.mark.parametrize(
    ("folders", "reason"),
    [
        (["a/train:9", "a/test:9"], "images directly in train, test, without class folders"),
        (["a/train:9"], "images directly in train, without class folders"),
        (["a/train/x:9", "a/train/y:9"], "a folder train, and no other split"),
        (["a/test/x:9", "a/more/x:9"], "a folder test with class folders, and no folder train"),
        (["a/x/train:9", "a/x/test:9", "a/y/train:9", "a/y/test:9"], "each of x, y holds a folder"),
        (["a/train/x:9", "a/train/y:9", "a/val/x:9", "a/val/z:9"], "only a/val has class z"),
        (["a/train/x:9", "a/train/y:0", "a/train/z:9", "a/val/x:9"], "no images to train on in cl"),
        (["a/train/x:9", "a/train/z:9", "a/val/x:0"], "a/val: no images to test on"),
        (["a/x:1", "a/y:1"], "no images to test on"),
        (["a/Train/x:9", "a/Train/y:9", "a/Test/x:9"], "Test, Train look like training or test"),
        (["a/training/x:9", "a/testing/x:9"], "testing, training look like training or test"),
        (["a/x:9", "a/y:9", "a/Training/x:9"], "Training looks like training or test images"),
    ],
    ids=str,
)
def test_folders_that_contradict_each_other_are_explained(folders, reason):
    mk(*folders)
    with pytest.raises(UsageError, match=re.escape(reason)) as caught:
        load("a")
    assert len(str(caught.value).splitlines()) <= 2
    # advice costs no data
    assert not re.search("remove|delete|unlink|rm ", str(caught.value))


def test_the_advice_for_a_lone_training_folder_works():
    mk("a/train/x:9", "a/train/y:9")
    with pytest.raises(UsageError) as caught:
        load("a")
    root = re.search(r"data\.root=(\S+)", str(caught.value))[1]
    assert (len(load(root).train), len(load(root).test)) == (16, 2)


def test_a_hint_where_all_images_lie_a_level_deeper():
    mk("sets/moss/fern:8", "sets/moss/reed:8", "sets/dune/ant:8", "sets/dune/bee:8")
    found = load("sets")
    assert found.class_names == ["dune", "moss"]
    assert any("is data.root a level too high?" in note for note in found.notes)
