"""A network's cost under every counting rule, as plain data, and its presentation as text."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rich.table import Table
from torch import nn

from ..logs import console, metric
from .complexity import complexity
from .counters import compared, thop_not_covered
from .data_free import measured
from .walk import walked

NAMED_CLASSES = 6  # of the classes that a rule does not cover, on a terminal


def profile(
    build: Callable[[], nn.Module], name: str, *, image_size: int, num_classes: int, layers: bool
) -> dict[str, Any]:
    """Return everything that is counted of the network that `build` returns, as plain data.

    `macs` holds each named rule's figure; "thop" is the installed package's and "flop_counter"
    torch's FlopCounterMode, halved; each is None where it fails. Raises UsageError if the network
    cannot be built or cannot take images of this size.
    """

    def figures(model: nn.Module) -> dict[str, Any]:
        walk = walked(model, (3, image_size, image_size))
        facts = asdict(complexity(walk))
        facts["macs"] |= compared(model, image_size)
        if facts["macs"]["thop"] is not None:
            facts["not_covered"]["thop"] = thop_not_covered(walk)
        return facts

    facts = measured(build, figures)
    by_layer = facts.pop("layers")
    found = {"model": name, "image_size": image_size, "num_classes": num_classes, **facts}
    return found | ({"layers": by_layer} if layers else {})


def show(profiles: list[dict[str, Any]], format: str) -> None:
    """Print profiles as "terminal", "markdown", "csv" or "json".

    On a terminal one network is shown in full, several as a row each.
    """
    if format == "json":
        print(json.dumps(profiles if len(profiles) > 1 else profiles[0], indent=2))
    elif format == "terminal" and len(profiles) == 1:
        _show_one(profiles[0])
    else:
        layers = [
            {"model": p["model"]} | _layer_row(layer)
            for p in profiles
            for layer in p.get("layers", [])
        ]
        _show_rows(layers or [_row(p) for p in profiles], format)


def _row(p: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": p["model"],
        "image_size": p["image_size"],
        "params": p["params"],
        "buffers": p["buffers"],
        **_named_macs(p["macs"]),
        **_deploy_row(p.get("deploy")),
        "deform_sampling_operations": p["deform_sampling"],
        "activations": p["activations"],
        "peak_bytes": p["peak_bytes"],
        "unknown": sum(p["unknown"].values()),
        # the rules whose figure leaves something out
        "not_covered": " ".join(rule for rule, classes in p["not_covered"].items() if classes),
    }


def _layer_row(layer: dict[str, Any]) -> dict[str, Any]:
    shapes = {k: "x".join(map(str, layer[k])) for k in ("in_shape", "out_shape")}
    return {k: layer[k] for k in ("name", "type", "params")} | shapes | _named_macs(layer["macs"])


def _named_macs(macs: dict[str, int | None]) -> dict[str, int | None]:
    """Return counts under headers that say what is counted."""
    return {f"macs_{rule}": count for rule, count in macs.items()}


def _deploy_row(form: dict[str, Any] | None) -> dict[str, Any]:
    if form is None:
        return {}
    difference = f"{form['largest_difference'] / (form['largest_output'] or 1.0):.2g}"
    counts = {f"deploy_{key}": value for key, value in _named_macs(form["macs"]).items()}
    return {"deploy_params": form["params"], **counts, "deploy_relative_difference": difference}


def _show_rows(rows: list[dict[str, Any]], format: str) -> None:
    header = list(rows[0])
    if format == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, header)
        writer.writeheader()
        writer.writerows(rows)
        print(text.getvalue(), end="")
    elif format == "markdown":
        print("| " + " | ".join(header) + " |")
        print("| " + " | ".join("---" for _ in header) + " |")
        for row in rows:
            print("| " + " | ".join(_cell(row[key]) for key in header) + " |")
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for key in header:
            is_text = isinstance(rows[0][key], str)
            table.add_column(key, justify="left" if is_text else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(_cell(row[key]) for key in header))
        console().print(table)


def _cell(value: Any) -> str:
    return "-" if value is None else metric(value) if isinstance(value, int) else str(value)


def _show_one(p: dict[str, Any]) -> None:
    screen = console()
    size = p["image_size"]
    screen.print(f"{p['model']} at 3 x {size} x {size}, {p['num_classes']} classes")
    lines = [
        ("parameters", f"{p['params']:,}"),
        ("buffers", f"{p['buffers']:,}"),
        ("activations", f"{p['activations']:,}"),
        (
            "peak memory",
            f"{p['peak_bytes'] / 2**20:.1f} MiB of a forward pass, one image (computed)",
        ),
    ]
    if p["deform_sampling"]:
        lines.append(("sampling", f"{p['deform_sampling']:,} operations, in no figure below"))
    for word, text in lines:
        screen.print(f"  {word:<14}{text}")
    _show_macs("MACs by rule (a MAC is two FLOPs)", p["macs"])
    for rules, classes in _grouped(p["not_covered"]):
        screen.print(f"counted as 0 by {rules}: {_named(classes)}")
    if p["unknown"]:
        unknown = _named(p["unknown"])
        screen.print(f"operators that no rule knows, counted as 0: {unknown}")
    if form := p.get("deploy"):
        _show_deploy_form(form)
    if p.get("layers"):
        _show_rows([_layer_row(layer) for layer in p["layers"]], "terminal")


def _show_macs(title: str, macs: dict[str, int | None]) -> None:
    screen = console()
    screen.print(title)
    for rule, value in macs.items():
        known = f"{'-':>27}" if value is None else f"{value:>16,}  {metric(value):>9}"
        screen.print(f"  {rule:<14}{known}  {RULE_WORDS.get(rule, '')}")


def _show_deploy_form(form: dict[str, Any]) -> None:
    """Print the counts of the deploy form, and how far its outputs are from the network's."""
    screen = console()
    screen.print("deploy form: batch norms folded, branches merged, dropout and other heads gone")
    screen.print(f"  {'parameters':<14}{form['params']:,}")
    screen.print(f"  {'activations':<14}{form['activations']:,}")
    _show_macs("MACs of the deploy form by rule", form["macs"])
    screen.print(
        f"largest difference of the outputs, float32, {form['images']} images "
        f"({form['images_from']}): {form['largest_difference']:.2g}; "
        f"the largest output is {form['largest_output']:.3g}"
    )


