"""Claims about faulty data: really damaged files, folders, archives, disks; what is said of it."""

import json
import os
import zlib
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from lwbench.cli import main
from lwbench.data import verify
from lwbench.data.augment import Augment
from lwbench.data.decode import BadImage, decode
from lwbench.data.pipeline import Data
from lwbench.errors import UsageError
from lwbench.registry import DATASETS

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")


@pytest.fixture(autouse=True)
def homes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home" / "share"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))


def build(name, **arguments):
    return DATASETS.build({"builder": name, **arguments}, 32)


def picture(seed, side=40):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def tree(root, splits=("train", "test"), classes=("ant", "bee"), count=4, suffix=".png", side=40):
    for s, split in enumerate(splits):
        for c, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture(1000 * s + 100 * c + i, side).save(folder / f"{i}{suffix}")
    return root


def encoded(image, suffix="jpeg", **options):
    buffer = BytesIO()
    image.save(buffer, suffix, **options)
    return buffer.getvalue()


BAD = {
    "zero.jpg": b"",
    "text.jpg": b"no image at all",
    "half.jpg": encoded(picture(7))[:600],
    "half.png": encoded(picture(7), "png")[:600],
    "page.jpg": b"<html><body>404 Not Found</body></html>",
}


@pytest.fixture
def faulty(tmp_path):
    """A tree of 16 images, and of bad files in one class of the training split."""
    root = tree(tmp_path / "tree")
    for name, content in BAD.items():
        (root / "train" / "ant" / name).write_bytes(content)
    (root / "train" / "ant" / "gone.jpg").symlink_to("nothing")
    os.mkfifo(root / "train" / "ant" / "pipe.jpg")
    (root / "train" / "ant" / "device.jpg").symlink_to("/dev/zero")
    (root / "train" / "ant" / "folder.jpg").mkdir()
    return root


OTHERS = ("gone.jpg", "pipe.jpg", "device.jpg", "folder.jpg")


# --- bad images, raised or passed over


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_ends_the_command_with_its_path(tmp_path, name):
    root = tree(tmp_path / "tree")
    (root / "test" / "bee" / name).write_bytes(BAD[name])
    found = build("folder", root=str(root))
    data = Data(found, image_size=32, batch_size=4, seed=0, device="cpu", augment=Augment())
    with pytest.raises(BadImage, match=f"test/bee/{name}: not a readable image") as caught:
        list(data.eval_batches("test"))
    assert caught.value.exit_code == 2 and str(caught.value).count("\n") == 1


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_file_is_refused_before_it_is_opened(faulty, name):
    for other in {*OTHERS} - {name}:
        bad = faulty / "train" / "ant" / other
        bad.rmdir() if bad.is_dir() else bad.unlink()
    with pytest.raises(UsageError, match=f"{name}: (not a regular file|a link to nothing)"):
        build("folder", root=str(faulty))
    with pytest.raises(BadImage, match=f"{name}: not a readable image"):
        decode(faulty / "train" / "ant" / name)


def test_skip_leaves_out_what_is_bad_and_says_so(faulty, caplog):
    clean = build("folder", root=str(tree(faulty.parent / "clean")))
    found = build("folder", root=str(faulty), on_bad_image="skip")
    assert (len(found.train), len(found.test)) == (8, 8)
    assert found.digest == clean.digest  # the same images, by the same names: the same set
    assert len(found.left_out) == len(BAD) + len(OTHERS)
    for name in (*BAD, *OTHERS):
        assert any(f"ant/{name} (" in line for line in found.left_out)
    (line,) = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    assert "9 of 25 files left out" in line and line.endswith(", ...")


def test_what_is_left_out_changes_the_digest(faulty):
    before = build("folder", root=str(faulty), on_bad_image="skip").digest
    (faulty / "train" / "bee" / "0.png").write_bytes(b"damaged since")
    assert build("folder", root=str(faulty), on_bad_image="skip").digest != before


def test_the_order_does_not_depend_on_when_bad_files_are_found(faulty, tmp_path):
    def batches(**arguments):
        of = build("folder", root=str(faulty), on_bad_image="skip", **arguments)
        data = Data(of, image_size=32, batch_size=3, seed=1, device="cpu", augment=Augment())
        return list(data.train_batches(0))

    first, known, packed = batches(), batches(), batches(cache=str(tmp_path / "cache"))
    for one, other in ((first, known), (first, packed)):
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(one, other, strict=True))


