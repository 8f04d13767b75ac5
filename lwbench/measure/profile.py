"""`lwbench profile`: a network's cost under every counting rule, as text or data."""

import csv
import io
import json
from dataclasses import asdict
from typing import Any

import torch
from rich.table import Table

from ..errors import UsageError, nearest
from ..logs import console, metric
from ..measure.complexity import RULES, Complexity, count, flop_counter_macs, thop_macs
from ..registry import MODELS

FORMATS = ("terminal", "markdown", "csv", "json")
OTHER_COUNTERS = ("thop", "flop_counter")


def profile(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Everything that is counted of one network, as plain data.

    `macs` holds each named rule's figure; `thop` is the installed package's, None where it fails,
    and `flop_counter` torch's FlopCounterMode, halved.
    """
    size = config["image_size"]
    with torch.device("meta"):  # a count needs no weights
        model = MODELS.build(config["model"], config["num_classes"])
    cost: Complexity = count(model, image_size=size)
    facts = asdict(cost)
    layers = facts.pop("layers")
    thop = thop_macs(model, size)
    facts["macs"] |= {
        "thop": None if thop is None else thop[0],
        "flop_counter": flop_counter_macs(model, size),
    }
    found = {"model": name, "image_size": size, "num_classes": config["num_classes"], **facts}
    return found | ({"layers": layers} if config["layers"] else {})


def show(profiles: list[dict[str, Any]], format: str) -> None:
    """Print profiles: one network in full, several as a row each."""
    if format not in FORMATS:
        raise UsageError(f"format={format!r}{nearest(format, FORMATS)}")
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
    macs = {rule: value for rule, value in p["macs"].items()}
    unknown = sum(p["unknown"].values())
    return {
        "model": p["model"],
        "image_size": p["image_size"],
        "params": p["params"],
        "buffers": p["buffers"],
        **macs,
        "deform_sampling": p["deform_sampling"],
        "activations": p["activations"],
        "peak_bytes": p["peak_bytes"],
        "unknown": unknown,
    }


def _layer_row(layer: dict[str, Any]) -> dict[str, Any]:
    shapes = {k: "x".join(map(str, layer[k])) for k in ("in_shape", "out_shape")}
    return {k: layer[k] for k in ("name", "type", "params")} | shapes | layer["macs"]


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
    screen.print("MACs by rule")
    for rule, value in p["macs"].items():
        known = "-" if value is None else f"{value:>16,}  {metric(value):>9}"
        screen.print(f"  {rule:<14}{known}  {RULE_WORDS.get(rule, '')}")
    if p["unknown"]:
        found = ", ".join(f"{name} x {times}" for name, times in p["unknown"].items())
        screen.print(f"unknown, not counted: {found}")
    if p.get("layers"):
        _show_rows([_layer_row(layer) for layer in p["layers"]], "terminal")


RULE_WORDS = {
    "plain": "convolutions and linear layers; most papers' rule",
    "conv_only": "convolutions alone",
    "thop2020": "thop as of 2020: norms, pools and biases too",
    "torchstat": "torchstat: activations too",
    "ptflops": "ptflops 0.6",
    "thop": "the installed thop; blind to deformable layers",
    "flop_counter": "torch's FlopCounterMode, halved",
}
assert set(RULES) <= set(RULE_WORDS)
