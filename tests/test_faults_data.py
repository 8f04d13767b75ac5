"""Claims about faulty data: really damaged files, folders, archives, disks; what is said of it."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import textwrap
import threading
import time
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lwbench.cli import main
from lwbench.data import workers
from lwbench.data.augment import Augment
from lwbench.data.decode import BadImage, decode
from lwbench.data.loader import Data
from lwbench.data.workers import decode_files
from lwbench.errors import LwbenchError, UsageError, shown
from lwbench.registry import DATASETS

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")


@pytest.fixture(autouse=True)
def homes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home" / "share"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))


def build(name, **arguments):
    return DATASETS.build({"builder": name, **arguments}).load(32)


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
    return root


OTHERS = ("gone.jpg", "pipe.jpg", "device.jpg")


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
        (faulty / "train" / "ant" / other).unlink()
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
    assert "8 of 24 files are unreadable and left out" in line and line.endswith(", ...")


def test_what_is_left_out_changes_the_digest(faulty):
    before = build("folder", root=str(faulty), on_bad_image="skip").digest
    (faulty / "train" / "bee" / "0.png").write_bytes(b"damaged since")
    assert build("folder", root=str(faulty), on_bad_image="skip").digest != before


def test_the_order_does_not_depend_on_when_bad_files_are_found(faulty, tmp_path):
    def batches(**arguments):
        of = build("folder", root=str(faulty), on_bad_image="skip", **arguments)
        data = Data(of, image_size=32, batch_size=3, seed=1, device="cpu", augment=Augment())
        return list(data.train_batches(0))

    cache = str(tmp_path / "cache")
    first, known, packing, packed = batches(), batches(), batches(cache=cache), batches(cache=cache)
    for one, other in ((first, known), (first, packing), (first, packed)):
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(one, other, strict=True))


def test_files_are_looked_at_once(faulty, monkeypatch):
    # a file that cannot be opened may be mended unseen, so that outcome is not cached
    (faulty / "train" / "ant" / "gone.jpg").unlink()
    first = build("folder", root=str(faulty), on_bad_image="skip")
    monkeypatch.setattr("lwbench.data.streamed.examined", lambda *a: pytest.fail("looked again"))
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
    with pytest.raises(UsageError, match="all images are of one class, ant; none in class bee"):
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
    assert len(left_out) == 8
    log = (env.parent / "train.log").read_text()
    assert all(line in log for line in left_out)
    assert "8 of 24 files are unreadable and left out" in said.err
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


# --- packed caches


def python(code, *arguments, **options):
    """A process of its own, with `build` and what the code needs at hand."""
    head = """
        import os, sys, time, logging
        from lwbench.registry import DATASETS
        logging.basicConfig(format="%(message)s")
        def build(name, **arguments):
            return DATASETS.build({"builder": name, **arguments}).load(32)
    """
    source = textwrap.dedent(head) + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def said(process, timeout=120):
    out, err = process.communicate(timeout=timeout)
    assert "Traceback" not in err, err
    return out, err


# what each kind of set keeps: one file of a small set, one a split of a large one, which is written
# while its images are first used
KINDS = [("cifar10", "*.npz"), ("folder", "*px-*.bin")]
PACK = """
    from lwbench.data.augment import Augment
    from lwbench.data.loader import Data
    cache, *sets = sys.argv[1:]
    for name, root in zip(sets[::2], sets[1::2]):
        found = build(name, root=root, cache=cache)
        data = Data(found, image_size=32, batch_size=4, seed=0, device="cpu", augment=Augment())
        for split in ("train", "test"):
            list(data.eval_batches(split))
        os.write(1, f"{found.digest}\\n".encode())  # at once, where two processes write
