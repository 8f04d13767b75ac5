"""The command that makes the runs which tables still need, and then shows the tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import UsageError
from ..runs.identity import identity, is_identifying
from ..runs.records import Record, records
from ..sweeps import plan
from ..sweeps.local import Job, number_of_jobs, run_all, show_failures
from ..sweeps.plan import ComposedRun
from ..tables import published
from ..tables.counts import Counter
from ..tables.selection import selected
from ..tables.studies import Train, is_whole
from .table import KEYS as TABLE_KEYS
from .table import Composer, is_true, override_key, tabulate

KEYS = ("table", "rows", "columns", "seeds", "jobs", "dry_run", "kept")


def reproduce(
    keys: Mapping[str, str],
    overrides: Sequence[str],
    compose: Composer,
    count: Counter,
    width: int,
) -> int:
    """What `lwbench reproduce` does; 1 where a run failed. Arguments as those of `tabulate`.

    Raises UsageError for what is no table, row, column, seed or override, and Interrupted after a
    signal, when every run has saved its state.
    """
    if "table" not in keys:
        raise UsageError("reproduce needs table=<name>, such as table=ldc/4; or table=all")
    at_once = number_of_jobs(keys.get("jobs", "1"))
    tables = selected(published.load(keys["table"]), keys.get("rows"), keys.get("columns"))
    composed = compose(plan.requests(tables, overrides))
    if not composed:
        raise UsageError("no accuracy among these cells; lwbench table shows what is counted")
    out = next(iter(composed.values()))[0]["out"]
    found = records(Path(out), kept=is_true(keys, "kept", True))
    found = _whole(found, tables, composed, overrides)
    planned = plan.plan(composed, plan.seeds(keys.get("seeds", "3")), found)
    print("\n".join(f"# {line}" for line in plan.summary(planned, at_once)))
    if is_true(keys, "dry_run", False):
        print("\n".join(run.line for run in planned))
        return 0
    failures = run_all(
        [Job(run.overrides, run.config, run.choices) for run in planned if not run.is_finished],
        at_once,
    )
    shown = {key: keys[key] for key in keys.keys() & set(TABLE_KEYS)} | {"out": out}
    print(tabulate(shown, overrides, compose, count, width))
    return show_failures(failures)


def _whole(
    found: Sequence[Record],
    tables: Sequence[published.Table],
    composed: Mapping[Train, ComposedRun],
    overrides: Sequence[str],
) -> list[Record]:
    """The runs without those of a part of a data set, which fill no published cell of a full study.

    Raises UsageError where such a run lies in the place of one that is needed.
    """
    needed = {
        identity(composed[(*figure.train, *overrides)][0])
        for table in tables
        for figure in table.figures
        if figure.train is not None and figure.value is not None
    }
    if any(is_identifying(override_key(override)) for override in overrides):
        return list(found)  # a reduced study may be of a part
    parts = [r for r in found if r.result.identity in needed and not is_whole(r)]
    for record in parts:
        if not record.kept:
            raise UsageError(
                f"{record.run.path} was made with a part of {record.result.data}, which fills no "
                "published cell; choose another out=<folder>"
            )
    return [record for record in found if record not in parts]
