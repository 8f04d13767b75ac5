"""Sets that are stored as arrays of pixels: .npz as MedMNIST has them, .npy for evaluation.

MedMNIST: Yang et al., MedMNIST v2, Scientific Data, 2023, https://medmnist.com. CIFAR-10.1: Recht
et al., Do CIFAR-10 classifiers generalize to CIFAR-10?, 2018. CIFAR-10-C: Hendrycks and Dietterich,
Benchmarking neural network robustness to common corruptions and perturbations, ICLR 2019.
"""

import hashlib
import os
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from ...errors import UsageError, plural, shown
from ...registry import DATASETS
from ..layouts.choice import TestSplit, chosen_split
from ..layouts.folders import require_root
from ..layouts.shards import class_names
from ..listing import UNLABELLED, some
from . import Dataset

if TYPE_CHECKING:
    from ..source import Source

EXPECTED = "{train,val,test}_images and {train,val,test}_labels"
HELD_OUT = 8  # one in eight images of a class, as of class folders
Arrays = dict[str, np.ndarray]  # "images" (N, S, S, 3) uint8 and "labels" (N,) int64


@dataclass(frozen=True)
class ArrayFile(Dataset):
    """A file of arrays. `.npz`: with the arrays of several splits; `.npy`: images to evaluate on.

    Labels are integers from 0, whose names are the lines of classnames.txt beside the file, else
    the integers. Images are uint8, grey or colour, square, all of one size. `rows`: the first
    of the images to take, and the first behind them; `known`: what the file does not state.
    """

    name: str
    file: Path
    test_split: TestSplit | None = None
    split_seed: int = 0
    rows: tuple[int, int] | None = None
    known: "Known | None" = None

    def splits(self) -> None:
        """Return None: there are no image files."""

    def fingerprint(self) -> str:
        """Hash names, sizes and times of the files, see `Dataset.fingerprint`."""
        files = [self.file] if self.file.suffix.lower() == ".npz" else [self.file, self._labels()]
        try:
            facts = [(f.name, os.stat(f).st_size, os.stat(f).st_mtime_ns) for f in files]
        except OSError as error:
            where = shown(error.filename)
            raise UsageError(f"{where}: cannot be read ({error.strerror})") from None
        return hashlib.sha256(f"{facts} {self.rows}".encode()).hexdigest()

    def load(self, image_size: int) -> "Source":
        """Read the arrays, see `Dataset.load`; batches are resized to `image_size` on the device.

        Raises UsageError where arrays are missing, damaged, of the wrong shape or type, or hold
        labels out of range, which are counted.
        """
        from ..content import hashed_arrays, twin_notes
        from ..source import canonical, resident_source

        parts, notes = self._parts()
        names = self._names(parts)
        self._require_classes(parts, names)
        if "test" not in parts:
            parts = _held_out(parts["train"], names, self.split_seed)
        arrays: Arrays = {}
        for split in ("train", "test"):
            # of a set without training images, none of the shape of its test images
            part = parts.get(split) or {key: a[:0] for key, a in parts["test"].items()}
            images, labels = canonical(part["images"], part["labels"])
            arrays |= {f"{split}_images": images, f"{split}_labels": labels}
        train, test = (
            hashed_arrays(part, arrays[f"{part}_images"], arrays[f"{part}_labels"])
            for part in ("train", "test")
        )
        source = resident_source(
            self.name,
            names,
            arrays,
            fingerprint=self.fingerprint(),
            notes=(*notes, *twin_notes((train, test))),
        )
        return replace(source, mean=self.known.mean, std=self.known.std) if self.known else source

    def _parts(self) -> tuple[dict[str, Arrays], tuple[str, ...]]:
        """Read `train` (absent where there is none) and `test` (absent where it is held out)."""
        if self.file.suffix.lower() == ".npy":
            images, labels = _read_npy(self.file), _read_npy(self._labels())
            chosen = slice(*self.rows) if self.rows else slice(None)
            part = _checked(self.file, "", images[chosen], labels[chosen])
            return {"test": part}, ()
        stored = _read_npz(self.file)
        found = {
            split: _checked(
                self.file, f"{split}_", stored[f"{split}_images"], stored.get(f"{split}_labels")
            )
            for split in ("train", "val", "test")
            if f"{split}_images" in stored
        }
        if not found:
            raise UsageError(
                f"{shown(self.file)}: holds {', '.join(map(shown, stored)) or 'nothing'}; expected "
                f"the arrays {EXPECTED}"
            )
        sides = {part["images"].shape[1] for part in found.values()}
        if len(sides) > 1:
            raise UsageError(f"{shown(self.file)}: images of {sorted(sides)} px; expected one size")
        others = [name for name in found if name != "train"]
        labelled = [name for name in others if found[name]["labels"].min(initial=0) >= 0]
        test = chosen_split(self.file, others, labelled, self.test_split)
        unused = [name for name in others if name != test]
        notes = [f"tested on after every epoch: {test}; not used: {name}" for name in unused]
        parts = {"train": found["train"]} if "train" in found else {}
        return parts | ({"test": found[test]} if test else {}), tuple(notes)

    def _labels(self) -> Path:
        stem = self.file.stem
        for word in ("images", "data"):
            if word in stem:
                named = self.file.with_name(f"{stem.replace(word, 'labels')}{self.file.suffix}")
                if named.is_file():
                    return named
        labels = self.file.with_name("labels.npy")
        if not labels.is_file():
            raise UsageError(f"{shown(self.file)}: no labels.npy with its labels beside it")
        return labels

    def _names(self, parts: dict[str, Arrays]) -> list[str]:
        stated = self.known.class_names if self.known else class_names(self.file.parent)
        every = np.concatenate([part["labels"] for part in parts.values()])
        highest = int(every.max(initial=-1))
        if stated is None:
            return [str(label) for label in range(highest + 1)]
        wrong = np.flatnonzero(every >= len(stated))
        if len(wrong):
            raise UsageError(
                f"{shown(self.file)}: {plural(len(wrong), 'label')} above {len(stated) - 1}, for "
                f"{len(stated)} class names; the highest is {highest}"
            )
        return list(stated)

    def _require_classes(self, parts: dict[str, Arrays], names: list[str]) -> None:
        """Raise UsageError where a class cannot be learnt, as for class folders."""
        if "train" not in parts:
            return
        counts = np.bincount(parts["train"]["labels"].clip(0), minlength=len(names))
        empty = [name for name, count in zip(names, counts, strict=True) if not count]
        if len(names) - len(empty) < 2 or empty:
            what = f" in class {some(empty)}" if empty else ": all images are of one class"
            raise UsageError(f"{shown(self.file)}: too few images to train on{what}")


