"""Folders of images whose classes stand in a file: Tiny-ImageNet and ImageNet's validation images.

Nothing has to be moved into class folders first; the order is the one that these would give.
"""

import csv
import os
import tarfile
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import UsageError, shown
from ..listing import Listing, Row, listed
from ..splits import Tree
from ..tree import endings, folders_in, holds_images, is_folder, scan
from . import archives
from .choice import TestSplit, tree_of


class Labels(NamedTuple):
    """The class of each image by the name of its file, without ending; `file`: where they stand."""

    file: Path
    of: Mapping[str, str]


def flat(folder: Path) -> list[Row]:
    """List the images directly in a folder, without labels."""
    rows = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name[0] != "." and entry.name.lower().endswith(endings()):
                    status = entry.stat()
                    row = Row(None, entry.name, entry.path, status.st_size, status.st_mtime_ns)
                    rows.append(row)
    except OSError as error:
        raise UsageError(f"{shown(folder)}: cannot be read ({error.strerror})") from None
    return rows


def labelled(folder: Path, rows: Iterable[Row], labels: Labels) -> Listing:
    """Give images the classes of an annotation file.

    An image that the file does not name is a fault; names without an image are counted, since
    samples of a set come with all of its annotations.
    """
    faults: dict[str, str] = {}
    found: list[Row] = []
    left = dict(labels.of)
    for row in rows:
        label = left.pop(os.path.splitext(row.name)[0], None)
        if label is None:
            faults[row.path] = f"{shown(row.path)}: has no class in {shown(labels.file)}"
        else:
            found.append(row._replace(label=label))
    listing = listed(folder, found, faults=faults)
    if left:
        what = f"lines of {labels.file.name} without an image"
        listing.passed_over[what] = (len(left), min(left))
    return listing


