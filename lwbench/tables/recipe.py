"""The recipe values that a document does not state: the key `ours` of the configuration files.

`conf/experiment/<document>.yaml` and `conf/data/<set>.yaml` list them under `ours`; a mapping's key
stands for all keys in it. What an experiment sets and does not list is stated by the document, so
it takes precedence over the data set's list. The key is removed when a configuration is composed.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ..paths import conf_files, config_dir
from ..runs.runconfig import RunConfig


def ours(runs: Iterable[tuple[str, str | None, RunConfig]]) -> list[str]:
    """The values of runs under the keys that are ours: `batch_size 128`.

    A run is given by its data set, experiment and configuration. Values that differ between data
    sets name them: `epochs 20 (digits)`.
    """
    values: dict[str, dict[str, dict[str, None]]] = {}
    for data, experiment, config in runs:
        for key, value in config.identifying.items():
            if is_ours(key, data, experiment):
                values.setdefault(key, {}).setdefault(str(value), {})[data] = None
    texts = []
    for key, found in values.items():
        name = key.removesuffix(".builder")
        for value, sets in found.items():
            texts.append(f"{name} {value}" + (f" ({', '.join(sets)})" if len(found) > 1 else ""))
    return texts


def is_ours(key: str, data: str, experiment: str | None) -> bool:
    """Whether the documents leave a key of the configuration unstated."""
    by_data, in_data = _listed_and_set("data", data, config_dir())
    names = [key]
    # a data set's recipe is what other keys refer to: optimizer.lr is ${data.recipe.lr}
    if (default := f"data.recipe.{key.rpartition('.')[2]}") in in_data:
        names.append(default)
    if experiment is not None:
        by_experiment, in_experiment = _listed_and_set("experiment", experiment, config_dir())
        if any(_covers(entry, name) for entry in by_experiment for name in names):
            return True
        if key in in_experiment:
            return False
    return any(_covers(entry, name) for entry in by_data for name in names)


def _covers(entry: str, key: str) -> bool:
    return key == entry or key.startswith(f"{entry}.")


@cache
def _listed_and_set(group: str, option: str, folder: Path | None) -> tuple[list[str], set[str]]:
    """What a configuration file lists as ours, and the dotted keys that it sets.

    Both are empty where there is no such file, as for a user's own images. `folder`: that of
    --config-dir, which decides what files there are.
    """
    path = conf_files(group).get(option)
    if path is None:
        return [], set()
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    prefix = "data." if group == "data" else ""
    return [prefix + entry for entry in content.pop("ours", [])], set(_dotted(content, prefix))


def _dotted(content: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
