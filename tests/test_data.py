"""Claims about data sets: where they are found, what they hold, and what a faulty one says."""

import hashlib
import logging
import os
import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from lwbench.data import cache as caching
from lwbench.data.decode import decode, fit_square
from lwbench.data.sets.cifar import ARCHIVES
from lwbench.errors import UsageError
from lwbench.registry import DATASETS

CONF = Path(__file__).resolve().parents[1] / "conf" / "data"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")


@pytest.fixture(autouse=True)
def homes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def build(name, image_size=32, **arguments):
    return DATASETS.build({"builder": name, **arguments}).load(image_size)


def noise(count, side=32, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def tree(root, splits=("train", "test"), classes=("ant", "bee"), count=4, side=32, suffix=".png"):
    """Image folders of noise; without splits, classes lie in `root` itself."""
    for s, split in enumerate(splits or (".",)):
        for c, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i, image in enumerate(noise(count, side, seed=100 * s + c)):
                Image.fromarray(image).save(folder / f"{i}{suffix}")
    return root


def cached(tmp_path):
    return list((tmp_path / "cache" / "lwbench").glob("*.npz"))


# --- digits


def test_digits_hold_out_a_fixed_stratified_fifth():
    source = build("digits")
    assert (len(source.train), len(source.test)) == (1442, 355)
    assert source.train.images.shape[1:] == (32, 32, 3) and source.stored == source.window == 32
    share = source.test.labels.bincount() / (
        source.test.labels.bincount() + source.train.labels.bincount()
    )
    assert ((share > 0.19) & (share <= 0.2)).all()
    assert source.digest == build("digits").digest


def test_digits_reach_black_and_white():
    images = build("digits").train.images
    assert images.min() == 0 and images.max() == 255
    assert torch.equal(images[..., 0], images[..., 2])


# --- CIFAR, as folders and as the archive


def archive(root, images, labels):
    """CIFAR-100's archive as its authors wrote it, with the given training and test images."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        flat = images[split].transpose(0, 3, 1, 2).reshape(len(images[split]), -1)
        content = {"data": flat, "fine_labels": list(labels[split])}
        (folder / split).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": ["ant", "bee"]}))
    return folder


@pytest.fixture
def trusting(monkeypatch):
    """Let torchvision take an archive whose checksums are not the official ones."""
    from torchvision import datasets

    monkeypatch.setattr(datasets.cifar, "check_integrity", lambda *a, **k: True)


def test_archive_and_folders_of_one_set_are_the_same_source(tmp_path, trusting):
    tree(tmp_path / "tree")
    images, labels = {}, {}
    for split in ("train", "test"):
        files = sorted((tmp_path / "tree" / split).glob("*/*.png"))
        shuffled = np.random.default_rng(1).permutation(len(files))
        pixels = np.stack([np.asarray(Image.open(f)) for f in files])
        images[split], labels[split] = pixels[shuffled], (shuffled >= 4).astype(int)
    archive(tmp_path / "archive", images, labels)
    one = build("cifar100", root=str(tmp_path / "tree"))
    other = build("cifar100", root=str(tmp_path / "archive"))
    assert one.digest == other.digest and one.mean == other.mean
    assert torch.equal(one.train.images, other.train.images)
    assert torch.equal(one.test.labels, other.test.labels)


def test_pixels_and_labels_are_those_of_the_files(tmp_path):
    source = build("cifar10", root=str(tree(tmp_path / "tree")))
    for label, name in enumerate(("ant", "bee")):
        files = (tmp_path / "tree" / "train" / name).glob("*.png")
        wanted = {hashlib.sha256(np.asarray(Image.open(f)).tobytes()).digest() for f in files}
        mine = source.train.images[source.train.labels == label].numpy()
        assert {hashlib.sha256(image.tobytes()).digest() for image in mine} == wanted


def test_mean_and_deviation_are_the_training_sets(tmp_path):
    source = build("cifar10", root=str(tree(tmp_path / "tree")))
    pixels = source.train.images.double().view(-1, 3) / 255
    assert source.mean == pytest.approx(pixels.mean(0).tolist(), abs=1e-12)
    assert source.std == pytest.approx(pixels.std(0, correction=0).tolist(), abs=1e-9)


def test_root_may_be_the_folder_above(tmp_path):
    tree(tmp_path / "cifar10")
    above, itself = (build("cifar10", root=str(p)) for p in (tmp_path, tmp_path / "cifar10"))
    assert above.digest == itself.digest


def test_an_archive_that_fails_its_checksum_is_refused(tmp_path):
    images = {"train": noise(4), "test": noise(2)}
    archive(tmp_path, images, {"train": [0, 0, 1, 1], "test": [0, 1]})
    with pytest.raises(UsageError, match="cifar-100-python: a file does not match its checksum"):
        build("cifar100", root=str(tmp_path))


def test_an_archive_that_lacks_a_file_names_it(tmp_path):
    folder = archive(tmp_path, {"train": noise(2), "test": noise(2)}, {"train": [0], "test": [0]})
    (folder / "meta").unlink()
    with pytest.raises(UsageError, match="meta: missing"):
        build("cifar100", root=str(tmp_path))


def test_a_difference_from_the_published_class_count_is_a_warning(tmp_path, caplog):
    build("cifar100", root=str(tree(tmp_path / "tree")))
    assert "2 classes instead of 100" in caplog.text


def test_an_image_of_another_size_is_named(tmp_path):
    tree(tmp_path / "tree")
    Image.new("RGB", (40, 30)).save(tmp_path / "tree" / "test" / "bee" / "odd.png")
    with pytest.raises(UsageError, match=r"odd\.png: 40 x 30 px"):
        build("cifar10", root=str(tmp_path / "tree"))


def test_a_missing_root_is_an_error_at_once_and_downloads_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: pytest.fail("asked the network"))
    for name in ("cifar10", "cifar100", "caltech256", "imagenet", "folder"):
        with pytest.raises(UsageError, match="no such folder"):
            build(name, root=str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    for name in ("cifar10", "caltech256", "imagenet"):
        with pytest.raises(UsageError, match="expected"):
            build(name, root=str(tmp_path / "empty"))


def test_offline_the_default_root_says_how_to_place_the_archive(tmp_path, monkeypatch):
    def offline(*arguments, **options):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    for name, size in (("cifar100", "169 MB"), ("caltech256", "1.2 GB")):
        with pytest.raises(UsageError) as caught:
            build(name)
        for part in (str(tmp_path / "share/lwbench" / name), size, "https://", "unreachable"):
            assert part in str(caught.value)


def test_the_published_urls_are_torchvisions():
    from torchvision import datasets

    for known in ARCHIVES.values():
        dataset = getattr(datasets, known.dataset)
        files = {entry[0] for entry in (*dataset.train_list, *dataset.test_list)}
        assert files | {dataset.meta["filename"]} == set(known.files)
        assert dataset.base_folder == known.folder


# --- the pack


def test_the_second_start_decodes_nothing(tmp_path, monkeypatch):
    root = str(tree(tmp_path / "tree"))
    first = build("cifar10", root=root)
    monkeypatch.setattr("lwbench.data.workers.decode", lambda path: pytest.fail("decoded again"))
    second = build("cifar10", root=root)
    assert second.digest == first.digest
    assert torch.equal(second.train.images, first.train.images)


def test_data_cache_says_where_the_pack_lies(tmp_path):
    build("cifar10", root=str(tree(tmp_path / "tree")), cache=str(tmp_path / "elsewhere"))
    assert len(list((tmp_path / "elsewhere").glob("*.npz"))) == 1 and not cached(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped bit"])
def test_a_damaged_pack_is_made_anew_with_one_warning(tmp_path, caplog, damage):
    root = str(tree(tmp_path / "tree"))
    wanted = build("cifar10", root=root).digest
    (path,) = cached(tmp_path)
    content = bytearray(path.read_bytes())
    if damage == "flipped bit":
        content[len(content) // 2] ^= 4
    path.write_bytes(content[: {"truncated": len(content) // 2, "empty": 0}.get(damage)])
    caplog.clear()
    assert build("cifar10", root=root).digest == wanted
    assert len([r for r in caplog.records if "decoding the images again" in r.getMessage()]) == 1
    caplog.clear()
    assert build("cifar10", root=root).digest == wanted
    assert "decoding the images again" not in caplog.text


def test_a_changed_pack_with_a_sound_checksum_is_noticed(tmp_path):
    build("cifar10", root=str(tree(tmp_path / "tree")))
    (path,) = cached(tmp_path)
    names, arrays, digest = caching.load_arrays(path)
    arrays["train_labels"] = arrays["train_labels"][::-1].copy()
    caching.save_arrays(path, names, arrays, digest)  # the zip's own checksums are right again
    with pytest.raises(ValueError, match="digest"):
        caching.load_arrays(path)


def test_a_changed_tree_is_another_pack(tmp_path):
    root = tree(tmp_path / "tree")
    first = build("cifar10", root=str(root))
    Image.fromarray(noise(1, seed=9)[0]).save(root / "train" / "ant" / "new.png")
    assert len(build("cifar10", root=str(root)).train) == len(first.train) + 1


def test_a_cache_that_cannot_be_written_costs_only_the_cache(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    cache = str(tmp_path / "file" / "cache")
    source = build("cifar10", root=str(tree(tmp_path / "tree")), cache=cache)
    assert len(source.train) == 8
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 2  # and the classes


def test_an_interrupted_save_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    root = str(tree(tmp_path / "tree"))
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build("cifar10", root=root)
    left = (tmp_path / "cache" / "lwbench").iterdir()
    assert [path for path in left if path.suffix != ".lock"] == []


# --- trees


def test_classes_that_differ_between_splits_are_named(tmp_path):
    tree(tmp_path, splits=("train",), classes=("ant", "bee", "cow"))
    tree(tmp_path, splits=("test",), classes=("ant", "bee", "dog"))
    for name in ("cifar10", "folder"):
        with pytest.raises(UsageError, match=r"differ in their classes: only .*test has class dog"):
            build(name, root=str(tmp_path))


def test_an_empty_class_folder_is_named(tmp_path):
    (tree(tmp_path) / "train" / "zebra").mkdir()
    with pytest.raises(UsageError, match=r"train: no images to train on in class zebra"):
        build("folder", root=str(tmp_path))


def test_a_dangling_link_is_named(tmp_path):
    (tree(tmp_path) / "test" / "ant" / "gone.png").symlink_to(tmp_path / "nothing")
    with pytest.raises(UsageError, match=r"gone\.png: a link to nothing"):
        build("folder", root=str(tmp_path))


def test_an_unreadable_folder_is_named(tmp_path, monkeypatch):
    tree(tmp_path)
    scandir = os.scandir

    def refused(path):
        if Path(path).name == "bee":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(UsageError, match=r"bee: cannot be read \(Permission denied\)"):
        build("folder", root=str(tmp_path))


def test_a_tree_without_class_folders_says_what_is_expected(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    with pytest.raises(UsageError, match="no class folders; expected"):
        build("imagenet", root=str(tmp_path))


def test_hidden_and_other_files_are_passed_over(tmp_path):
    tree(tmp_path)
    (tmp_path / "train" / "ant" / ".hidden.png").write_text("x")
    (tmp_path / "train" / "ant" / "notes.txt").write_text("x")
    (tmp_path / "train" / ".cache").mkdir()
    assert len(build("folder", root=str(tmp_path)).train) == 8


def test_a_tree_of_classes_is_split_by_split_seed_alone(tmp_path):
    root = str(tree(tmp_path / "mine", splits=(), classes=("ant", "bee"), count=16))
    one, again, other = (build("folder", root=root, split_seed=seed) for seed in (0, 0, 1))
    assert one.name == "mine" and (len(one.train), len(one.test)) == (28, 4)
    assert one.test.labels.bincount().tolist() == [2, 2]
    assert one.test.paths == again.test.paths and one.digest == again.digest
    assert one.test.paths != other.test.paths and one.digest != other.digest
    assert not set(one.train.paths) & set(one.test.paths)


def test_a_class_of_one_image_is_trained_on_and_said_to_be_untested(tmp_path):
    tree(tmp_path, splits=(), classes=("ant",), count=1)
    tree(tmp_path, splits=(), classes=("bee", "cow"), count=2)
    found = build("folder", root=str(tmp_path))
    assert found.train.labels.tolist() == [0, 1, 2] and found.test.labels.tolist() == [1, 2]
    assert any("no images to test on in class ant" in note for note in found.notes)


def test_a_set_without_a_single_image_to_test_on_is_refused(tmp_path):
    tree(tmp_path, splits=(), classes=("ant", "bee"), count=1)
    with pytest.raises(UsageError, match="no images to test on"):
        build("folder", root=str(tmp_path))


def test_one_split_alone_is_refused(tmp_path):
    tree(tmp_path, splits=("train",))
    with pytest.raises(UsageError, match="a folder train, and no other split"):
        build("folder", root=str(tmp_path))


def test_folder_needs_a_root():
    with pytest.raises(UsageError, match=r"data=folder needs data\.root"):
        build("folder")


def test_caltech_leaves_the_clutter_out(tmp_path):
    tree(
        tmp_path / "256_ObjectCategories",
        splits=(),
        classes=("001.ak47", "002.flag", "257.clutter"),
        count=8,
        suffix=".jpg",
    )
    source = build("caltech256", root=str(tmp_path))
    assert source.class_names == ["001.ak47", "002.flag"]
    assert (len(source.train), len(source.test)) == (14, 2)


def test_streamed_sets_store_what_the_window_needs(tmp_path):
    root = str(tree(tmp_path))
    source = build("folder", image_size=224, root=root)
    assert (source.stored, source.window, source.streaming) == (256, 224, True)
    whole = build("folder", image_size=96, root=root, crop=1.0)
    assert (whole.stored, whole.window) == (96, 96)


def test_the_digest_of_a_streamed_set_follows_names_and_sizes(tmp_path):
    one = build("folder", root=str(tree(tmp_path / "a"))).digest
    tree(tmp_path / "b")
    assert build("folder", root=str(tmp_path / "b")).digest == one  # another place, the same set
    (tmp_path / "b" / "test" / "bee" / "0.png").rename(tmp_path / "b" / "test" / "bee" / "9.png")
    assert build("folder", root=str(tmp_path / "b")).digest != one


# --- decoding


def encoded(image, suffix, **options):
    buffer = BytesIO()
    image.save(buffer, suffix, **options)
    return buffer.getvalue()


def photo(side=48):
    ramp = np.linspace(0, 255, side, dtype=np.uint8)
    red, green = np.meshgrid(ramp, ramp)
    return Image.fromarray(np.stack((red, green, 255 - red), axis=-1))


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("RGB", "png"),
        ("L", "png"),
        ("P", "png"),
        ("RGBA", "png"),
        ("LA", "png"),
        ("1", "png"),
        ("RGB", "jpeg"),
        ("L", "jpeg"),
        ("CMYK", "jpeg"),
        ("RGB", "bmp"),
        ("P", "gif"),
        ("RGB", "webp"),
        ("RGB", "tiff"),
    ],
)
def test_every_format_is_the_rgb_that_pillow_reads(tmp_path, mode, suffix):
    path = tmp_path / f"image.{suffix}"
    path.write_bytes(encoded(photo().convert(mode), suffix))
    wanted = np.asarray(Image.open(path).convert("RGB"))
    # JPEG is decoded by two builds of libjpeg-turbo, which may differ by a rounding
    tolerance = 1 if suffix == "jpeg" else 0
    found = decode(path).permute(1, 2, 0).numpy()
    assert np.abs(found.astype(int) - wanted).max() <= tolerance


def test_sixteen_bits_are_scaled_rather_than_cut_off(tmp_path):
    values = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "deep.png")
    found = decode(tmp_path / "deep.png")
    assert np.abs(found[0].numpy().astype(float) - values / 257).max() <= 0.5
    assert torch.equal(found[0], found[2])


def test_without_torchvisions_decoders_pillow_gives_the_same_pixels(tmp_path, monkeypatch):
    for suffix in ("png", "jpeg"):
        (tmp_path / suffix).write_bytes(encoded(photo(), suffix))
    one = [decode(tmp_path / suffix) for suffix in ("png", "jpeg")]
    monkeypatch.setattr("lwbench.data.decode.torchvision_decoders", dict)
    other = [decode(tmp_path / suffix) for suffix in ("png", "jpeg")]
    assert torch.equal(one[0], other[0])
    assert (one[1].int() - other[1].int()).abs().max() <= 1


@pytest.mark.parametrize("suffix", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
def test_a_truncated_image_is_named(tmp_path, suffix, share):
    content = encoded(Image.fromarray(noise(1, 64)[0]), suffix)
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UsageError, match=rf"cut\.{suffix}: not a readable image"):
        decode(path)


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(UsageError, match=r"text\.jpg: not a readable image"):
        decode(tmp_path / "text.jpg")


def test_resizing_agrees_with_pillow_to_a_rounding():
    image = photo(97)
    wanted = np.asarray(image.resize((40, 40), Image.Resampling.BILINEAR))
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert np.abs(fit_square(tensor, 40).numpy().astype(int) - wanted).max() <= 1


def test_the_central_square_is_taken():
    image = torch.zeros(3, 10, 30, dtype=torch.uint8)
    image[:, :, 10:20] = 7
    assert (fit_square(image, 10) == 7).all() and fit_square(image, 10).shape == (10, 10, 3)


# --- configuration


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda p: p.stem)
def test_each_yaml_names_every_argument_and_a_whole_recipe(path):
    import inspect

    from lwbench.data.augment import Augment
    from lwbench.registry import validated

    assert path.read_text().startswith("# ")
    config = yaml.safe_load(path.read_text())
    augment, recipe = config.pop("augment"), config.pop("recipe")
    assert config.pop("validation") == 0.0
    ours = {f"recipe.{key}" for key in recipe} | {f"augment.{key}" for key in augment}
    assert set(config.pop("ours", [])) <= {*ours, "augment", "recipe"}
    assert validated(Augment, augment, "data.augment") == augment
    assert set(augment) == set(inspect.signature(Augment).parameters)
    builder = DATASETS.builder(config["builder"])
    arguments = set(inspect.signature(builder).parameters)
    assert set(config) - {"builder"} == arguments
    # interpolations have values only in a whole configuration; commands pack photographs on the
    # disk by default, a data set that is built from Python writes nothing unless it is asked to
    plain = {k: v for k, v in config.items() if not str(v).startswith("${") and k != "cache"}
    assert config.get("cache") in (None, "auto")
    assert DATASETS.spec(plain) == DATASETS.spec({"builder": config["builder"]})
    rates = {"lr", "dropout", "momentum", "weight_decay", "offset_lr_factor", "clip_grad_norm"}
    assert set(recipe) == rates | {"epochs", "restart_epochs", "batch_size", "image_size"}


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "caltech256"])
def test_recipes_are_the_papers(name):
    recipe = yaml.safe_load((CONF / f"{name}.yaml").read_text())["recipe"]
    lr, dropout = (0.1, 0.0) if name == "caltech256" else (0.05, 0.25)  # ldc, section 4.2
    stated = {"lr": lr, "dropout": dropout, "epochs": 100, "restart_epochs": 5}
    assert {key: recipe[key] for key in stated} == stated
    assert recipe["weight_decay"] > 0


# --- real images


@pytest.mark.skipif(not SHARED.is_dir(), reason="no folder ../shared with samples")
@pytest.mark.parametrize(("name", "sizes"), [("caltech256", (350, 50)), ("imagenet", (100, 30))])
def test_samples_of_photographs_are_read(name, sizes):
    source = build(name, image_size=64, root=str(SHARED))
    assert (len(source.train), len(source.test)) == sizes
    assert len(source.class_names) == 10
    assert all(0.2 < m < 0.8 for m in source.mean) and all(0.1 < s < 0.5 for s in source.std)
