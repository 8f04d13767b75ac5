"""The command that writes the report: reads tables, counts and runs, hands them to the page."""

from collections.abc import Mapping
from pathlib import Path

from ..paths import conf_folder
from ..report import build
from ..runs.records import chosen, records
from ..tables import cells, published
from ..tables.counts import Counter, cached_counts
from .table import SELECT, Composer, is_true, one_of

KEYS = ("out", "out_dir", "kept", "select")


def write_report(keys: Mapping[str, str], compose: Composer, count: Counter) -> Path:
    """What `lwbench report` does; returns the page's path. `keys` are KEYS as typed.

    Raises UsageError for a wrong word and LwbenchError where the page cannot be written.
    """
    select = one_of(keys, "select", SELECT)
    out = Path(keys.get("out", "outputs"))
    found = records(out, kept=is_true(keys, "kept", True))
    loaded = published.load("all")
    wanted = [request for table in loaded for request in cells.requirements(table)]
    trains = {f.train: None for table in loaded for f in table.figures if f.train is not None}
    sources = build.Sources(
        tables=loaded,
        counts=cached_counts(wanted, conf_folder(), count),
        composed=compose(trains),
        records=chosen(found),
        select=select,
    )
    return build.write(sources, Path(keys.get("out_dir", out / "report")))
