"""Show what documents claim, and what counting and runs say of it."""

from collections import Counter
from pathlib import Path

from ._keys import Key, help_of_keys, own_and_training, shared

FLAGS: tuple[str, ...] = ()
KEYS = {
    "document": Key("ldc, dcnn ..., one claim such as ldc/ldc0-gain, or the path of a YAML file"),
    "kind": Key("claims of one kind", ("all", "cost", "accuracy", "speed")),
    **shared("format", "out", "archived", "trust_code", "select"),
}


def help() -> str:
    from ..tables.claims.claim import names

    return help_of_keys(
        "lwbench claims [key=value ...]",
        f"documents: {' '.join(names())}\n\n"
        "Claims of cost are counted, claims of accuracy decided by finished runs. Any other key\n"
        "is an override of every run, such as epochs=10 image_size=32: that reduced study alone.",
        KEYS,
    )


def run(arguments: list[str], flags: set[str]) -> int:
    """Print the claims with their verdicts."""
    from ..config import train_configs
    from ..runs.records import records
    from ..tables import formats
    from ..tables.claims import claim, designs, listing
    from ._claims import judge
    from ._counting import counter
    from .table import terminal_width

    values, overrides = own_and_training(arguments, KEYS)
    name = values.get("document", "all")
    documents, shown = claim.families(name)
    out = Path(values.get("out", "outputs"))
    found = records(out, archived=values["archived"] == "true")
    grown = designs.recorded(out)
    count = counter(values)
    judged = judge(documents, found, train_configs, count, overrides, values["select"], grown)
    judged = [one for one in judged if values["kind"] in ("all", one.claim.kind)]
    judged = [one for one in judged if one.id in shown]
    if values["format"] in ("json", "csv"):
        print(formats.listed([one.as_json() for one in judged], values["format"]), end="")
        return 0
    if values["format"] != "terminal":
        print(formats.written([listing.of_claims(judged)], values["format"]))
        return 0
    width = terminal_width()
    is_short = "document" not in values
    for one in judged:
        if is_short:
            print(listing.line(one, width))
        else:
            print(f"{one.id}  {one.claim.kind}  {one.verdict}")
            print("\n".join(f"  {text}" for text in listing.details(one)) + "\n")
    counts = Counter(one.word for one in judged)
    print(f"{len(judged)} claims: {', '.join(f'{n} {word}' for word, n in counts.items())}")
    if is_short:
        print("lwbench claims document=<name> says what each verdict rests on")
    return 0