def _grouped(not_covered: dict[str, dict[str, int]]) -> list[tuple[str, dict[str, int]]]:
    """Return what rules do not cover, with the rules that leave the same classes out together."""
    groups: dict[str, list[str]] = {}
    for rule, classes in not_covered.items():
        if classes:
            groups.setdefault(json.dumps(classes), []).append(rule)
    return [(", ".join(rules), json.loads(classes)) for classes, rules in groups.items()]


def _named(times: dict[str, int]) -> str:
    """Return "Hardswish x 19, Sigmoid x 2", or the most frequent ones of many."""
    words = [f"{name} x {count}" for name, count in times.items()]
    more = len(words) - NAMED_CLASSES
    if more > 1:
        words[NAMED_CLASSES:] = [f"and {more} more"]
    return ", ".join(words)


RULE_WORDS = {
    "plain": "convolutions and matrix products, as most papers count",
    "conv_only": "convolutions alone",
    "thop2020": "thop 0.0.31 of 2020: norms, pooling and convolution biases too",
    "torchstat": "torchstat 0.0.7: activations too",
    "ptflops": "ptflops 0.6.4: all biases too",
    "fvcore": "fvcore 0.1.5, which prints them as FLOPs: norms and pooling too",
    "thop": "the installed thop; does not see deformable layers",
    "flop_counter": "torch's FlopCounterMode, halved",
}
