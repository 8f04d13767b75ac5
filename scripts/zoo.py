"""Write docs/zoo.md from the registry: every network with its paper, its cost and what is ours.

python scripts/zoo.py            writes docs/zoo.md
python scripts/zoo.py --check    exits with 1 where docs/zoo.md is out of date
"""

import sys
from pathlib import Path

import yaml

from lwbench.cli import counted, first_comment
from lwbench.logs import metric
from lwbench.tables.cells import CountRequest
from lwbench.tables.counts import cached_counts

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "zoo.md"
HEAD = """# The zoo

Every network of `conf/model`, one YAML file a variant: `lwbench train model=<name>`,
`lwbench profile model=<name>`. Parameters and plain MACs (convolutions and linear layers) at 1000
classes and 224 px; each published figure under its own rule is in `lwbench table`. **fit**: the
document leaves parameters of the network open, and ours were chosen to meet its counts. Arguments
are those of the variant's own file; what it does not name it takes from its parent.

This page is written by `scripts/zoo.py`.

| model | network and source | builder | parameters | MACs | own arguments |
| --- | --- | --- | ---: | ---: | --- |
"""


def page() -> str:
    """The whole page as text."""
    conf = ROOT / "conf"
    paths = sorted((conf / "model").glob("*.yaml"))
    requests = {path.stem: CountRequest((f"model={path.stem}",), 1000, 224) for path in paths}
    counts = cached_counts(requests.values(), conf, counted)
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
    """The builder that a model file names, or its nearest parent does."""
    content = yaml.safe_load(path.read_text())
    return content.get("builder") or builder(path.with_name(f"{content['defaults'][0]}.yaml"))


def arguments(path: Path) -> str:
    """The arguments that a variant changes of its parent; for a parent, that it has them all."""
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
