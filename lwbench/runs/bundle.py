"""Bundles of runs: a ZIP archive of plain records with the digest of every file in it.

Reading one runs no code and writes nothing outside a folder of one's own: names are checked, sizes
bounded, and every file is compared with the manifest. The digests show that a file was changed
after the bundle was made; they say nothing of who made it.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import DamagedError, UsageError
from .files import replacing

MANIFEST = "manifest.json"
LARGEST, MOST = 2**31, 100_000  # bytes of one file, files
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same content gives the same archive


class Manifest(BaseModel):
    """What a bundle states of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    made: str
    lwbench: str
    revision: str | None
    table: str  # the name of the table's file in the bundle, or of a published table
    claims: str | None = None
    overrides: tuple[str, ...] = ()
    cells: str  # the file with the table as it was when the bundle was made
    digests: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{64}$")]]  # sha256 by file

    @model_validator(mode="after")
    def _names_its_own_files(self) -> "Manifest":
        named = [self.cells, self.claims or self.cells]
        named += [self.table] if self.table.endswith((".yaml", ".yml")) else []
        if missing := [name for name in named if name not in self.digests]:
            raise ValueError(f"{missing[0]} is not in the bundle")
        return self


def write(path: Path, files: Mapping[str, bytes], facts: Mapping[str, object]) -> Manifest:
    """Write a bundle of files by their names in it. Raises OSError, with `path` as it was."""
    digests = {name: _sha256(content) for name, content in sorted(files.items())}
    manifest = Manifest.model_validate({**facts, "digests": digests})
    text = json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n"
    with (
        replacing(path) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, content in [(MANIFEST, text.encode()), *sorted(files.items())]:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return manifest


def unpacked(path: Path, folder: Path) -> Manifest:
    """Check a bundle and unpack it into an empty folder.

    Raises UsageError where it is no bundle, DamagedError for each file that was changed, removed or
    added since it was made.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _manifest(archive, path)
            problems = _unpack(archive, manifest, folder)
    except FileNotFoundError:
        raise UsageError(f"no file {path}") from None
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError) as error:
        raise UsageError(f"{path}: not a readable bundle ({error})") from None
    if problems:
        raise DamagedError(f"{path} was changed since it was made:\n" + "\n".join(problems))
    return manifest


def _manifest(archive: zipfile.ZipFile, path: Path) -> Manifest:
    try:
        return Manifest.model_validate_json(_content(archive, MANIFEST))
    except (KeyError, ValidationError):
        raise UsageError(
            f"{path}: no bundle of lwbench: {MANIFEST} is missing or damaged"
        ) from None


def _unpack(archive: zipfile.ZipFile, manifest: Manifest, folder: Path) -> list[str]:
    names = [info.filename for info in archive.infolist()]
    if len(names) > MOST:
        raise UsageError(f"{archive.filename}: more than {MOST:,} files")
    expected = {MANIFEST, *manifest.digests}
    problems = [f"added: {name!r}" for name in sorted(set(names) - expected)]
    problems += [f"twice: {name!r}" for name in sorted({n for n in names if names.count(n) > 1})]
    for name, digest in manifest.digests.items():
        if not _is_plain(name):
            problems.append(f"leads out of the bundle: {name!r}")
        elif name not in names:
            problems.append(f"removed: {name!r}")
        else:
            content = _content(archive, name)
            if _sha256(content) != digest:
                problems.append(f"changed: {name!r}")
                continue
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    return problems


def _content(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > LARGEST:
        raise UsageError(f"{archive.filename}: {name!r} is larger than {LARGEST >> 30} GiB")
    with archive.open(info) as file:
        content = file.read(LARGEST + 1)  # the size that is stated may be wrong
    if len(content) > LARGEST:
        raise UsageError(f"{archive.filename}: {name!r} is larger than it states")
    return content


def _is_plain(name: str) -> bool:
    path = PurePosixPath(name)
    is_inside = not path.is_absolute() and ".." not in path.parts and path.parts
    return bool(is_inside) and "\\" not in name and ":" not in name and "\0" not in name


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
