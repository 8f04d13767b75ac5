"""One set of images in many layouts: equal digests and batches, and every fault is a line."""

import importlib.util
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from lwbench.cli import main
from lwbench.data import content
from lwbench.errors import UsageError
from lwbench.registry import DATASETS
from lwbench.runs.images import is_same
from lwbench.runs.records import records
from lwbench.runs.schema import Images
from lwbench.tables.studies import images as images_of

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parents[1] / "shared" / "data"
WNIDS = ("n00000001", "n00000002", "n00000003")


def script():
    spec = importlib.util.spec_from_file_location("layouts", ROOT / "scripts" / "layouts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def layouts():
    return script()


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """An empty working folder, and empty folders of data and cache."""
    for kind in ("DATA", "CACHE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / kind))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def encoded(seed, kind="RGB"):
    """A JPEG, or a PNG in a mode that JPEG lacks."""
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    image, file, exif = Image.fromarray(pixels), io.BytesIO(), Image.Exif()
    if kind == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif kind in ("L", "P", "CMYK"):
        image = image.convert(kind)
    if kind == "upside down":
        exif[0x0112] = 3
    image.save(file, "PNG" if kind in ("P", "I;16") else "JPEG", exif=exif)
    return file.getvalue()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """24 images in three classes, of every kind that is decoded in its own way."""
    folder = tmp_path_factory.mktemp("images")
    kinds = ("RGB", "L", "P", "CMYK", "I;16", "upside down")
    found = {"train": {}, "val": {}}
    for seed in range(24):
        kind, wnid = kinds[seed // 3 % 6], WNIDS[seed % 3]
        ending = "png" if kind in ("P", "I;16") else "JPEG"
        file = folder / f"{wnid}_{seed}.{ending}"
        file.write_bytes(encoded(seed, kind))
        found["val" if seed >= 18 else "train"].setdefault(wnid, []).append(file)
    return found


def build(root, builder="folder", **arguments):
    return DATASETS.build({"builder": builder, "root": str(root), **arguments})


def check(root, capsys, *more):
    code = main(["check", f"data.root={root}", *(more or ["data=folder"])])
    out, err = capsys.readouterr()
    return code, out + err


# --- one digest, one order ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference(layouts, images, tmp_path_factory):
    root = layouts.folders(images, tmp_path_factory.mktemp("reference") / "tree")
    return layouts.first_epoch("folder", root)


@pytest.mark.parametrize(
    "name", ["nested", "list", "tiny_imagenet", "class_archives", "webdataset", "parquet"]
)
def test_every_layout_of_the_same_images_has_the_digest_and_first_epoch_of_the_folder(
    name, layouts, images, reference, capsys
):
    if name == "parquet":
        pytest.importorskip("pyarrow")
    root = layouts.LAYOUTS[name](images, Path("set"))
    builder = layouts.BUILDERS.get(name, "folder")
    assert layouts.first_epoch(builder, root) == reference
    # again, now from the cached index
    assert build(root, builder).load(32).encoded == reference[0]
    code, out = check(root, capsys, f"data={builder}")
    assert code == 0 and "train 18 images in 3 classes" in out and "test  6 images" in out


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="no folder ../shared with photographs")
def test_layouts_of_200_photographs_are_equal(layouts, tmp_path):
    pytest.importorskip("pyarrow")
    assert layouts.main(SHARED / "caltech256" / "256_ObjectCategories", tmp_path / "out", 200) == 0


def test_names_that_keep_the_order_leave_the_digest_and_labels_or_bytes_change_it(layouts, images):
    root = layouts.folders(images, Path("set"))
    before = build(root).load(32)
    files = sorted((root / "train" / WNIDS[0]).iterdir())
    files[-1].rename(files[-1].with_name("zzz.JPEG"))
    renamed = build(root).load(32)
    assert renamed.encoded == before.encoded and renamed.digest != before.digest
    assert is_same(before.images(None), renamed.images(None))
    (root / "train" / WNIDS[0] / "zzz.JPEG").rename(root / "train" / WNIDS[1] / "000.JPEG")
    assert build(root).load(32).encoded != before.encoded


def test_hashes_are_remembered_until_a_file_changes(layouts, images, monkeypatch, tmp_path):
    root = layouts.folders(images, Path("set"))
    before = build(root).load(32).encoded
    read = []
    read_file = content.read_file
    monkeypatch.setattr(content, "read_file", lambda path: read.append(path) or read_file(path))
    assert build(root).load(32).encoded == before and not read
    changed = next((root / "val" / WNIDS[0]).iterdir())
    changed.write_bytes(encoded(99))
    assert build(root).load(32).encoded != before and [str(path) for path in read] == [str(changed)]
    for store in (tmp_path / "CACHE" / "lwbench").glob("hashes-*.bin"):
        store.write_bytes(store.read_bytes()[:-1])  # damaged: everything is read again
    read.clear()
    build(root).load(32)
    assert len(read) == 24


@pytest.mark.parametrize(
    ("then", "now", "same"),
    [
        # recorded before `encoded`: names, sizes and bytes decide
        ({"digest": "a", "content": "b"}, {"digest": "a", "content": "b", "encoded": "c"}, True),
        ({"digest": "a", "content": "x"}, {"digest": "a", "content": "b", "encoded": "c"}, False),
        # else the encoded images alone, whatever the files are called
        ({"digest": "x", "encoded": "c"}, {"digest": "a", "content": "b", "encoded": "c"}, True),
        ({"digest": "a", "encoded": "x"}, {"digest": "a", "content": "b", "encoded": "c"}, False),
    ],
)
def test_records_from_before_the_digest_of_encoded_images_stay_valid(then, now, same):
    then, now = Images.model_validate(then), Images.model_validate(now)
    assert is_same(then, now) is is_same(now, then) is same


def recorded(out, name, **images):
    """A finished run of which no more is there than its result and its images."""
    figures = {"epoch": 1, "test_loss": 1.0, "test_top1": 50, "test_top5": 50, "train_top1": 50}
    result = {
        "identity": name, "model": "mb0", "data": "moss", "seed": 0, "epochs": 1, "device": "cpu",
        "precision": "fp32", "params": 1, "seconds": 1.0, "images_per_s": 1.0, "final": figures,
        "best": figures,
    }  # fmt: skip
    folder = out / "moss" / "mb0" / f"{name}-s0"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "env.json").write_text(json.dumps({"data": images}))


def test_tables_pool_runs_recorded_before_and_after_and_on_other_layouts():
    out = Path("outputs")
    recorded(out, "before", digest="folder", content="bytes")
    recorded(out, "after", digest="folder", content="bytes", encoded="all")
    recorded(out, "shards", digest="tar", content="bytes", encoded="all")
    recorded(out, "others", digest="folder", content="changed")
    of = {record.result.identity: images_of(record) for record in records(out)}
    assert of["before"] == of["after"] == of["shards"] == "all" != of["others"]


# --- ImageNet as it is distributed --------------------------------------------------------------


def devkit(folder, wnids):
    """The devkit's files: ids 1, 2, 3 are the wnids in an order of their own."""
    order = [WNIDS[2], WNIDS[0], WNIDS[1]]
    folder.mkdir(parents=True)
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    rows = [(i, wnid, "a word") for i, wnid in enumerate(order, 1)]
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kind)})
    truth = "".join(f"{order.index(wnid) + 1}\n" for wnid in wnids)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)


