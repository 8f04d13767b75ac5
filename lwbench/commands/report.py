"""Write one HTML page of published tables, studies and runs."""

from pathlib import Path

from ..config import train_configs
from ._counting import cached_counts, counter
from ._keys import Key, help_of_keys, parsed, shared

FLAGS: tuple[str, ...] = ()
KEYS = {
    **shared("out"),
    "out_dir": Key("where index.html is written (<out>/report)"),
    **shared("archived", "trust_code", "select"),
}


def help() -> str:
    return help_of_keys(
        "lwbench report [key=value ...]",
        "Writes a page that needs no other file and no network.",
        KEYS,
    )


def run(arguments: list[str], flags: set[str]) -> int:
    """Write the report and say where it is."""
    print(f"written: {write_report(parsed(arguments, KEYS))}")
    return 0


def write_report(values: dict[str, str]) -> Path:
    """Read tables, counts and runs, write the page, return its path."""
    from ..report import build
    from ..runs.evaluations import by_configuration, evaluations
    from ..runs.latencies import latencies
    from ..runs.records import chosen, records
    from ..tables import cells, published
    from ..tables.claims import claim, designs
    from ._claims import judge

    out = Path(values.get("out", "outputs"))
    found = records(out, archived=values["archived"] == "true")
    newest, grown = chosen(found), designs.recorded(out)
    loaded = published.load("all")
    wanted = [request for table in loaded for request in cells.requirements(table)]
    trains = {f.train: None for table in loaded for f in table.figures if f.train is not None}
    configs = train_configs(trains)
    elsewhere = evaluations(out, archived=values["archived"] == "true")
    sources = build.Sources(
        tables=loaded,
        counts=cached_counts(wanted, counter(values)),
        configs=configs,
        records=newest,
        select=values["select"],
        claims=judge(
            claim.load("all"), newest, train_configs, counter(values), (), values["select"], grown
        ),
        designs=grown,
        evaluated=by_configuration(configs, elsewhere),
        latencies=latencies(out, archived=values["archived"] == "true"),
    )
    return build.write(sources, Path(values.get("out_dir", out / "report")))