"""


def used(name, **arguments):
    """A data set whose images were all used once, so that they are packed where possible."""
    found = build(name, **arguments)
    data = Data(found, image_size=32, batch_size=4, seed=0, device="cpu", augment=Augment())
    for split in ("train", "test"):
        list(data.eval_batches(split))
    return found


def kind_tree(root, name, count=4):
    return str(tree(root / "tree", side=32 if name == "cifar10" else 40, count=count))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system takes privileges")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(("name", "pattern"), KINDS)
def test_a_full_disk_costs_the_cache_and_nothing_else(
    tmp_path, small_disk, monkeypatch, caplog, name, pattern
):
    root = kind_tree(tmp_path, name)
    wanted = build(name, root=root).digest
    free = shutil.disk_usage(small_disk).free
    (small_disk / "others").write_bytes(bytes(free - 8192))
    # a quota does not show in the free space: then the disk is full in the middle of writing
    monkeypatch.setattr(shutil, "disk_usage", lambda p: type("U", (), {"free": 1 << 40}))
    caplog.clear()
    assert used(name, root=root, cache=str(small_disk / "cache")).digest == wanted
    assert "No space left on device" in caplog.text and "not cached" in caplog.text
    assert not list((small_disk / "cache").glob(pattern))
    assert not list((small_disk / "cache").glob("*.part"))
    (small_disk / "others").unlink()
    assert used(name, root=root, cache=str(small_disk / "cache")).digest == wanted
    assert list((small_disk / "cache").glob(pattern))


def test_a_limit_of_file_sizes_costs_the_cache_and_nothing_else(tmp_path):
    sets = [word for name, _ in KINDS for word in (name, kind_tree(tmp_path / name, name))]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # noqa: E731
    process = python(PACK, tmp_path / "cache", *sets, preexec_fn=limit)
    out, err = said(process)
    assert process.returncode == 0
    assert err.count("File too large") == err.count("not cached") >= len(KINDS)
    wanted = zip(sets[::2], sets[1::2], strict=True)
    assert out.split() == [build(name, root=root).digest for name, root in wanted]
    assert not [path for _, pattern in KINDS for path in (tmp_path / "cache").glob(pattern)]


SLOW = """
    from lwbench.data import workers
    def slow(path, decode=workers.decode):
        time.sleep(0.02)
        return decode(path)
    workers.decode = slow
    sync = os.fsync
    os.fsync = lambda file: (time.sleep(0.5), sync(file))
"""


TWICE = """
    import atexit
    from lwbench.data import loader  # with torch: once for both processes
    if other := os.fork():
        atexit.register(os.waitpid, other, 0)