def _rows_of(file: Path, separator: str) -> list[list[str]]:
    try:
        with open(file, encoding="utf-8", errors="surrogateescape", newline="") as text:
            return [row for row in csv.reader(text, delimiter=separator) if row]
    except (OSError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{shown(file)}: cannot be read ({reason})") from None


# --- Tiny-ImageNet ------------------------------------------------------------------------------

TINY_LAYOUT = (
    "train/<wnid>/images/*.JPEG, val/images/*.JPEG with val/val_annotations.txt, test/images/*.JPEG"
)


def is_tiny_imagenet(root: Path) -> bool:
    """Whether a folder is laid out as the archive tiny-imagenet-200.zip."""
    return (root / "val" / "val_annotations.txt").is_file() and is_folder(root / "train")


def find_tiny_imagenet(root: Path, test_split: TestSplit | None = None) -> Tree:
    """List the images of the archive; tested on are the validation images, which have labels."""
    parts = {"train": scan(root / "train")}
    for name in ("val", "test"):
        folder = root / name / "images"
        if is_folder(folder) and holds_images(folder):
            parts[name] = listed(folder, flat(folder))
    if "val" in parts:
        file = root / "val" / "val_annotations.txt"
        # file name, wnid, and a box: four numbers
        of = {os.path.splitext(r[0])[0]: r[1] for r in _rows_of(file, "\t") if len(r) > 1}
        folder = root / "val" / "images"
        parts["val"] = labelled(folder, flat(folder), Labels(file, of))
    elif is_folder(root / "val"):
        parts["val"] = scan(root / "val")  # somebody has moved them into class folders
    # a class's boxes lie beside its images in every copy of the archive: nothing worth a note
    kinds = parts["train"].passed_over
    if kinds.get(".txt", (0, ""))[0] == len(parts["train"].class_names):
        del kinds[".txt"]
    return tree_of(root, parts, test_split or "val", ())


# --- ImageNet -----------------------------------------------------------------------------------

IMAGENET_LAYOUT = (
    "{train,val}/<wnid>/*.JPEG, or in train the archives <wnid>.tar, and in val the images with "
    "LOC_val_solution.csv (Kaggle) or the folder ILSVRC2012_devkit_t12 (about 145 GB)"
)
TRAIN_ARCHIVE, VAL_ARCHIVE = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
SOLUTION = "LOC_val_solution.csv"
DEVKIT, TRUTH, META = (
    "ILSVRC2012_devkit_t12",
    "ILSVRC2012_validation_ground_truth.txt",
    "meta.mat",
)
# where train and val lie below the root; the last two are those of Kaggle's archive
IMAGENET_PLACES = ("", "imagenet", "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC")


def find_imagenet(root: Path, test_split: TestSplit | None = None) -> Tree | None:
    """List ImageNet as image-net.org and Kaggle distribute it; None where nothing of it is there.

    Validation images alone can be evaluated on. Raises UsageError where they lie in one folder and
    no file says their classes.
    """
    places = (root / place for place in IMAGENET_PLACES)
    place = next((p for p in places if is_folder(p / "train") or is_folder(p / "val")), root)
    parts = {}
    if (train := _imagenet_train(root, place)) is not None:
        parts["train"] = train
    if (val := _imagenet_val(root, place)) is not None:
        parts["val"] = val
    if test_split == "test" and is_folder(place / "test"):
        parts["test"] = listed(place / "test", flat(place / "test"))
    if not parts:
        return None
    if "val" not in parts and test_split is None:
        raise UsageError(f"{shown(root)}: no validation images; expected {IMAGENET_LAYOUT}")
    # ImageNet's test images have no public labels: its validation images are tested on
    return tree_of(root, parts, test_split or "val", ())


def _imagenet_train(root: Path, place: Path) -> Listing | None:
    whole = root / TRAIN_ARCHIVE
    folder = place / "train" if is_folder(place / "train") else root
    files = sorted(file for file in folder.glob("n*.tar") if file.stem[1:].isdigit())
    if folder != root and (folders_in(folder) or not files):
        return scan(folder)
    if not files:
        if not whole.is_file():
            return None
        files = [whole]
    faults: dict[str, str] = {}
    rows: list[Row] = []
    for index in archives.indices(files):
        faults |= {f"{index.path}#{i}": text for i, text in enumerate(index.faults)}
        # of the archive of archives, a member is <wnid>/<image>
        labels = [name.partition("/")[0] if "/" in name else "" for name in index.names]
        stem = Path(index.path).stem
        rows += (
            row._replace(name=row.name.rpartition("/")[2])
            for row in index.rows(label or stem for label in labels)
        )
    return listed(files[0].parent, rows, faults=faults)


def _imagenet_val(root: Path, place: Path) -> Listing | None:
    folder, archive = place / "val", root / VAL_ARCHIVE
    if is_folder(folder) and holds_images(folder):
        return labelled(folder, flat(folder), _imagenet_labels(root, place))
    if is_folder(folder) and (folders_in(folder) or not archive.is_file()):
        return scan(folder)
    if not archive.is_file():
        return None
    (index,) = archives.indices([archive])
    rows = list(index.rows(None for _ in index.names))
    listing = labelled(root, rows, _imagenet_labels(root, place))
    listing.faults.update({f"{archive}#{i}": text for i, text in enumerate(index.faults)})
    return listing


def _imagenet_labels(root: Path, place: Path) -> Labels:
    """Read the classes of the validation images from whichever file there is."""
    for folder in dict.fromkeys((root, place, *place.parents)):
        if folder != root and root not in folder.parents:
            continue
        if (folder / SOLUTION).is_file():
            return _of_solution(folder / SOLUTION)
        for devkit in (folder / DEVKIT / "data", folder / "data", folder):
            if (devkit / TRUTH).is_file() and (devkit / META).is_file():
                return _of_devkit(
                    devkit / TRUTH, (devkit / TRUTH).read_bytes(), (devkit / META).read_bytes()
                )
        if (packed := folder / f"{DEVKIT}.tar.gz").is_file():
            return _of_packed_devkit(packed)
    raise UsageError(
        f"{shown(place)}: the validation images lie in one folder, and nothing says their classes\n"
        f"put {SOLUTION} or {DEVKIT}.tar.gz into {shown(root)}, or sort them into class folders"
    )


def _of_solution(file: Path) -> Labels:
    # ILSVRC2012_val_00048981,n03995372 85 1 499 272: the class of the first box is the image's
    rows = (row for row in _rows_of(file, ",") if len(row) > 1 and row[0] != "ImageId")
    return Labels(file, {row[0]: row[1].split()[0] for row in rows if row[1].strip()})


def _of_packed_devkit(file: Path) -> Labels:
    try:
        with tarfile.open(file) as archive:
            truth, meta = (
                archive.extractfile(f"{DEVKIT}/data/{name}").read()  # type: ignore[union-attr]
                for name in (TRUTH, META)
            )
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise UsageError(f"{shown(file)}: cannot be read ({error})") from None
    return _of_devkit(file, truth, meta)


def _of_devkit(file: Path, truth: bytes, meta: bytes) -> Labels:
    """Read the ground truth: a line per image with the devkit's id, which is not in wnid order."""
    from scipy.io import loadmat

    try:
        file_like: Any = BytesIO(meta)  # scipy's stubs know paths only
        synsets = loadmat(file_like, squeeze_me=True)["synsets"]
        wnid_of = {int(number): str(wnid) for number, wnid, *_ in synsets.tolist()}
        wnids = [wnid_of[int(line)] for line in truth.split()]
    except Exception as error:  # loadmat raises nearly anything on damaged input
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise UsageError(f"{shown(file)}: {META} or {TRUTH} is damaged ({reason})") from None
    return Labels(file, {f"ILSVRC2012_val_{n:08}": wnid for n, wnid in enumerate(wnids, start=1)})
