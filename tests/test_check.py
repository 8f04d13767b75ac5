"""Claims about `lwbench check`: what it finds in a data set, what it says, how it ends."""

import io
import os

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from lwbench.cli import main
from lwbench.data import check as room
from lwbench.data import workers
from lwbench.data.decode import pixel_hash
from lwbench.data.workers import examined
from lwbench.logs import CountProgress

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def tree(tmp_path):
    """Two splits of three classes, of 3, 4 and 5 images; no image twice."""
    root = tmp_path / "tree"
    for s, split in enumerate(("train", "test")):
        for c, name in enumerate(("ant", "bee", "cow")):
            (root / split / name).mkdir(parents=True)
            for i in range(3 + c):
                picture(100 * s + 10 * c + i).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture
def check(tree, capsys):
    def run(*overrides):
        code = main(["check", "data=folder", f"data.root={tree}", *overrides])
        return code, capsys.readouterr().out

    return run


def test_a_sound_set_ends_with_0_and_its_balance(check):
    code, out = check()
    assert code == 0
    assert "train 12 images in 3 classes, a class has 3 to 5 of them, the median 4" in out
    assert out.endswith("nothing wrong\n")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_every_bad_file_is_listed(check, tree, count):
    ant = tree / "train" / "ant"
    (ant / "a.jpg").write_bytes(b"")
    (ant / "b.jpg").write_text("no image")
    (ant / "c.jpg").symlink_to("nothing")
    os.mkfifo(ant / "d.jpg")
    whole = (tree / "test" / "cow" / "0.png").read_bytes()
    (tree / "test" / "cow" / "e.png").write_bytes(whole[: len(whole) // 2])
    code, out = check(f"workers={count}")
    assert code == 1 and out.endswith("5 problems\n")
    for path in (*(ant / f"{letter}.jpg" for letter in "abcd"), tree / "test" / "cow" / "e.png"):
        assert f"bad file: {path} (" in out
    assert "train 12 images" in out


def test_equal_pixels_in_whatever_format_are_duplicates_or_contradictory_labels(check, tree):
    image = Image.open(tree / "train" / "bee" / "1.png")
    image.save(tree / "test" / "cow" / "again.bmp")
    image.save(tree / "test" / "bee" / "same.bmp")
    picture(0).save(tree / "train" / "cow" / "twice.png")

    def pair(path, twin):
        texts = (f"{tree}/{p} (class {p.split('/')[1]})" for p in (path, twin))
        return " has the pixels of ".join(texts)

    code, out = check()
    assert code == 1 and out.endswith("3 problems\n")
    assert f"duplicate: {pair('test/bee/same.bmp', 'train/bee/1.png')}" in out
    assert f"contradictory labels: {pair('test/cow/again.bmp', 'train/bee/1.png')}" in out
    assert f"contradictory labels: {pair('train/cow/twice.png', 'train/ant/0.png')}" in out


def test_equal_hashes_are_no_duplicates_where_the_pixels_differ(check, monkeypatch):
    monkeypatch.setattr("lwbench.data.workers.pixel_hash", lambda image: 7)
    assert check()[0] == 0


def test_many_duplicates_are_counted_and_the_first_named(check, tree, monkeypatch):
    monkeypatch.setattr(room, "MOST", 2)
    for i in range(5):
        picture(10 + i).save(tree / "train" / "bee" / f"{i}.png")
        picture(10 + i).save(tree / "test" / "bee" / f"{i}.png")
    code, out = check()
    assert code == 1 and out.count("has the pixels of") == 2
    assert "duplicate: 3 more images of test are in train, too" in out


def test_classes_without_images_and_of_one_split_are_named(check, tree):
    (tree / "train" / "empty").mkdir()
    for path in (tree / "test" / "ant").iterdir():
        path.unlink()
    code, out = check()
    assert code == 1
    assert f"{tree}/train: no images to train on in class empty" in out
    assert "note: no images to test on in 2 classes: ant, empty" in out
    assert out.endswith("1 problem\n")
    assert "a class has 0 to 5 of them" in out


def test_a_class_whose_images_are_all_bad_has_none(check, tree):
    for path in (tree / "train" / "ant").iterdir():
        path.write_bytes(b"")
    assert f"{tree}/train: no images to train on in class ant" in check()[1]


def test_sets_that_lie_in_memory_are_looked_at_too(capsys, monkeypatch):
    assert main(["check"]) == 0
    assert "train 1,442 images in 10 classes" in capsys.readouterr().out
    from lwbench.data import draws
    from lwbench.data.draws import held_out

    def all_zeros(*arguments):
        return held_out(*arguments) | (arguments[-1] == 0)

    monkeypatch.setattr(draws, "held_out", all_zeros)
    assert main(["check"]) == 1
    assert "train: no images to train on in class 0" in capsys.readouterr().out


def test_names_cannot_forge_a_line(check, tree):
    bad = tree / "train" / "ant" / "x\nnothing wrong\x1b[2J.jpg"
    bad.write_bytes(b"")
    code, out = check()
    assert code == 1 and r"x\nnothing wrong\x1b[2J.jpg (the file is empty)" in out


def test_a_set_that_is_not_there_is_a_usage_error(tmp_path, capsys):
    assert main(["check", "data=folder", f"data.root={tmp_path / 'no'}"]) == 2
    assert main(["check", "data=folder", "workers=-1", f"data.root={tmp_path}"]) == 2
    assert main(["check", "data=folder", "lr=1", f"data.root={tmp_path}"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_only_a_few_batches_are_held_at_once(tree, monkeypatch):
    alive, most = 0, 0
    begin = workers._Batch.__init__

    def counted(batch, *arguments):
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        begin(batch, *arguments)

    monkeypatch.setattr(workers._Batch, "__init__", counted)
    monkeypatch.setattr(workers, "BATCH", 2)
    paths = [str(path) for path in sorted(tree.rglob("*.png"))] * 5
    for batch in examined(paths, workers=2):
        assert len(batch) == 2
        alive -= 1
    assert most == workers.AHEAD + 1 and alive == 0


def test_size_enters_the_pixel_hash():
    import torch

    flat = torch.zeros(3, 4, 6, dtype=torch.uint8)
    assert pixel_hash(flat) == pixel_hash(flat.clone()) >= 0
    assert pixel_hash(flat) != pixel_hash(flat.reshape(3, 6, 4))
    other = flat.clone()
    other[2, 3, 5] = 1
    assert pixel_hash(flat) != pixel_hash(other)


def test_without_a_terminal_progress_is_lines(check, monkeypatch):
    monkeypatch.setattr(CountProgress, "EVERY_S", 0.0)
    assert "12/24 images, " in check()[1]


def test_on_a_terminal_progress_is_a_bar(check, monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr("lwbench.logs.console", lambda: screen)
    check()
    assert "24/24 images" in screen.file.getvalue() and "━" in screen.file.getvalue()