"""


@pytest.mark.parametrize(
    ("name", "pattern", "signum"), [(*KINDS[0], signal.SIGKILL), (*KINDS[1], signal.SIGTERM)]
)
def test_packing_that_is_killed_leaves_nothing_that_looks_finished(tmp_path, name, pattern, signum):
    root, cache = kind_tree(tmp_path, name), tmp_path / "cache"
    process = python(SLOW + PACK, cache, name, root)
    end = time.monotonic() + 100
    while not list(cache.glob("*.part")) and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signum)
    process.communicate(timeout=60)
    assert process.returncode != 0 and not list(cache.glob(pattern))
    found = used(name, root=root, cache=str(cache))
    assert found.digest == build(name, root=root).digest
    assert list(cache.glob(pattern)) and not list(cache.glob("*.part"))


def test_two_processes_that_pack_at_once_make_one_pack(tmp_path):
    name = "folder"
    root, cache = kind_tree(tmp_path, name), tmp_path / "cache"
    process = python(TWICE + SLOW + PACK, cache, name, root)
    out, err = said(process)
    assert process.returncode == 0
    first, second = out.splitlines()
    assert first == second == build(name, root=root).digest
    # whoever comes second streams meanwhile; for the digests of the files it may wait
    lines = err.splitlines()
    assert all(re.search(r"hashes-\w+\.bin: waiting for another process", line) for line in lines)
    assert len(list(cache.glob("*.bin"))) == 2  # one a split
    assert not list(cache.glob("*.part"))


@pytest.mark.parametrize(("name", "pattern"), KINDS)
def test_no_damage_to_a_cache_changes_an_image(tmp_path, caplog, name, pattern):
    root, cache = kind_tree(tmp_path, name, count=2), str(tmp_path / "cache")
    wanted, squares = used(name, root=root), squares_of(name, root)
    used(name, root=root, cache=cache)
    path = min((tmp_path / "cache").glob(pattern))
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(content), 20).tolist():
        flipped = bytearray(content)
        flipped[at] ^= 1 << int(rng.integers(8))
        for damaged in (bytes(flipped), content[:at]):
            path.write_bytes(damaged)
            used(name, root=root, cache=cache)
            found = build(name, root=root, cache=cache)
            assert torch.equal(found.train.images, squares[0])
            assert torch.equal(found.test.images, squares[1])
            assert torch.equal(found.train.labels, wanted.train.labels)
    assert "damaged" in caplog.text


def squares_of(name, root):
    """The decoded images of both splits, without a cache."""
    found = build(name, root=root)
    return [
        part.images if part.images is not None else decode_files(part.paths, found.stored)
        for part in (found.train, found.test)
    ]


@pytest.fixture
def read_only(tmp_path):
    """Makes a folder read-only, for root too."""
    mounted = []

    def make(place):
        commands = (["mount", "--bind", place, place], ["mount", "-o", "remount,bind,ro", place])
        for command in commands:
            if subprocess.run(command, capture_output=True).returncode:
                pytest.skip("a read-only mount takes privileges")
            mounted[:] = [place]
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(("name", "pattern"), KINDS)
def test_a_read_only_cache_is_read_and_one_that_cannot_be_made_is_done_without(
    tmp_path, read_only, caplog, name, pattern
):
    root, cache = kind_tree(tmp_path, name), tmp_path / "cache"
    used(name, root=root, cache=str(cache))
    wanted = build(name, root=root, cache=str(cache))
    read_only(cache)
    caplog.clear()
    found = build(name, root=root, cache=str(cache))
    assert torch.equal(found.train.images, wanted.train.images) and "not cached" not in caplog.text
    assert used(name, root=root, cache=str(cache / "deeper")).digest == wanted.digest
    assert "not cached (Read-only file system)" in caplog.text


@pytest.fixture
def open_folder():
    """A temporary folder that other users may look into."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_without_a_home_there_is_no_cache_and_no_failure(open_folder):
    root = kind_tree(open_folder, "cifar10")
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    code = """
        build("cifar10", root=sys.argv[1], cache=sys.argv[2])  # loads what that user cannot
        if os.getuid() == 0:
            os.setuid(54321)  # a user without an entry, and so without a home
        else:
            os.environ["HOME"] = "/nonexistent"
        print(build("cifar10", root=sys.argv[1]).digest)
    """
    out, err = said(python(code, root, open_folder / "cache", env=environment))
    assert out.strip() == build("cifar10", root=root).digest
    assert "/nonexistent/.cache/lwbench" in err and "not cached" in err


# --- archives