def imagenet_val(images, write):
    """Call `write(name, file)` for validation images named as ImageNet's; return their wnids."""
    pairs = [(file, wnid) for wnid, files in images["val"].items() for file in files]
    pairs = pairs[::2] + pairs[1::2]  # so that classes alternate
    for number, (file, _) in enumerate(pairs, 1):
        write(f"ILSVRC2012_val_{number:08}.JPEG", file)
    return [wnid for _, wnid in pairs]


def by_class(source):
    """The wnids of the test images, in order, and their file names."""
    names = [Path(str(path)).name for path in source.test.paths]
    return dict(zip(names, [source.class_names[i] for i in source.test.labels], strict=True))


@pytest.mark.parametrize("packed", [False, True])
def test_flat_validation_images_get_the_classes_of_the_devkit(packed, images):
    root = Path("imagenet")
    for wnid, files in images["train"].items():
        (root / "train" / wnid).mkdir(parents=True)
        for file in files:
            (root / "train" / wnid / file.name).write_bytes(file.read_bytes())
    (root / "val").mkdir()
    wnids = imagenet_val(images, lambda n, f: (root / "val" / n).write_bytes(f.read_bytes()))
    kit = root / "ILSVRC2012_devkit_t12"
    devkit(kit / "data", wnids)
    if packed:
        with tarfile.open(f"{kit}.tar.gz", "w:gz") as archive:
            archive.add(kit, kit.name)
        kit.rename("elsewhere")
    found = by_class(build(root, "imagenet").load(32))
    assert found == {f"ILSVRC2012_val_{n:08}.JPEG": wnid for n, wnid in enumerate(wnids, 1)}


