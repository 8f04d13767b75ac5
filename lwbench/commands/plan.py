"""Say how many seeds and hours it takes to decide comparisons, from the spread seen so far."""

from collections import Counter
from pathlib import Path

from ..errors import UsageError
from ._keys import Key, help_of_keys, own_and_training, shared

FLAGS: tuple[str, ...] = ()
KEYS = {
    "claims": Key("a document, one claim such as ldc/ldc0-gain, or the path of a YAML file"),
    "table": Key("instead of claims: a name or the path of a YAML file"),
    **shared("rows", "columns", "baseline"),
    "difference": Key("the difference to be shown, in points (the one seen so far)"),
    "power": Key("probability of showing it (0.8)"),
    **shared("out", "archived"),
}


def help() -> str:
    return help_of_keys(
        "lwbench plan claims=<document> | table=<name> [key=value ...]",
        "Two seeds or more of both rows are the pilot. Any other key is an override of every run,\n"
        "such as epochs=10 image_size=32: the plan of that reduced study.",
        KEYS,
    )


def run(arguments: list[str], flags: set[str]) -> int:
    """Print a line per comparison."""
    values, overrides = own_and_training(arguments, KEYS)
    if ("table" in values) == ("claims" in values):
        raise UsageError("plan needs either claims=<document> or table=<name>")
    difference = _number(values, "difference", 100.0)
    power = _number(values, "power", 0.999) or 0.8
    lines = (_of_table if "table" in values else _of_claims)(values, overrides, difference, power)
    print("\n".join(lines) if lines else "no comparison has two pairs of runs yet: make two seeds")
    return 0


def _number(values: dict[str, str], key: str, most: float) -> float | None:
    if key not in values:
        return None
    try:
        number = float(values[key])
    except ValueError:
        number = 0.0
    if not 0 < number <= most:
        raise UsageError(f"{key}={values[key]}: expected a number above 0, at most {most:g}")
    return number


def _of_table(
    values: dict[str, str], overrides: tuple[str, ...], difference: float | None, power: float
) -> list[str]:
    from ..config import train_configs
    from ..runs.records import records
    from ..tables import cells, published
    from ..tables.claims import planner
    from ..tables.selection import selected
    from ._tables import PARTS, study

    tables = selected(published.load(values["table"]), *(values.get(part) for part in PARTS))
    found = records(Path(values.get("out", "outputs")), archived=values["archived"] == "true")
    chosen = study(tables, found, overrides, "final", train_configs)
    filled = [cells.filled(table, {}, chosen) for table in tables]
    return [line for one in filled for line in planner.remarks(one, difference, power)]


def _of_claims(
    values: dict[str, str], overrides: tuple[str, ...], difference: float | None, power: float
) -> list[str]:
    from ..config import train_configs
    from ..runs.records import records
    from ..tables.claims import claim, designs, planner, testing
    from ..tables.claims.judge import recipe_name
    from ..tables.statistics import ALPHA
    from ._claims import judge
    from ._counting import counted

    if wrong := sorted(values.keys() & {"rows", "columns", "baseline"}):
        raise UsageError(f"{wrong[0]}= concerns tables; name one claim as claims=ldc/ldc0-gain")
    out = Path(values.get("out", "outputs"))
    documents, shown = claim.families(values["claims"])
    found = records(out, archived=values["archived"] == "true")
    grown = designs.recorded(out)
    lines = []
    judged = judge(documents, found, train_configs, counted, overrides, "final", grown)
    tests = Counter(
        (one.document.name, one.recipe) for one in judged for o in one.outcomes if o.p is not None
    )
    for one in judged:
        alpha = ALPHA / max(tests[one.document.name, one.recipe], 1)  # p is corrected for them
        for outcome in one.outcomes if one.id in shown else ():
            if outcome.sd is None or (outcome.verdict != testing.UNDECIDED and not difference):
                continue
            seen = difference or outcome.distance
            needed = planner.pairs_needed(seen, outcome.sd, power, alpha)
            seconds = planner.seconds_of_runs(outcome.runs)
            text = planner.more_seeds(outcome.n, needed, seconds)
            where = recipe_name(one.recipe or ())
            lines.append(
                f"{one.id}, {outcome.part.name}: {text} for a power of {power:g} ({where})"
            )
    return lines