def tar_of(path, members):
    """A tar archive of (TarInfo, content) pairs."""
    with tarfile.open(path, "w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, BytesIO(content) if info.isreg() else None)


def member(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def photographs(classes=("001.ak47", "002.flag"), count=8):
    name = "256_ObjectCategories/{}/{:03d}_{:04d}.jpg"
    return [
        (member(name.format(label, c + 1, i)), encoded(picture(10 * c + i)))
        for c, label in enumerate(classes)
        for i in range(count)
    ]


@pytest.fixture
def served(monkeypatch):
    """Serves a caltech256 archive made by the test to torchvision's own download and unpacking."""
    from torchvision.datasets import utils

    def serve(members):
        def download_url(url, root, filename=None, md5=None, **options):
            Path(root).mkdir(parents=True, exist_ok=True)
            tar_of(Path(root) / filename, members)

        monkeypatch.setattr(utils, "download_url", download_url)
        monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: BytesIO())

    return serve


def test_a_download_takes_its_place_when_whole(served, tmp_path):
    served(photographs())
    assert len(build("caltech256").train) == 14
    home = tmp_path / "home" / "share" / "lwbench" / "caltech256"
    assert {p.name for p in home.iterdir()} <= {"caltech256", ".download.lock"}
    served([])  # nothing is fetched again
    assert len(build("caltech256").train) == 14


@pytest.mark.parametrize(
    "evil",
    [
        lambda out: [(member("../../../../evil.txt"), b"evil")],
        lambda out: [(member(f"{out}/evil.txt"), b"evil")],
        lambda out: [(member("256_ObjectCategories/out", tarfile.SYMTYPE, str(out)), b""),
                     (member("256_ObjectCategories/out/evil.txt"), b"evil")],
        lambda out: [(member("256_ObjectCategories/up", tarfile.SYMTYPE, "../../../.."), b""),
                     (member("256_ObjectCategories/up/evil.txt"), b"evil")],
        lambda out: [(member("256_ObjectCategories/hard", tarfile.LNKTYPE, f"{out}/own"), b"")],
        lambda out: [(member("256_ObjectCategories/device", tarfile.CHRTYPE), b"")],
    ],
    ids=["climbs", "absolute", "link", "relative link", "hard link", "device"],
)  # fmt: skip
def test_an_archive_writes_nothing_outside_its_folder(served, tmp_path, evil):
    out = tmp_path / "outside"
    out.mkdir()
    (out / "own").write_text("mine")
    served([*photographs(), *evil(out)])
    try:
        build("caltech256")
    except UsageError as error:
        assert "cannot be downloaded" in str(error) and "place it by hand" in str(error)
    assert [path.name for path in out.iterdir()] == ["own"] and (out / "own").read_text() == "mine"
    assert not list(tmp_path.rglob("evil.txt")) or all(
        ".download" in p.parts or "256_ObjectCategories" in p.parts
        for p in tmp_path.rglob("evil.txt")
    )
    assert not any(p.is_char_device() for p in tmp_path.rglob("*"))
    assert "extraction_filter" not in tarfile.TarFile.__dict__  # put back as it was


def test_half_an_unpacked_archive_never_takes_its_place(served, tmp_path, monkeypatch):
    served([*photographs(), (member("/etc/evil"), b"ends the unpacking")])
    unpack = tarfile.TarFile.extractall

    def killed(archive, path, *arguments, **options):  # after the first class
        unpack(archive, path, members=archive.getmembers()[:8])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "extractall", killed)
    with pytest.raises(UsageError, match="No space left on device"):
        build("caltech256")
    monkeypatch.setattr(tarfile.TarFile, "extractall", unpack)
    served(photographs())
    found = build("caltech256")
    assert len(found.class_names) == 2 and len(found.train) == 14


def test_half_a_download_fails_its_checksum_and_says_what_to_do(tmp_path, monkeypatch):
    from torchvision.datasets import utils

    def half(url, path, *arguments, **options):
        Path(path).write_bytes(b"half of it")

    monkeypatch.setattr(utils, "_urlretrieve", half)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, **k: url)
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: BytesIO())
    for name in ("cifar10", "cifar100", "caltech256"):
        with pytest.raises(UsageError, match="corrupted") as caught:
            build(name)
        assert "place it by hand: unpack https://" in str(caught.value)


def test_a_tree_with_fewer_images_than_published_is_a_warning(tmp_path, caplog):
    classes = ("001.ak47", "002.flag")
    tree(tmp_path / "256_ObjectCategories", splits=(".",), classes=classes, count=2, suffix=".jpg")
    build("caltech256", root=str(tmp_path))
    assert "4 images instead of 29,780" in caplog.text


# --- trees


@pytest.mark.parametrize("policy", ["raise", "skip"])
@pytest.mark.parametrize(
    "name", ["ü-日本", "<script>alert(1)<script>", "-rf", "line\nbreak", "back\udcffslash", "a b"]
)
def test_any_name_of_a_class_and_a_file_is_read(tmp_path, name, policy):
    root = tree(tmp_path / "tree", classes=("ant", name))
    (root / "train" / name / "0.png").rename(root / "train" / name / f"{name}.png")
    found = build("folder", root=str(root), on_bad_image=policy)
    assert sorted(found.class_names) == sorted(["ant", name]) and len(found.train) == 8
    data = Data(found, image_size=32, batch_size=8, seed=0, device="cpu", augment=Augment())
    assert next(iter(data.train_batches(0)))[0].shape[0] == 8
    assert build("folder", root=str(root), cache=str(tmp_path / "c")).digest == found.digest
    for path in (root / "train" / name).iterdir():
        path.unlink()
    with pytest.raises(UsageError) as caught:
        build("folder", root=str(root))
    assert shown(name) in str(caught.value) and str(caught.value).count("\n") == 1


