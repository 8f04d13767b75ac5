"""Command-line overrides to configurations: the only package that knows Hydra and OmegaConf.

`train_config` and `train_configs` return validated `RunConfig`s, `command_values` the resolved keys
of another command. Hydra's grammar (`key=value`) holds for every key except those in `TEXT_KEYS`,
whose values are paths and names and are taken as they are typed. Hydra is imported on first use.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import UsageError
from ..paths import conf_folder, config_dir
from ..registry import DATASETS, MODELS, OPTIMIZERS, SCHEDULERS, Spec
from ..runs import network_file
from ..runs.cache import cached, digest
from ..runs.processes import with_images_per_process
from ..runs.runconfig import Overrides, RunConfig, override_key
from ..runs.teacher import with_teacher
from ..runs.weights_id import with_weights_id
from .completion import complete
from .composing import Plain, composed_values, hydra_ready
from .overrides import GROUPS, TEXT_KEYS, parsed_overrides, text_of, text_values
from .sweeping import Range, expanded, search_space

__all__ = [
    "GROUPS", "Range", "Specs", "TEXT_KEYS", "command_values", "complete", "expanded",
    "override_key", "search_space", "specs", "train_config", "train_configs", "train_keys",
    "typed_values",
]  # fmt: skip


class Specs(NamedTuple):
    """The groups of a configuration, checked against the signatures of their builders."""

    model: Spec
    data: Spec
    optimizer: Spec
    scheduler: Spec


def train_config(overrides: Sequence[str]) -> RunConfig:
    """The configuration that `lwbench train <overrides>` runs with.

    Raises UsageError for unknown keys, groups and options (with the nearest names), unreadable
    overrides, values that are missing or out of range, and keys that have no effect.
    """
    if config := RunConfig.from_environment():
        return config
    with hydra_ready():
        return _run_config(overrides, *composed_values("train", overrides))


def train_configs(requests: Iterable[Overrides]) -> dict[Overrides, RunConfig]:
    """`train_config` of many overrides, composed once per state of the configuration files.

    Requests that differ in `seed` and `out` alone are composed once. Results are cached on disk.
    Raises UsageError for the first request that cannot be composed.
    """
    divided = {request: _divided(request) for request in requests}
    by_key = {_cache_key(base): base for base, _ in divided.values()}

    def make(keys: list[str]) -> dict[str, tuple[dict[str, Any], dict[str, str]]]:
        with hydra_ready():
            return {key: composed_values("train", by_key[key]) for key in keys}

    files = sorted(conf_folder().rglob("*.yaml"))
    if folder := config_dir():
        files += sorted(path for group in GROUPS for path in (folder / group).rglob("*.yaml"))
    version = digest(files, ("hydra-core", "omegaconf", "lwbench"))
    found = cached("runs", version, by_key, make)
    # a network's file, a teacher or weights may change while files of configuration stay the same
    bases = {base: _run_config(base, *found[key]) for key, base in by_key.items()}
    return {
        request: bases[base].changed(changes) if changes else bases[base]
        for request, (base, changes) in divided.items()
    }


def _divided(request: Overrides) -> tuple[Overrides, dict[str, Any]]:
    """The overrides that must be composed, and the values of `seed` and `out`."""
    base, changes = [], dict[str, Any]()
    for override in request:
        key, _, value = override.partition("=")
        if key == "seed" and re.fullmatch(r"0|[1-9]\d{0,8}", value):
            changes[key] = int(value)
        elif key == "out" and value:
            changes[key] = text_of(value)
        else:
            base.append(override)
    return tuple(base), changes


def command_values(
    verb: str, jobs: Sequence[Sequence[str]]
) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """The resolved keys of `conf/<verb>.yaml` and the chosen options, for each list of overrides.

    Raises UsageError as `train_config` does.
    """
    with hydra_ready():
        composed = (composed_values(verb, job) for job in jobs)
        return [(_completed(values), choices) for values, choices in composed]


def specs(config: RunConfig) -> Specs:
    """The builders of all four groups with their validated arguments; imports torch.

    Raises UsageError for an unknown builder, and for arguments that its signature does not take.
    """
    try:
        return Specs(
            MODELS.spec(config.model.spec),
            DATASETS.spec(config.data.spec),
            OPTIMIZERS.spec(config.optimizer.spec),
            SCHEDULERS.spec(config.scheduler.spec),
        )
    except UsageError as error:
        # a recipe of large images sets keys that CIFAR, for instance, does not have
        unknown = re.match("unknown key '([^']+)'", str(error))
        if unknown is None or config.experiment is None:
            raise
        hint = f"{config.experiment} sets it; ~{unknown[1]} leaves it out"
        raise UsageError(f"{error}\nperhaps experiment={hint}") from None


def typed_values(overrides: Sequence[str], verb: str) -> dict[str, Any]:
    """Overrides as a mapping, with values typed as Hydra reads them. Raises UsageError."""
    texts, others = text_values(overrides)
    with hydra_ready():
        parsed = parsed_overrides(verb, others)
    return {o.get_key_element(): o.value() for o in parsed} | texts


def train_keys() -> list[str]:
    """The keys at the top level of train.yaml; read without Hydra."""
    lines = (conf_folder() / "train.yaml").read_text(encoding="utf-8").splitlines()
    return [line.partition(":")[0] for line in lines if re.match(r"\w+:", line)]


def _run_config(
    overrides: Sequence[str], values: Mapping[str, Any], choices: Mapping[str, str]
) -> RunConfig:
    config = RunConfig.of(
        with_images_per_process(with_teacher(with_weights_id(_completed(values)))), choices
    )
    config.check_effect(overrides)
    return config


def _completed(values: Mapping[str, Any]) -> Plain:
    """With what the source of a network in a file of the user's says of its arguments."""
    model = values.get("model")
    if isinstance(model, dict) and model.get("builder") == "file":
        return {**values, "model": network_file.completed(model)}
    return dict(values)


def _cache_key(request: Overrides) -> str:
    """The request, and where a relative data.root leads: it names a user's data set."""
    roots = (r.partition("=")[2] for r in request if override_key(r) == "data.root")
    return json.dumps([*request, *(os.path.realpath(text_of(root) or "") for root in roots)])
