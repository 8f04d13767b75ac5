"""Make the runs that a table's cells still need, then show the table."""

from pathlib import Path

from ..config import train_configs
from ..errors import UsageError
from ..runs.images import unlike_published
from ..runs.records import records
from ..sweeps import plan
from ..sweeps.local import number_of_jobs, show_failures
from ..tables import published
from ..tables.selection import selected
from ..tables.studies import asked, requests
from ._counting import check_trusted, counter
from ._images import check_finished
from ._keys import NO_YES, Key, help_of_keys, own_and_training, shared
from ._launching import divided, maker
from ._tables import tabulate
from .table import KEYS as TABLE_KEYS
from .table import terminal_width

FLAGS: tuple[str, ...] = ()
KEYS = {
    "table": Key("a name, all, or the path of a YAML file"),
    **shared("rows", "columns"),
    "claims": Key("instead of a table: a document, one claim, or a YAML file; with until=decided"),
    "until": Key("decided: add seeds until comparisons are decided", ("seeds", "decided")),
    "alpha": Key("with until=decided: probability of a false decision (0.05)"),
    "max_seeds": Key(
        "with until=decided: fixed before the first run (20); none: no largest number"
    ),
    "budget": Key("with until=decided: a time such as 3h, after which it ends cleanly"),
    "seeds": Key("how many (3 is 0, 1, 2), or a list such as 0,5,7"),
    **shared("jobs"),
    "launcher": Key("local, slurm or ray, with keys launcher.<key>: lwbench list launcher"),
    "dry_run": Key("print the plan, and a line per run for a shell", NO_YES),
    **shared("archived", "trust_code"),
}


def help() -> str:
    return help_of_keys(
        "lwbench reproduce table=<name> [key=value ...]",
        "Any other key is an override of every run, such as epochs=10 image_size=32: a reduced\n"
        "study, which lwbench table shows with the same overrides.",
        KEYS,
    )


def run(arguments: list[str], flags: set[str]) -> int:
    """Make the missing runs and show the tables; 1 where a run failed.

    Raises UsageError for an unknown table, row, column, seed or override, and Interrupted after a
    signal, when every run has saved its state.
    """
    launcher, arguments = divided(arguments)
    keys, overrides = own_and_training(arguments, KEYS)
    if keys["until"] == "decided":
        if launcher.name != "local":
            raise UsageError("until=decided needs launcher=local")
        return _until_decided(keys, overrides)
    if wrong := sorted(keys.keys() & {"claims", "alpha", "max_seeds", "budget"}):
        raise UsageError(f"{wrong[0]}= needs until=decided")
    if "table" not in keys:
        raise UsageError("reproduce needs table=<name>, such as table=ldc/4; or table=all")
    at_once = number_of_jobs(keys.get("jobs", "1"))
    tables = selected(published.load(keys["table"]), keys.get("rows"), keys.get("columns"))
    wanted = requests(tables, overrides)
    if not wanted:
        raise UsageError("no accuracy among these cells; lwbench table shows what is counted")
    configs = train_configs([*wanted, *requests(tables)])
    out = configs[wanted[0]].out
    found = records(Path(out), archived=keys["archived"] == "true")
    seeds = plan.seeds(keys.get("seeds", "3"))
    refused = asked(tables, overrides, configs, found).refused(tables)
    for record in refused:
        if not record.is_archived and record.result.seed in seeds:  # in the place of a needed run
            raise UsageError(
                f"{record.run.path} is not of {record.result.data} as published: "
                f"{unlike_published(record.data, record.result.data)}\nit fills no published cell; "
                "choose another out=<folder>"
            )
    found = [record for record in found if record not in refused]
    configs = {request: configs[request] for request in wanted}
    planned = plan.plan(configs, seeds, found)
    check_finished([(job.run, job.config) for job in planned if job.state == "finished"])
    print("\n".join(f"# {line}" for line in plan.summary(planned, at_once)))
    if keys["dry_run"] == "true":
        print("\n".join(one.line for one in planned))
        return 0
    missing = [one for one in planned if not one.is_finished]
    for job in missing:
        check_trusted(job.config.model.spec, keys)
    failures = maker(launcher, at_once)(missing)
    shown = {name: key.words[0] for name, key in TABLE_KEYS.items() if key.words}
    shown |= {key: keys[key] for key in keys.keys() & set(TABLE_KEYS)} | {"out": out}
    print(tabulate(shown, overrides, train_configs, counter(keys), terminal_width()))
    return show_failures(failures)


def _until_decided(keys: dict[str, str], overrides: tuple[str, ...]) -> int:
    """Add seeds to comparisons until they are decided. Raises UsageError for keys that clash."""
    from . import _growing

    if ("table" in keys) == ("claims" in keys):
        raise UsageError("until=decided needs either table=<name> or claims=<document>")
    if wrong := sorted(
        keys.keys() & ({"seeds"} | ({"rows", "columns"} if "claims" in keys else set()))
    ):
        raise UsageError(f"{wrong[0]}= cannot be combined with until=decided here")
    tables = []
    if "table" in keys:
        loaded = published.load(keys["table"])
        tables = selected(loaded, keys.get("rows"), keys.get("columns"))
    at_once = number_of_jobs(keys.get("jobs", "1"))
    growth = _growing.prepared(keys, overrides, tables, at_once)
    return _growing.grow(growth, keys["dry_run"] == "true")
