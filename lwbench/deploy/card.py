"""The model card of an export as Markdown; card.json has the same content as data."""

from collections.abc import Mapping
from typing import Any


def markdown(card: Mapping[str, Any]) -> str:
    """Write a card, see `commands._exporting`, as a page."""
    given, found = card["input"], card["comparison"]
    inside = "in the graph" if given["preprocessing_in_graph"] else "before the graph"
    facts = {
        "files": ", ".join(f"`{one['name']}` ({one['bytes']:,} bytes)" for one in card["files"]),
        "sha256": ", ".join(f"`{one['sha256']}`" for one in card["files"]),
        "network": f"`{card['network']['builder']}` {_arguments(card['network']['arguments'])}",
        "weights": card["weights"],
        "license": card["license"] or "not stated",
        "input": f"{given['type']} {given['shape']}",
        "preprocessing": f"{given['preprocessing']}, {inside}" if given["preprocessing"] else None,
        "classes": card["num_classes"],
        "parameters": f"{card['counts']['params']:,}",
        "MACs": ", ".join(f"{k} {v:,}" for k, v in card["counts"]["macs"].items()),
        "created": f"{card['created']} with {_arguments(card['made_with'])}",
    }
    sections = [
        f"# {card['name']}: {card['format']}",
        f"**{card['verdict']}**",
        _table(facts),
        "## Comparison with PyTorch",
        _comparison(found),
    ]
    if quantization := card.get("quantization"):
        sections += ["## int8", _quantization(quantization)]
    if data := card.get("data"):
        sections += ["## Data", _table(data)]
    if results := card.get("results"):
        sections += ["## Results of the training", _table(_flat(results))]
    if recipe := card.get("recipe"):
        sections += ["## Recipe", _table(_flat(recipe))]
    return "\n\n".join(sections) + "\n"


def _comparison(found: Mapping[str, Any]) -> str:
    rows = {
        "images": f"{found['images']:,}, {found['images_from']}",
        "top-1 of PyTorch, of the runtime": _percents(found, "top1"),
        "top-5 of PyTorch, of the runtime": _percents(found, "top5"),
        "changed answers": found["changed_answers"],
        "right in PyTorch alone, in the runtime alone": None
        if found["mcnemar_p"] is None
        else f"{found['only_torch_right']}, {found['only_runtime_right']} "
        f"(McNemar p = {found['mcnemar_p']:.3g})",
        "largest difference of logits": f"{found['largest_difference']:.3g}",
        "largest logit": f"{found['largest_logit']:.3g}",
    }
    return _table(rows)


def _quantization(found: Mapping[str, Any]) -> str:
    float32, int8 = found["float32"], found["int8"]
    lines = [
        f"Calibrated on {found['calibration_images']:,} training images (seed {found['seed']}).",
        "",
        "| | float32 | int8 |",
        "| --- | --- | --- |",
        f"| top-1 | {_percent(float32['top1'])} | {_percent(int8['top1'])} |",
        f"| bytes | {float32['bytes']:,} | {int8['bytes']:,} |",
        f"| latency, one image, one thread | {float32['latency_ms']:.3f} ms | "
        f"{int8['latency_ms']:.3f} ms |",
    ]
    if layers := found.get("sensitivity"):
        lines += [
            "",
            f"Top-1 on {found['sensitivity_images']:,} test images with one layer quantised:",
            "",
            "| layer | top-1 | points |",
            "| --- | --- | --- |",
            *(f"| `{one['layer']}` | {_percent(one['top1'])} | {one['points']:+.2f} |"
              for one in layers),
        ]  # fmt: skip
    return "\n".join(lines)


def _table(rows: Mapping[str, Any]) -> str:
    lines = [f"| {key} | {_cell(value)} |" for key, value in rows.items() if value is not None]
    return "\n".join(["| | |", "| --- | --- |", *lines])


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows |= _flat(value, f"{prefix}{key}.")
        else:
            rows[f"{prefix}{key}"] = value
    return rows


def _arguments(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def _percents(found: Mapping[str, Any], top: str) -> str | None:
    if found[f"torch_{top}"] is None:
        return None
    return f"{_percent(found[f'torch_{top}'])}, {_percent(found[f'runtime_{top}'])}"


def _percent(value: float) -> str:
    return f"{value:.2f} %"
