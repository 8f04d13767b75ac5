"""Write the same images in every layout that keeps their bytes, and compare digests and batches.

    python scripts/layouts.py <folder of class folders> <empty folder> [images]

Prints, for each layout, the digest of the encoded images and a hash of the first epoch's batches,
and exits with 1 where one differs. Needs pyarrow. `tests/test_layout_formats.py` imports `write`.
"""

import csv
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

from lwbench.data.augment import Augment
from lwbench.data.loader import Data
from lwbench.registry import DATASETS

Images = dict[str, dict[str, list[Path]]]  # by split and class


def sample(root: Path, count: int) -> Images:
    """Take up to `count` images of class folders, as equally many of each class; 1/5 to test on.

    Classes are named like ImageNet's, by a letter and eight digits, which its layout needs.
    """
    classes = sorted(folder for folder in root.iterdir() if folder.is_dir())
    each = -(-count // len(classes))
    found: Images = {"train": {}, "val": {}}
    for number, folder in enumerate(classes):
        label = folder.name if re.fullmatch(r"n\d{8}", folder.name) else f"n{number:08}"
        files = sorted(file for file in folder.iterdir() if file.is_file())[:each]
        held_out = files[::5]
        found["val"][label] = held_out
        found["train"][label] = [file for file in files if file not in held_out]
    return found


def write(images: Images, out: Path) -> dict[str, Path]:
    """Write every layout into a folder of its own below `out`; return the data.root of each."""
    return {name: layout(images, out / name) for name, layout in LAYOUTS.items()}


def folders(images: Images, out: Path) -> Path:
    """{train,val}/<class>/<image>, as torchvision's ImageFolder reads them."""
    for split, label, file in _each(images):
        _copy(file, out / split / label / file.name)
    return out


def nested(images: Images, out: Path) -> Path:
    """The same with a folder more in each class."""
    for split, label, file in _each(images):
        _copy(file, out / split / label / "images" / file.name)
    return out


def comma_list(images: Images, out: Path) -> Path:
    """All files in one folder per split, and list.csv with path, label and split."""
    out.mkdir(parents=True)
    with open(out / "list.csv", "w", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(["path", "label", "split"])
        # reversed: the order of lines decides nothing
        for split, label, file in reversed(_each(images)):
            _copy(file, out / "images" / file.name)
            writer.writerow([f"images/{file.name}", label, split])
    return out / "list.csv"


def tiny_imagenet(images: Images, out: Path) -> Path:
    """train/<class>/images/*, val/images/* with val_annotations.txt, as Tiny-ImageNet-200."""
    lines = []
    for split, label, file in _each(images):
        if split == "train":
            _copy(file, out / "train" / label / "images" / file.name)
        else:
            _copy(file, out / "val" / "images" / file.name)
            lines.append(f"{file.name}\t{label}\t0\t0\t63\t63\n")
    (out / "val" / "val_annotations.txt").write_text("".join(lines))
    return out


def class_archives(images: Images, out: Path) -> Path:
    """train/<class>.tar, and val in one folder with LOC_val_solution.csv, as ImageNet."""
    lines = ["ImageId,PredictionString\n"]
    for split, classes in images.items():
        for label, files in classes.items():
            if split == "train":
                (out / "train").mkdir(parents=True, exist_ok=True)
                with tarfile.open(out / "train" / f"{label}.tar", "w") as archive:
                    for file in reversed(files):
                        archive.add(file, file.name)
                continue
            for file in files:
                _copy(file, out / "val" / file.name)
                lines.append(f"{file.stem},{label} 1 2 3 4\n")
    (out / "LOC_val_solution.csv").write_text("".join(lines))
    return out


def webdataset(images: Images, out: Path) -> Path:
    """Three .tar shards per split, each image followed by its class in a .cls file."""
    (out).mkdir(parents=True)
    for split in images:
        rows = [(label, file) for s, label, file in _each(images) if s == split]
        for shard in range(3):
            with tarfile.open(out / f"{split}-{shard:05}.tar", "w") as archive:
                for label, file in rows[shard::3]:
                    archive.add(file, file.name)
                    content = label.encode()
                    member = tarfile.TarInfo(f"{file.stem}.cls")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return out


def parquet(images: Images, out: Path) -> Path:
    """data/<split>-<n>-of-<m>.parquet with class names in the schema, as Hugging Face's hub."""
    import pyarrow
    from pyarrow import parquet

    (out / "data").mkdir(parents=True)
    names = sorted(images["train"])
    features = {
        "image": {"_type": "Image"},
        "label": {"names": names, "_type": "ClassLabel"},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for split, word in (("train", "train"), ("val", "validation")):
        rows = [(names.index(label), file) for s, label, file in _each(images) if s == split]
        for shard in range(2):
            part = rows[shard::2]
            cells = [{"bytes": file.read_bytes(), "path": file.name} for _, file in part]
            table = pyarrow.table({"image": cells, "label": [label for label, _ in part]})
            table = table.replace_schema_metadata(metadata)
            file = out / "data" / f"{word}-{shard:05}-of-00002.parquet"
            parquet.write_table(table, file, row_group_size=16)
    return out


LAYOUTS: dict[str, Callable[[Images, Path], Path]] = {
    "folders": folders,
    "nested": nested,
    "list": comma_list,
    "tiny_imagenet": tiny_imagenet,
    "class_archives": class_archives,
    "webdataset": webdataset,
    "parquet": parquet,
}
BUILDERS = {"tiny_imagenet": "tiny_imagenet", "class_archives": "imagenet"}  # others: folder


def _each(images: Images) -> list[tuple[str, str, Path]]:
    return [
        (split, label, file)
        for split, classes in images.items()
        for label, files in classes.items()
        for file in files
    ]


def _copy(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, target)


def first_epoch(builder: str, root: Path) -> tuple[str, str]:
    """Return the digest of the encoded images, and one of the batches of the first epoch."""
    spec = {"builder": builder, "root": str(root), "crop": 0.875}
    source = DATASETS.build(spec).load(32)
    data = Data(
        source, image_size=32, batch_size=16, seed=0, device="cpu", augment=Augment(flip=True)
    )
    digest = hashlib.sha256()
    for x, labels in (*data.train_batches(0), *data.eval_batches()):
        digest.update(x.contiguous().numpy().tobytes() + labels.numpy().tobytes())
    return source.encoded or "", digest.hexdigest()


def main(root: Path, out: Path, count: int) -> int:
    """Compare all layouts of a sample of `root`."""
    found = {}
    for name, place in write(sample(root, count), out).items():
        found[name] = first_epoch(BUILDERS.get(name, "folder"), place)
        digest, batches = found[name]
        print(f"{name:<16}{digest[:16]}  {batches[:16]}  {place}")
    same = len(set(found.values())) == 1
    print("equal in all layouts" if same else "layouts differ")
    return 0 if same else 1


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    number = int(sys.argv[3]) if len(sys.argv) > 3 else 200
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), number))