def test_the_two_archives_of_image_net_org_are_read_where_they_lie(images, reference, layouts):
    root = Path("imagenet")
    root.mkdir()
    with tarfile.open(root / "ILSVRC2012_img_train.tar", "w") as outer:
        for wnid, files in images["train"].items():
            with tarfile.open("inner.tar", "w") as inner:
                for file in files:
                    inner.add(file, file.name)
            outer.add("inner.tar", f"{wnid}.tar")
    with tarfile.open(root / "ILSVRC2012_img_val.tar", "w") as archive:
        wnids = imagenet_val(images, lambda name, file: archive.add(file, name))
    devkit(root / "ILSVRC2012_devkit_t12" / "data", wnids)
    source = build(root, "imagenet").load(32)
    assert len(source.train) == 18 and set(by_class(source).values()) == set(WNIDS)
    tree = layouts.folders(images, Path("tree"))
    assert source.train.labels.tolist() == build(tree, "imagenet").load(32).train.labels.tolist()


def test_kaggles_archive_is_found_from_its_top(images, layouts):
    root = layouts.class_archives(images, Path("ILSVRC/Data/CLS-LOC"))
    (root / "LOC_val_solution.csv").rename("LOC_val_solution.csv")
    source = build(".", "imagenet").load(32)
    assert (len(source.train), len(source.test)) == (18, 6)


def test_flat_validation_images_without_their_classes_are_refused_with_what_is_missing(images):
    Path("set/val").mkdir(parents=True)
    imagenet_val(images, lambda n, f: (Path("set/val") / n).write_bytes(f.read_bytes()))
    with pytest.raises(UsageError, match=r"LOC_val_solution\.csv or ILSVRC2012_devkit_t12"):
        build("set", "imagenet").splits()


# --- lists --------------------------------------------------------------------------------------


def files(*names):
    for seed, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(encoded(seed))


def test_class_names_are_text_whatever_they_look_like():
    names = [f"i/{n}.jpg" for n in range(8)]
    files(*names)
    labels = ["007", "7", "null", "1e3"] * 2
    Path("list.txt").write_text("".join(f"{n} {x}\n" for n, x in zip(names, labels, strict=True)))
    assert build("list.txt").splits().train.class_names == ["007", "1e3", "7", "null"]