def test_names_of_any_bytes_are_split_packed_and_checked(tmp_path, capsys):
    name = "odd\udcff\nname"
    root = tree(tmp_path / "tree", splits=(".",), classes=("ant", name), side=32)
    assert len(build("folder", root=str(root), cache=str(tmp_path / "cache")).test) == 2
    assert main(["check", "data=folder", f"data.root={root}"]) == 0
    whole = tree(tmp_path / "cifar", classes=("ant", name), side=32)
    for _ in range(2):  # made, then read back
        assert build("cifar10", root=str(whole)).class_names == ["ant", name]


@pytest.mark.parametrize("name", ["../up", "..", ".", "a/b", "line\nbreak", ""])
def test_a_name_that_is_no_part_of_a_path_is_refused(tmp_path, name):
    config = {"builder": "folder", "root": str(tree(tmp_path / "tree"))}
    assert len(DATASETS.build(config | {"name": ".plain"}).load(32).train) == 8
    with pytest.raises(UsageError, match=r"data\.name="):
        DATASETS.build(config | {"name": name})


def test_a_class_that_is_a_link_to_nothing_is_named(tmp_path):
    (tree(tmp_path) / "train" / "cow").symlink_to("nowhere")
    with pytest.raises(UsageError, match="train/cow: a link to nothing"):
        build("folder", root=str(tmp_path))


def test_a_link_in_a_circle_is_named(tmp_path):
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(UsageError, match="round: cannot be read"):
        build("folder", root=str(tmp_path / "round"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_what_may_not_be_read_is_named(open_folder):
    root = tree(open_folder / "tree")
    (root / "train" / "bee" / "1.png").chmod(0)
    (open_folder / "closed").mkdir(mode=0o700)
    hidden = tree(open_folder / "hidden")
    (hidden / "test" / "ant").chmod(0)
    code = """
        from lwbench.errors import UsageError
        from lwbench.data.loader import Data
        from lwbench.data.augment import Augment
        roots = sys.argv[1:]
        def read(**arguments):
            data = Data(build("folder", **arguments), image_size=32, batch_size=4, seed=0,
                        device="cpu", augment=Augment())
            return list(data.train_batches(0)), data.source.left_out
        read(root=roots[0])  # loads what that user cannot
        os.setuid(65534)
        for arguments in [dict(root=root) for root in roots]:
            try:
                read(**arguments)
                print("read")
            except UsageError as error:
                print(repr(str(error)))
        print(read(root=roots[0], on_bad_image="skip")[1])
    """
    out, _ = said(python(code, root, hidden, open_folder / "closed" / "tree"))
    lines = out.splitlines()
    assert f"{root}/train/bee/1.png: not a readable image (cannot be read: Permission" in lines[0]
    assert f"{hidden}/test/ant: cannot be read (Permission denied)" in lines[1]
    assert f"{open_folder}/closed/tree: cannot be read (Permission denied)" in lines[2]
    assert f"{root}/train/bee/1.png (cannot be read: Permission denied)" in lines[3]


# --- reads that hang


def test_a_read_that_hangs_ends_a_decoding_of_all_files_with_a_name(tmp_path, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr("lwbench.data.workers.decode", lambda path: release.wait(60))
    monkeypatch.setattr(workers, "PATIENCE_S", 0.2)
    try:
        with pytest.raises(LwbenchError, match=r"no image decoded for 0\.2 s: .*hangs"):
            build("cifar10", root=kind_tree(tmp_path, "cifar10"))
    finally:
        release.set()


def test_a_decoder_that_raises_anything_is_named_with_its_path(tmp_path, monkeypatch):
    root = tree(tmp_path / "tree")

    def broken(content):
        raise MemoryError

    monkeypatch.setattr("lwbench.data.decode.decode_bytes", broken)
    with pytest.raises(BadImage, match=r"train/ant/\d\.png: not a readable image \(MemoryError\)"):
        build("folder", root=str(root))
