"""What a bundle of a table holds, and the table as it follows from records alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..config import train_configs
from ..errors import UsageError
from ..runs.records import ARCHIVED_FILES, Record, records
from ..tables import cells, published
from ..tables.claims import designs
from ..tables.claims.designs import FOLDER
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
    out = Path(keys.get("out", "outputs"))
    shown, runs = measured(keys["table"], overrides, out, archived=keys["archived"] == "true")
    if not runs:
        raise UsageError(
            f"table={keys['table']}: no finished run fills a cell of it; lwbench reproduce makes "
            "them"
        )
    files = {}
    if Path(keys["table"]).suffix in (".yaml", ".yml"):
        files["table.yaml"] = Path(keys["table"]).read_bytes()
    if "claims" in keys:
        files["claims.yaml"] = _claims(keys["claims"])
    for record in runs:
        wanted = (*ARCHIVED_FILES, *(WEIGHTS if keys["weights"] == "true" else ()))
        place = "/".join(("runs", *record.run.path.parts[-3:]))
        for name in wanted:
            if (record.run.path / name).is_file():
                files[f"{place}/{name}"] = (record.run.path / name).read_bytes()
    for path in sorted((out / FOLDER).glob("*/design.json")):
        files[f"runs/{FOLDER}/{path.parent.name}/design.json"] = path.read_bytes()
    return files, shown, len(runs)


def measured(
    table: str, overrides: Sequence[str], out: Path, *, archived: bool
) -> tuple[list[dict[str, Any]], list[Record]]:
    """The measured cells of a table, as far as FIELDS go, and their runs."""
    tables = published.load(table)
    found = records(out, archived=archived)
    chosen = study(tables, found, overrides, "final", train_configs)
    chosen = replace(chosen, designs=designs.recorded(out))
    filled = [cell for one in tables for cell in cells.filled(one, {}, chosen).cells if cell.runs]
    runs = {record.run.path: record for cell in filled for record in cell.runs}
    shown = [{key: cell.as_json()[key] for key in FIELDS} for cell in filled]
    return shown, list(runs.values())


def _claims(path: str) -> bytes:
    from ..tables.claims import claim

    if Path(path).suffix not in (".yaml", ".yml"):
        raise UsageError(f"claims={path}: expected a YAML file")
    claim.load(path)  # raises UsageError where it is not valid
    return Path(path).read_bytes()