def test_every_faulty_line_of_a_list_is_a_line_of_check(capsys):
    good = [f"i/{n}.jpg" for n in range(20)]
    files(*good, "outside.jpg")
    rows = [f"{name},{'ab'[n % 2]},train" for n, name in enumerate(good)]
    rows += [
        "i/gone.jpg,a,train",
        "../outside.jpg,a,train",
        "/etc/passwd,b,train",
        "i/1.jpg,a,train",
        "i/2.jpg,a,train",
        "i/3.jpg,,train",
        "i/4.jpg,a,later",
        "only-one-field",
    ]
    Path("set").mkdir()
    Path("i").rename("set/i")
    Path("set/list.csv").write_text("\n".join(["path,label,split", *rows]))
    code, out = check("set/list.csv", capsys)
    assert code == 1 and "7 problems" in out
    for line, what in [
        (22, "i/gone.jpg cannot be read (No such file or directory)"),
        (23, "../outside.jpg leads out of the folder of the list"),
        (24, "/etc/passwd leads out"),
        (25, "i/1.jpg is listed as b above"),
        (27, "no label for i/3.jpg"),
        (28, "split later is none of train"),
        (29, "no label for only-one-field"),
    ]:
        assert f"list.csv line {line}: {what}" in out
    assert "1 repeated line (line 26: i/2.jpg)" in out
    assert main(["train", "data=folder", "data.root=set/list.csv", "model=mb0", "epochs=1"]) == 2
    assert "6 more faults: lwbench check lists them all" in capsys.readouterr().err


# --- archives and shards ------------------------------------------------------------------------


def tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, text in members:
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return path


def samples(count, label=lambda n: b"ab"[n % 2 : n % 2 + 1]):
    for n in range(count):
        yield f"{n:03}.jpg", encoded(n)
        yield f"{n:03}.cls", label(n)


