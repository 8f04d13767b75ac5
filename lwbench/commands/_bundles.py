"""What a bundle of a table holds, and the table as it follows from records alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import train_configs
from ..errors import UsageError
from ..runs.records import ARCHIVED_FILES, Record, records
from ..tables import cells, published
from ..tables.claims import claim, designs
from ..tables.claims.designs import FOLDER
from ..tables.claims.judge import Judged
from ._claims import judge
from ._tables import study

FIELDS = (
    "row", "column", "published", "measured", "verdict", "n", "sd", "seeds", "overrides",
    "baseline", "difference", "test", "p", "p_holm", "p_fixed_n", "comparison", "precision",
)  # fmt: skip
WEIGHTS = ("checkpoints/last.pt", "checkpoints/best.pt")


def bundled_files(
    keys: Mapping[str, str], overrides: Sequence[str]
) -> tuple[dict[str, bytes], list[dict[str, Any]], int]:
    """The files of a bundle by name, the cells of its table, and the number of its runs."""
    out, is_archived = Path(keys.get("out", "outputs")), keys["archived"] == "true"
    shown, runs = measured(
        keys["table"], overrides, out, archived=is_archived, claims=keys.get("claims")
    )
    if not runs:
        raise UsageError(
            f"table={keys['table']}: no finished run fills a cell of it; lwbench reproduce makes "
            "them"
        )
    files = _written(keys)
    for record in runs:
        wanted = (*ARCHIVED_FILES, *(WEIGHTS if keys["weights"] == "true" else ()))
        place = "/".join(("runs", *record.run.path.parts[-3:]))
        for name in wanted:
            if (record.run.path / name).is_file():
                files[f"{place}/{name}"] = (record.run.path / name).read_bytes()
    for path in designs.files(out, archived=is_archived):
        files.setdefault(f"runs/{FOLDER}/{path.parent.name}/design.json", path.read_bytes())
    return files, shown, len(runs)


def measured(
    table: str,
    overrides: Sequence[str],
    out: Path,
    *,
    archived: bool,
    claims: str | None = None,
) -> tuple[list[dict[str, Any]], list[Record]]:
    """The measured cells of a table, as far as FIELDS go, and their runs.

    `claims`: a file of claims about the table, whose rows are added to it.
    """
    tables = published.load(table)
    if claims is not None:
        extended = [one for found in claim.load(claims) for one in found.tables.values()]
        tables = [next((e for e in extended if e.name == one.name), one) for one in tables]
    found = records(out, archived=archived)
    chosen = study(tables, found, overrides, "final", train_configs)
    chosen = replace(chosen, designs=designs.recorded(out))
    filled = [cell for one in tables for cell in cells.filled(one, {}, chosen).cells if cell.runs]
    runs = {record.run.path: record for cell in filled for record in cell.runs}
    shown = [{key: cell.as_json()[key] for key in FIELDS} for cell in filled]
    return shown, list(runs.values())


def verdicts(claims: str, overrides: Sequence[str], out: Path) -> list[Judged]:
    """What the runs under `out` say of the claims of a file that runs decide."""
    (document,) = claim.load(claims)
    part = document.part({one.id for one in document.claims if one.compare})
    found, grown = records(out, archived=False), designs.recorded(out)
    return judge([part], found, train_configs, lambda _: {}, overrides, "final", grown)


def _written(keys: Mapping[str, str]) -> dict[str, bytes]:
    """The user's files of the table and of claims, by the names that they have in the bundle."""
    files = {}
    if Path(keys["table"]).suffix in claim.SUFFIXES:
        files[Path(keys["table"]).name] = Path(keys["table"]).read_bytes()
    if "claims" not in keys:
        return files
    path = Path(keys["claims"])
    if path.suffix not in claim.SUFFIXES:
        raise UsageError(f"claims={path}: expected a YAML file")
    if path.name in files:
        raise UsageError(f"claims={path}: has the name of the table's file; rename one of them")
    for document in claim.load(str(path)):
        for name in document.tables:
            if Path(name).suffix in claim.SUFFIXES and name not in files:
                raise UsageError(
                    f"claims={path}: refers to the table {name}; the bundle needs this table as "
                    "table=, from the folder of the claims"
                )
    return files | {path.name: path.read_bytes()}
