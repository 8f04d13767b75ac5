"""Find which way of counting gives a published figure (macs=, flops= or params=)."""

import json
from itertools import product
from typing import get_args

from rich.table import Table

from ..config import override_key
from ..errors import UsageError
from ..logs import console
from ..tables.cells import CountRequest
from ._counting import cached_counts, counter
from ._explaining import Candidate, Printed, Quantity, candidates, printed, ranks, row
from ._keys import Key, help_of_keys, parsed

FLAGS: tuple[str, ...] = ()
QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
KEYS = {
    "macs": Key("a figure as printed, such as 54.1M or 4.09G; may turn out to be FLOPs"),
    "flops": Key("a figure as printed; may turn out to be MACs"),
    "params": Key("a figure as printed"),
    "model": Key("the network; model.<argument>= sets its arguments, as in profile"),
    "image_size": Key("sizes to search (224), such as 128,224"),
    "num_classes": Key("numbers of classes to search (1000), such as 10,1000"),
    "limit": Key("number of candidates to list (10); ties of the first are all listed"),
    "format": Key("how candidates are printed", ("terminal", "json")),
}


def help() -> str:
    return help_of_keys(
        "lwbench explain macs=<figure> model=<network> [key=value ...]",
        "Counts a network under every rule, in its train and its deploy form, as MACs and as\n"
        "FLOPs, and ranks the counts by how many of the printed digits they have.",
        KEYS,
    )


def run(arguments: list[str], flags: set[str]) -> int:
    """Print the candidates of each figure. Raises UsageError where there is none to explain."""
    network = tuple(a for a in arguments if override_key(a).partition(".")[0] == "model")
    keys = parsed([a for a in arguments if a not in network], KEYS)
    figures = {name: printed(keys[name], name) for name in QUANTITIES if name in keys}
    if not figures or not any(override_key(a) == "model" for a in network):
        raise UsageError("give a figure and a network, such as: explain macs=54.1M model=ldc3")
    sizes = _numbers(keys.get("image_size", "224"), "image_size")
    classes = _numbers(keys.get("num_classes", "1000"), "num_classes")
    limit = _numbers(keys.get("limit", "10"), "limit")[0]
    requests = [CountRequest(network, *one) for one in product(classes, sizes, (False, True))]
    counts = cached_counts(requests, counter({"trust_code": "true"}))
    if not counts:
        raise UsageError(f"{' '.join(network)} cannot be counted: see the warnings above")
    found = {name: candidates(figure, name, counts) for name, figure in figures.items()}
    if keys["format"] == "json":
        print(json.dumps({name: _rows(found[name], figures[name], limit) for name in found}))
        return 0
    for name, figure in figures.items():
        _show(f"{name}={keys[name]}", figure, found[name], limit)
    return 0


def _numbers(text: str, key: str) -> list[int]:
    words = text.split(",")
    if bad := [word for word in words if not word.isdigit() or not 0 < int(word) <= 1_000_000]:
        raise UsageError(f"{key}={bad[0]}: expected whole numbers such as 128,224")
    return [int(word) for word in words]


def _rows(found: list[Candidate], figure: Printed, limit: int) -> list[dict[str, object]]:
    """The first candidates as plain data, and all that tie with the first."""
    places = ranks(found)
    listed = max(limit, places.count(1))
    pairs = zip(found[:listed], places[:listed], strict=True)
    return [row(candidate, figure, place) for candidate, place in pairs]


def _show(title: str, figure: Printed, found: list[Candidate], limit: int) -> None:
    rows = _rows(found, figure, limit)
    first = [one for one in rows if one["rank"] == 1]
    print(f"{title}: {_verdict(first, figure)}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("rank", "digits", "count", "unit", "rule", "image", "classes", "form"):
        is_number = header in ("rank", "count", "image", "classes")
        table.add_column(header, justify="right" if is_number else "left", no_wrap=True)
    for one in rows:
        digits = f"{one['digits_matched']} of {figure.digits}{', cut' if one['is_cut'] else ''}"
        cells = (one[key] for key in ("unit", "rule", "image_size", "num_classes", "form"))
        table.add_row(str(one["rank"]), digits, f"{one['count']:,}", *map(str, cells))
    console().print(table)


def _verdict(first: list[dict[str, object]], figure: Printed) -> str:
    """In words: whether the figure is met, and by how many ways of counting."""
    digits = first[0]["digits_matched"]
    if digits == 0:
        return "no way of counting has its first digit; the nearest are"
    met = "all printed digits" if digits == figure.digits else f"{digits} of {figure.digits} digits"
    how = " when cut instead of rounded" if first[0]["is_cut"] else ""
    if len(first) == 1:
        return f"one way of counting has {met}{how}"
    return f"{len(first)} ways of counting tie: they have {met}{how}"