def test_files_are_looked_at_once(faulty, monkeypatch):
    # a file that cannot be opened may be mended unseen, so that outcome is not kept
    (faulty / "train" / "ant" / "gone.jpg").unlink()
    first = build("folder", root=str(faulty), on_bad_image="skip")
    monkeypatch.setattr(verify, "decode", lambda path: pytest.fail("looked again"))
    assert build("folder", root=str(faulty), on_bad_image="skip").left_out == first.left_out


def test_a_damaged_record_of_bad_files_is_not_believed(faulty, tmp_path):
    (faulty / "train" / "ant" / "gone.jpg").unlink()
    wanted = build("folder", root=str(faulty), on_bad_image="skip").left_out
    (record,) = (tmp_path / "home").rglob("*train*-bad.json")
    content = record.read_bytes()
    for at in range(0, len(content), 29):
        record.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert build("folder", root=str(faulty), on_bad_image="skip").left_out == wanted
        record.write_bytes(content[:at])
        assert build("folder", root=str(faulty), on_bad_image="skip").left_out == wanted


def test_a_link_that_is_mended_is_noticed(faulty):
    before = build("folder", root=str(faulty), on_bad_image="skip")
    (faulty / "train" / "ant" / "nothing").write_bytes(encoded(picture(3)))
    assert len(build("folder", root=str(faulty), on_bad_image="skip").train) > len(before.train)


def test_a_class_without_a_readable_image_is_named_even_so(tmp_path):
    root = tree(tmp_path / "tree", count=1)
    (root / "train" / "bee" / "0.png").write_bytes(b"")
    with pytest.raises(UsageError, match="train/bee: no readable image to train on"):
        build("folder", root=str(root), on_bad_image="skip")


def test_an_unknown_policy_is_refused():
    with pytest.raises(UsageError, match=r"data\.on_bad_image='ignore'"):
        build("folder", root="x", on_bad_image="ignore")


def test_a_run_records_what_it_passed_over(faulty, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["train", "data=folder", "epochs=1", "image_size=32", "out=runs"]
    command.append(f"data.root={faulty}")
    assert main([*command, "data.on_bad_image=skip"]) == 0
    said = capsys.readouterr()
    (env,) = (tmp_path / "runs").rglob("env.json")
    left_out = json.loads(env.read_text())["data"]["left_out"]
    assert len(left_out) == 9
    log = (env.parent / "train.log").read_text()
    assert all(line in log for line in left_out)
    assert "9 of 25 files left out" in said.err
    assert main(command) == 2
    assert str(faulty / "train" / "ant") in capsys.readouterr().err


# --- unusual images


def oriented(suffix, orientation, mode="RGB"):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new(mode, (48, 32))
    image.paste(Image.new(mode, (16, 16), "white"), (0, 0))
    return encoded(image, suffix, exif=exif), image


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(tmp_path, orientation, mode):
    from PIL import ImageOps

    content, _ = oriented("jpeg", orientation, mode)
    (tmp_path / "turned.jpg").write_bytes(content)
    wanted = ImageOps.exif_transpose(Image.open(BytesIO(content))).convert("RGB")
    found = decode(tmp_path / "turned.jpg").permute(1, 2, 0).numpy()
    assert np.abs(found.astype(int) - np.asarray(wanted)).max() <= 1


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path, suffix):
    frames = [Image.new("RGB", (24, 24), colour) for colour in ("red", "blue", "green")]
    options = {"lossless": True} if suffix == "webp" else {}
    content = encoded(frames[0], suffix, save_all=True, append_images=frames[1:], **options)
    (tmp_path / f"moving.{suffix}").write_bytes(content)
    found = decode(tmp_path / f"moving.{suffix}")
    assert found.shape == (3, 24, 24)
    assert torch.equal(found[:, 5, 5], torch.tensor([255, 0, 0], dtype=torch.uint8))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_palette_with_transparency_keeps_its_colours(tmp_path, as_bytes):
    image = Image.new("P", (16, 16), 1)
    image.putpalette([255, 0, 0, 10, 200, 30])
    options = {"transparency": b"\xff\x80"} if as_bytes else {"transparency": 1}
    (tmp_path / "palette.png").write_bytes(encoded(image, "png", **options))
    found = decode(tmp_path / "palette.png")
    assert torch.equal(found[:, 3, 3], torch.tensor([10, 200, 30], dtype=torch.uint8))


def test_a_picture_that_claims_to_be_enormous_is_named(tmp_path):
    content = bytearray(encoded(picture(1), "png"))
    content[16:24] = (200_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(BadImage, match=r"bomb\.png"):
        decode(tmp_path / "bomb.png")
