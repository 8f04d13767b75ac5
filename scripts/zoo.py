"""Write docs/zoo.md: every network of conf/model with its source, its cost and its arguments.

python scripts/zoo.py            writes docs/zoo.md
python scripts/zoo.py --check    exits with 1 where docs/zoo.md is out of date
"""

import sys
from pathlib import Path

import yaml

from lwbench.commands._counting import cached_counts, counted
from lwbench.commands.list import first_comment
from lwbench.logs import metric
from lwbench.tables.cells import CountRequest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "zoo.md"
HEAD = """# The zoo

Every network of `conf/model`, one YAML file per variant: `lwbench train model=<name>`,
`lwbench profile model=<name>`. Parameters and plain MACs (convolutions and matrix products) at 1000
classes and 224 px; `lwbench table` shows each published figure under its own rule. **fit**: the
document leaves details of the network open, and ours were chosen to meet its counts. The arguments
are those in the variant's own file; the others are inherited from its parent. Every network of
torchvision and timm (`model=torchvision model.arch=<name>`, `model=timm model.arch=<name>`) is
counted on [a page of its own](zoo_profile.md).

This page is written by `scripts/zoo.py`.

| model | network and source | builder | parameters | MACs | own arguments |
| --- | --- | --- | ---: | ---: | --- |
"""


def page() -> str:
    """Return the whole page as text."""
    conf = ROOT / "conf"
    # a network in a file of the user's has no cost of its own
    paths = sorted(p for p in (conf / "model").glob("*.yaml") if p.stem != "file")
    requests = {path.stem: CountRequest((f"model={path.stem}",), 1000, 224) for path in paths}
    counts = cached_counts(requests.values(), counted)
    rows = []
    for path in paths:
        count = counts[requests[path.stem]]
        words = first_comment(path).replace("|", "\\|")
        if " fit " in f" {words} ".replace(",", " "):
            words = f"**fit** {words}"
        figures = f"{metric(count['params'])} | {metric(count['macs']['plain'])}"
        rows.append(f"| {path.stem} | {words} | {builder(path)} | {figures} | {arguments(path)} |")
    return HEAD + "\n".join(rows) + "\n"


def builder(path: Path) -> str:
    """Return the builder that a model file or its nearest parent names."""
    content = yaml.safe_load(path.read_text())
    return content.get("builder") or builder(path.with_name(f"{content['defaults'][0]}.yaml"))


def arguments(path: Path) -> str:
    """Return the arguments that a variant changes; for a file without a parent, all of them."""
    content = yaml.safe_load(path.read_text())
    if "builder" in content:
        return f"`{' '.join(k for k in content if k != 'builder')}`"
    return " ".join(f"`{k}={v}`" for k, v in content.items() if k != "defaults")


if __name__ == "__main__":
    text = page()
    if "--check" in sys.argv:
        if PAGE.read_text() != text:
            sys.exit("docs/zoo.md is out of date: run scripts/zoo.py")
    else:
        PAGE.write_text(text)