def test_what_is_wrong_with_shards_is_said_line_by_line(capsys):
    whole = tar(Path("set/a.tar"), samples(20))
    tar(
        Path("set/b.tar"),
        [
            ("x.jpg", encoded(30)),  # without a class
            ("y.cls", b"a"),  # without an image
            ("../z.jpg", encoded(31)),
            ("w.jpg", encoded(32)),
            ("w.png", encoded(33)),  # a second image of one sample
            ("w.cls", b"b"),
            ("notes.json", b"{}"),
        ],
    )
    content = whole.read_bytes()
    Path("set/c.tar").write_bytes(content[: len(content) // 2])
    Path("set/d.tar").write_bytes(b"no archive" * 100)
    code, out = check("set", capsys)
    assert code == 1
    for text in (
        "set/b.tar/x.jpg: no .cls file of its name",
        "set/b.tar: y.cls has no image of its name",
        "set/b.tar: member ../z.jpg leads out of the archive",
        "set/b.tar/w.png: a second image of sample w",
        "set/c.tar: cut short or damaged after",
        "set/d.tar: not a readable .tar",
        "passed over in set: 1 .json (notes.json)",
    ):
        assert text in out


def test_integer_classes_have_the_names_of_classnames_txt_and_others_are_faults(capsys):
    tar(Path("set/train.tar"), samples(20, lambda n: str(n % 2 if n else 2).encode()))
    Path("set/classnames.txt").write_text("zebra\nant\n")
    code, out = check("set", capsys)
    assert code == 1 and "class 2 is none of 0 to 1" in out and "1 problem" in out
    # in the order of the file, which integers count
    assert build("set").splits().train.class_names == ["zebra", "ant"]


def table(path, cells, labels, names=("a", "b")):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    found = pyarrow.table({"image": cells, "label": labels})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    parquet.write_table(found.replace_schema_metadata(metadata), path)


def test_what_is_wrong_with_parquet_files_is_said_row_by_row(capsys):
    cells = [{"bytes": encoded(n), "path": None} for n in range(22)]
    cells[20]["bytes"] = None
    table(Path("set/data/train-00000.parquet"), cells, [n % 2 for n in range(20)] + [0, 5])
    table(Path("set/data/test-00000.parquet"), cells[:4], [-1] * 4)
    code, out = check("set", capsys)
    assert code == 1 and "2 problems" not in out  # the test images are in train, too
    assert "train-00000.parquet row 20: no bytes of an image" in out
    assert "train-00000.parquet row 21: label 5 is none of 0 to 1" in out
    assert "test  4 images without labels" in out
    content = Path("set/data/train-00000.parquet").read_bytes()
    Path("set/data/train-00001.parquet").write_bytes(content[:-9])
    assert "train-00001.parquet: damaged or not a parquet file" in check("set", capsys)[1]


def test_a_changed_parquet_file_is_copied_again():
    cells = [{"bytes": encoded(n), "path": f"{n}.jpg"} for n in range(20)]
    table(Path("set/train.parquet"), cells, [n % 2 for n in range(20)])
    before = build("set").load(32).encoded
    cells[3]["bytes"] = encoded(77)
    table(Path("set/train.parquet"), cells, [n % 2 for n in range(20)])
    assert build("set").load(32).encoded != before


# --- arrays -------------------------------------------------------------------------------------


def pixels(count, seed=0, side=8):
    return np.random.default_rng(seed).integers(0, 255, (count, side, side, 3), dtype=np.uint8)


def medmnist(path="set.npz", **changes):
    arrays = {
        f"{split}_{kind}": pixels(count, count)
        if kind == "images"
        else np.arange(count)[:, None] % 3
        for split, count in (("train", 12), ("val", 6), ("test", 9))
        for kind in ("images", "labels")
    }
    np.savez(path, **(arrays | changes))
    return path


def test_arrays_of_medmnist_are_trained_and_tested_on_in_canonical_order(capsys):
    source = build(medmnist()).load(8)
    assert (len(source.train), len(source.test)) == (12, 9)
    assert source.class_names == ["0", "1", "2"]
    order = np.random.default_rng(1).permutation(12)
    shuffled = {
        "train_images": pixels(12, 12)[order],
        "train_labels": np.arange(12)[order] % 3,
    }
    again = build(medmnist("other.npz", **shuffled), name="set").load(8)
    assert again.digest == source.digest
    validated = build(medmnist(), test_split="val").load(8)
    assert len(validated.test) == 6
    code, out = check("set.npz", capsys)
    assert code == 0 and "train 12 images in 3 classes" in out


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"train_labels": np.array([0, 1, -1, -2] * 3)}, "train_labels: 6 labels below 0"),
        ({"train_labels": np.arange(11)}, r"train_labels are int64 of shape \(11,\) for 12 images"),
        ({"train_labels": np.zeros((12, 14), int)}, "expected one integer per image"),
        ({"train_labels": np.arange(12) % 2}, "too few images to train on in class 2"),
        ({"train_images": pixels(12).astype(float)}, "train_images are float64"),
        ({"train_images": pixels(12)[:, :4]}, "are 8 x 4 px; expected squares"),
        ({"train_images": pixels(12, side=4)}, r"images of \[4, 8\] px"),
    ],
)
def test_arrays_that_are_not_labelled_images_are_refused_with_what_they_are(changes, what):
    with pytest.raises(UsageError, match=what):
        build(medmnist(**changes)).load(8)


def test_labels_above_the_class_names_are_counted():
    Path("classnames.txt").write_text("ant\nbee\n")
    with pytest.raises(UsageError, match=r"7 labels above 1, for 2 class names; the highest is 2"):
        build(medmnist()).load(8)


def test_a_damaged_npz_and_one_with_pickles_are_refused():
    content = Path(medmnist()).read_bytes()
    Path("set.npz").write_bytes(content[:200])
    with pytest.raises(UsageError, match=r"set\.npz: cannot be read as \.npz"):
        build("set.npz").load(8)
    np.savez("set.npz", train_images=np.array([{}], dtype=object))
    with pytest.raises(UsageError, match="allow_pickle"):
        build("set.npz").load(8)


