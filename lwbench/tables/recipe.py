"""The recipe's values that no document states, read where they are marked: in the configuration.

`conf/data` and `conf/experiment` mark values as `paper` or `ours`, behind or above each, or behind
the mapping that holds them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import yaml

from ..paths import conf_folder
from ..runs.runconfig import RunConfig

_MARK = re.compile(r"(?:^|\s)#\s*(ours|paper)\b")


def ours(runs: Iterable[tuple[str, str | None, RunConfig]]) -> list[str]:
    """What runs hold under the keys that are marked as ours: `batch_size 128`.

    Each is a data set, an experiment and a configuration; the experiment's marks go before the data
    set's. Values that differ between data sets name them: `epochs 20 (digits)`.
    """
    values: dict[str, dict[str, list[str]]] = {}
    for data, experiment, config in runs:
        flat = config.identifying
        for key in _keys(data, experiment, flat):
            sets = values.setdefault(key, {}).setdefault(str(flat[key]), [])
            sets += [] if data in sets else [data]
    return [text for key, found in values.items() for text in _written(key, found)]


@cache
def marks(group: str, option: str) -> dict[str, bool]:
    """Dotted keys of a configuration file that are marked: True for ours, False for the paper's.

    Empty where there is no such file, as for a user's own images.
    """
    path = conf_folder() / group / f"{option}.yaml"
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(_marks(yaml.compose("\n".join(lines), yaml.SafeLoader), lines, "", None))


def _marks(
    node: yaml.Node, lines: list[str], prefix: str, inherited: bool | None
) -> Iterator[tuple[str, bool]]:
    if not isinstance(node, yaml.MappingNode):
        if inherited is not None:
            yield prefix.removesuffix("."), inherited
        return
    for key, value in node.value:
        mark = _mark(lines, key.start_mark.line)
        own = inherited if mark is None else mark
        yield from _marks(value, lines, f"{prefix}{key.value}.", own)


def _mark(lines: list[str], at: int) -> bool | None:
    """What is said behind a line, or in the comment that begins above it; None: nothing."""
    top = at
    while top > 0 and lines[top - 1].lstrip().startswith("#"):
        top -= 1
    for line in (lines[at], lines[top]):
        if found := _MARK.search(line):
            return found[1] == "ours"
    return None


def _keys(data: str, experiment: str | None, flat: Mapping[str, Any]) -> list[str]:
    """The keys of a resolved configuration that are ours."""
    is_ours: dict[str, bool] = {}
    for key, mark in marks("data", data).items():
        room, _, name = key.partition(".")
        if room != "recipe":
            is_ours[f"data.{key}"] = mark
            continue
        # a data set's recipe is what other keys refer to: optimizer.lr is ${data.recipe.lr}
        is_ours |= {k: mark for k in flat if k.rpartition(".")[2] == name}
    is_ours |= marks("experiment", experiment) if experiment else {}
    return [key for key in flat if is_ours.get(key)]


def _written(key: str, found: Mapping[str, list[str]]) -> list[str]:
    if len(found) == 1:
        return [f"{key} {next(iter(found))}"]
    return [f"{key} {value} ({', '.join(sets)})" for value, sets in found.items()]
