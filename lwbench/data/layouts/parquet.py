"""Image sets in parquet files, as Hugging Face's hub stores them.

A column of images (struct of `bytes` and `path`, or the bytes alone), and one of labels: class
names, or integers whose names stand in the schema's metadata. Rows of a parquet file cannot be read
one by one, so the encoded images are copied once into one file per shard in the user's cache.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import LwbenchError, UsageError, shown
from ...paths import cache_home
from ...runs.cache import exclusive
from ...runs.files import read_json, replacing, write_atomically
from ..listing import Listing, Member, Row, listed

FORMAT = 1  # of the copies; another number makes them again
LABEL_COLUMNS = ("label", "labels", "fine_label", "class")
ROWS = 64  # of images held in memory while they are copied


def listing(root: Path, files: list[Path]) -> Listing:
    """List the images of parquet files, ordered by class, then by the path stored with each image.

    Images without a stored path are ordered as in the files. Raises UsageError where pyarrow is
    missing or the columns are not those of labelled images.
    """
    faults: dict[str, str] = {}
    rows: list[Row] = []
    names: list[str] | None = None
    first: Path | None = None
    for number, file in enumerate(files):
        found = _index(file)
        faults |= {f"{file}#{i}": text for i, text in enumerate(found["faults"])}
        if not found["images"]:
            continue  # damaged, or empty
        if first is not None and found["class_names"] != names:
            raise UsageError(f"{shown(first)} and {shown(file)} differ in their class names")
        names, first = found["class_names"], file
        time = os.stat(file).st_mtime_ns
        for place, (label, name, offset, size) in enumerate(found["images"]):
            text = f"{file}/{name or place}"
            order = name or f"{number:06}-{place:09}"
            member = Member(text, found["copy"], offset, size)
            rows.append(Row(label, order, member, size, time))
    # a split of which no image has a label is one to predict
    if any(row.label for row in rows):
        for row in rows:
            if row.label is None:
                faults[row.path] = f"{shown(row.path)}: no label"
        rows = [row for row in rows if row.label is not None]
    return listed(root, rows, names, faults)


def _index(file: Path) -> dict[str, Any]:
    """Return where the images of one file are in its copy, which is made where it is missing."""
    try:
        status = os.stat(file)
    except OSError as error:
        raise UsageError(f"{shown(file)}: cannot be read ({error.strerror})") from None
    state = f"{os.path.realpath(file)}\0{status.st_size}\0{status.st_mtime_ns}\0{FORMAT}"
    key = hashlib.sha256(os.fsencode(state)).hexdigest()[:24]
    copy, index = (cache_home() / f"parquet-{key}{ending}" for ending in (".bin", ".json"))
    with exclusive(copy) as problem:
        found = read_json(index)
        if found is None or not copy.is_file() or copy.stat().st_size != found["bytes"]:
            try:
                if problem is not None:
                    raise problem
                found = _copied(file, copy)
                # last: its presence says that the copy is complete
                write_atomically(index, json.dumps(found))
            except OSError as error:
                raise LwbenchError(
                    f"{shown(file)}: its images cannot be copied into {shown(copy.parent)} "
                    f"({error.strerror or error})\nfree some space, or set XDG_CACHE_HOME"
                ) from None
    return found | {"copy": str(copy)}


def _copied(file: Path, copy: Path) -> dict[str, Any]:
    """Copy the encoded images of a parquet file; a damaged file gives a fault."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError(
            f"{shown(file)}: parquet files need pyarrow: pip install 'lwbench[parquet]'"
        ) from None
    found: dict[str, Any] = {"class_names": None, "images": [], "faults": [], "bytes": 0}
    with replacing(copy) as target:
        try:
            with parquet.ParquetFile(file) as source:
                image, label, names = _columns(file, source.schema_arrow)
                found["class_names"] = names
                for row, (cell, value) in enumerate(_cells(source, image, label)):
                    content, name = _image(cell)
                    text, fault = _label(value, names)
                    if fault or not content:
                        fault = fault or "no bytes of an image"
                        found["faults"].append(f"{shown(file)} row {row}: {fault}")
                    else:
                        found["images"].append([text, name, found["bytes"], len(content)])
                        found["bytes"] += target.write(content)
        except (pyarrow.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # no space, or no permission: nothing is wrong with the file
            reason = (str(error).splitlines() or [""])[0][:120]
            found["faults"].append(f"{shown(file)}: damaged or not a parquet file ({reason})")
    return found


def _cells(source: Any, image: str, label: str | None) -> Iterator[tuple[Any, Any]]:
    columns = [image, label] if label else [image]
    for batch in source.iter_batches(ROWS, columns=columns):
        images = batch.column(image).to_pylist()
        labels = batch.column(label).to_pylist() if label else [None] * len(images)
        yield from zip(images, labels, strict=True)


def _columns(file: Path, schema: Any) -> tuple[str, str | None, list[str] | None]:
    """Return the columns of images and labels, and the class names that the metadata states."""
    import pyarrow.types as kinds

    features = _features(schema)
    names = list(schema.names)
    images = [name for name in names if features.get(name, {}).get("_type") == "Image"] or [
        name
        for name in names
        if kinds.is_binary(schema.field(name).type)
        or (
            kinds.is_struct(schema.field(name).type)
            and schema.field(name).type.get_field_index("bytes") >= 0
        )
    ]
    if len(images) != 1:
        raise UsageError(
            f"{shown(file)}: {len(images)} columns of images among {', '.join(map(shown, names))}; "
            "expected one, of bytes or of a struct with bytes"
        )
    classes = [name for name in names if features.get(name, {}).get("_type") == "ClassLabel"]
    labels = [name for name in LABEL_COLUMNS if name in (classes or names)] or classes
    if not labels:
        return images[0], None, None
    stated = features.get(labels[0], {}).get("names")
    return images[0], labels[0], [str(name) for name in stated] if stated else None


def _features(schema: Any) -> dict[str, Any]:
    """What Hugging Face's `datasets` says about the columns; nothing where it did not write it."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    valid = isinstance(features, dict) and all(isinstance(f, dict) for f in features.values())
    return features if valid else {}


def _image(cell: Any) -> tuple[bytes, str]:
    if isinstance(cell, dict):
        return cell.get("bytes") or b"", cell.get("path") or ""
    return cell or b"", ""


def _label(value: Any, names: list[str] | None) -> tuple[str | None, str]:
    """Return the class name, and what is wrong with the label; -1 stands for no label."""
    if value is None or value == -1:
        return None, ""
    if names is None:
        return str(value), ""
    if not isinstance(value, int) or not 0 <= value < len(names):
        return None, f"label {shown(value)} is none of 0 to {len(names) - 1}"
    return names[value], ""