def test_npy_arrays_are_for_evaluation_only(capsys):
    np.save("new_data.npy", pixels(6))
    np.save("new_labels.npy", np.arange(6) % 2)
    code, out = check("new_data.npy", capsys)
    assert code == 0 and "for evaluation only" in out
    assert main(["train", "data=folder", "data.root=new_data.npy", "model=mb0", "epochs=1"]) == 2
    assert "no training images; for evaluation only" in capsys.readouterr().err


def test_cifar10_c_is_read_by_corruption_and_severity(monkeypatch):
    from lwbench.data.sets import arrays

    monkeypatch.setattr(arrays, "SEVERITY_IMAGES", 4)
    images = pixels(20, side=32)
    np.save("fog.npy", images)
    np.save("labels.npy", np.tile(np.array([3, 1, 2, 0]), 5))
    assert arrays.corruptions(Path(".")) == ["fog"]
    source = build(".", "cifar10_c", corruption="fog", severity=2).load(32)
    assert source.class_names[3] == "cat" and len(source.test) == 4 and not len(source.train)
    assert (source.test.images.numpy() == images[4:8][[3, 1, 2, 0]]).all()
    with pytest.raises(UsageError, match="has fog"):
        build(".", "cifar10_c", corruption="smoke").load(32)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="no folder ../shared with CIFAR-10")
def test_sets_that_are_evaluated_on_are_normalised_as_cifar10_is(tmp_path):
    from lwbench.data.sets.arrays import CIFAR10

    unpack = [sys.executable, str(SHARED / "unpack.py"), str(tmp_path), "cifar10"]
    subprocess.run(unpack, check=True, capture_output=True)
    source = build(tmp_path, "cifar10").load(32)
    assert tuple(source.class_names) == CIFAR10.class_names
    assert (*source.mean, *source.std) == pytest.approx((*CIFAR10.mean, *CIFAR10.std), abs=1e-9)


# --- test images without labels -----------------------------------------------------------------


def tiny(layouts, images):
    root = layouts.tiny_imagenet(images, Path("tiny"))
    (root / "test" / "images").mkdir(parents=True)
    for seed in range(5):
        (root / "test" / "images" / f"test_{seed}.JPEG").write_bytes(encoded(50 + seed))
    return root


def test_unlabelled_test_images_give_no_accuracy_and_are_there_to_predict(layouts, images, capsys):
    root = tiny(layouts, images)
    assert len(build(root, "tiny_imagenet").load(32).test) == 6  # validation images, by default
    source = build(root, "tiny_imagenet", test_split="test").load(32)
    assert source.test.labels.tolist() == [-1] * 5 and source.class_names == list(WNIDS)
    words = ["data=tiny_imagenet", f"data.root={root}", "data.test_split=test"]
    assert main(["train", *words, "model=mb0", "epochs=1"]) == 2
    err = capsys.readouterr().err
    assert "the test images have no labels, so there is no accuracy" in err
    code, out = check(root, capsys, *words[::2], words[2])
    assert code == 0 and "test  5 images without labels" in out


def test_unlabelled_images_beside_class_folders_are_found_by_name():
    for name in ("ant", "bee"):
        files(*(f"set/{split}/{name}/{n}.jpg" for split in ("train", "val") for n in range(3)))
    files("set/test/1.jpg", "set/test/2.jpg")
    assert not build("set").splits().test.unlabelled
    assert build("set", test_split="test").splits().test.unlabelled
    with pytest.raises(UsageError, match="needs folders train and test"):
        build("set/train", test_split="test").splits()


@pytest.mark.parametrize("name", ["set.zip", "set.tar.gz", "set.bin"])
def test_files_of_other_kinds_are_refused_with_what_is_read(name):
    Path(name).write_bytes(b"x")
    with pytest.raises(UsageError, match="unpack it" if "bin" not in name else "not a layout"):
        build(name).splits()