@dataclass(frozen=True)
class Known:
    """What the training images of another set state for a set that is evaluated on."""

    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise UsageError(f"{shown(file)}: cannot be read as .npz ({reason})") from None


def _read_npy(file: Path) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise UsageError(f"{shown(file)}: cannot be read as .npy ({reason})") from None


def _checked(file: Path, prefix: str, images: np.ndarray, labels: np.ndarray | None) -> Arrays:
    """Return images as (N, S, S, 3) and labels as (N,). Raises UsageError for anything else."""
    where = f"{shown(file)}: {prefix}images".replace(": images", ": the images")
    depth = images.shape[3] if images.ndim == 4 else 1
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or depth not in (1, 3, 4):
        raise UsageError(
            f"{where} are {images.dtype} of shape {images.shape}; expected uint8, (N, H, W) or "
            "(N, H, W, 3)"
        )
    if images.shape[1] != images.shape[2]:
        raise UsageError(f"{where} are {images.shape[2]} x {images.shape[1]} px; expected squares")
    if images.ndim == 3:
        images = images[..., None]
    # grey in three channels; alpha is dropped, as from files
    rgb = np.repeat(images, 3, axis=3) if depth == 1 else np.asarray(images[..., :3])
    if labels is None:
        return {"images": rgb, "labels": np.full(len(images), UNLABELLED, dtype=np.int64)}
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images):
        raise UsageError(
            f"{shown(file)}: {prefix}labels are {labels.dtype} of shape {labels.shape} for "
            f"{len(images):,} images; expected one integer per image"
        )
    wrong = np.flatnonzero(labels < 0)
    if len(wrong):
        raise UsageError(
            f"{shown(file)}: {prefix}labels: {plural(len(wrong), 'label')} below 0; the first is "
            f"{labels[wrong[0]]} in row {wrong[0]}"
        )
    return {"images": rgb, "labels": labels.astype(np.int64)}


def _held_out(part: Arrays, names: list[str], seed: int) -> dict[str, Arrays]:
    """Split training images as class folders are split, by class and canonical order."""
    from ..draws import held_out
    from ..source import canonical

    images, labels = canonical(part["images"], part["labels"])
    out = np.zeros(len(labels), dtype=bool)
    for label, name in enumerate(names):
        members = np.flatnonzero(labels == label)
        if len(members) >= 2:
            out[members] = held_out(len(members), HELD_OUT, seed, name).numpy()
    return {
        split: {"images": images[chosen], "labels": labels[chosen]}
        for split, chosen in (("train", ~out), ("test", out))
    }


# --- CIFAR-10.1 and CIFAR-10-C ------------------------------------------------------------------

# facts of CIFAR-10: the class names of its archive, and `channel_statistics` of its training images
CIFAR10 = Known(
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    (0.491399678615, 0.482158408395, 0.446530914445),
    (0.247032232463, 0.243485128000, 0.261587841728),
)
SEVERITY_IMAGES = 10_000  # a file of CIFAR-10-C holds the test images five times, mildest first


@DATASETS.register
def cifar10_c(
    *,
    root: str | None = None,
    corruption: str = "gaussian_noise",
    severity: Annotated[int, Field(ge=1, le=5)] = 5,
) -> Dataset:
    """CIFAR-10-C: one corruption at one severity, for evaluation. `root`: of the .npy files."""
    place = _root(root, "cifar10_c", "<corruption>.npy and labels.npy")
    file = place / f"{corruption}.npy"
    if not file.is_file():
        known = ", ".join(corruptions(place)) or "none"
        raise UsageError(f"data.corruption={shown(corruption)}: {shown(place)} has {known}")
    rows = (severity - 1) * SEVERITY_IMAGES, severity * SEVERITY_IMAGES
    return ArrayFile("cifar10_c", file, rows=rows, known=CIFAR10)


@DATASETS.register
def cifar10_1(*, root: str | None = None) -> Dataset:
    """CIFAR-10.1, for evaluation. `root`: of cifar10.1_v6_data.npy and cifar10.1_v6_labels.npy."""
    place = _root(root, "cifar10_1", "cifar10.1_v6_data.npy and cifar10.1_v6_labels.npy")
    return ArrayFile("cifar10_1", place / "cifar10.1_v6_data.npy", known=CIFAR10)


def corruptions(root: Path) -> list[str]:
    """Return the corruptions that a folder of CIFAR-10-C has, by name."""
    return sorted(file.stem for file in root.glob("*.npy") if file.stem != "labels")


def _root(root: str | None, name: str, layout: str) -> Path:
    if root is None:
        raise UsageError(f"data={name} needs data.root=<folder> with {layout}")
    return require_root(root, f"data={name}", layout, "unpack its archive")
