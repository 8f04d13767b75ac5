"""Compose a configuration with Hydra, and refuse what would have no effect or is incomplete."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from ..errors import UsageError, nearest
from ..paths import conf_files, conf_folder, config_dir, set_name
from ..registry import MODELS
from ..runs.runconfig import override_key
from .overrides import GROUPS, dotted, explained, text_values

Plain = dict[str, Any]


@contextmanager
def hydra_ready() -> Iterator[None]:
    from hydra import initialize_config_dir
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_dir(str(conf_folder()), job_name="lwbench", version_base="1.3"):
        if folder := config_dir():
            # what initialize_config_dir has made, with a second folder to look in
            search_path = create_config_search_path(str(conf_folder()))
            search_path.append("config-dir", f"file://{folder}", SearchPathQuery("main", None))
            GlobalHydra.instance().clear()
            Hydra.create_main_hydra2("lwbench", search_path)
        yield


def composed_values(verb: str, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The resolved configuration, and the option chosen in each group. Needs `hydra_ready`."""
    from omegaconf import OmegaConf, open_dict

    _refuse_hydra_keys(overrides)
    texts, others = text_values(overrides)
    try:
        config = _composed_by_hydra(verb, others)
        choices = {str(k): v for k, v in config.hydra.runtime.choices.items()}
        with open_dict(config):
            del config["hydra"]
        raw = cast(Plain, OmegaConf.to_container(config, resolve=False))
        plain = cast(Plain, OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    except Exception as error:  # Hydra raises AssertionError and RecursionError too; the overrides
        raise explained(verb, others, error) from None  # are the cause of all of them
    _remove_ours(plain, overrides)
    for key, value in texts.items():
        _set(plain, key, value)
    _name_data(plain)
    _check_complete(verb, plain)
    _check_effect(raw, overrides)
    return plain, {k: str(v) for k, v in choices.items() if k in GROUPS and v is not None}


def _composed_by_hydra(verb: str, overrides: Sequence[str]) -> Any:
    """Hydra's configuration, with networks that have no YAML file or not all keys in it.

    These are networks of installed packages and in files of the user's.
    """
    from hydra import compose
    from hydra.core.config_store import ConfigStore

    for override in overrides:
        key, _, name = override.partition("=")
        if key == "model" and name not in conf_files("model") and name in MODELS.installed():
            ConfigStore.instance().store(group="model", name=name, node={"builder": name})

    try:
        return compose(verb, list(overrides), return_hydra_config=True)
    except Exception:
        others = [o for o in overrides if not o.startswith("model.")]
        if len(others) == len(overrides):
            raise
        config = compose(verb, others)
        builder = config.model.get("builder") if "model" in config else None
        if builder not in ("file", *MODELS.installed()):
            raise
    added = [f"++{o}" if o.startswith("model.") else o for o in overrides]
    return compose(verb, added, return_hydra_config=True)


def _set(config: dict[str, Any], key: str, value: str | None) -> None:
    group, _, name = key.rpartition(".")
    target = config.get(group) if group else config
    if not isinstance(target, dict) or name not in target:
        raise UsageError(f"unknown key {key!r}{nearest(key, dotted(config))}")
    target[name] = value


def _name_data(config: dict[str, Any]) -> None:
    """A folder of the user's images is named after the last part of its path."""
    data = config.get("data")
    if isinstance(data, dict) and {"root", "name"} <= data.keys() and data["name"] is None:
        root = data["root"]
        data["name"] = set_name(str(root)) if root else None


def _remove_ours(config: dict[str, Any], overrides: Sequence[str]) -> None:
    """Remove `ours`, which documents the configuration files and is read by tables.recipe."""
    for override in overrides:
        if (key := override_key(override)) in ("ours", "data.ours"):
            raise UsageError(f"{key} describes a configuration file and cannot be set")
    for holder in (config, config.get("data")):
        if isinstance(holder, dict):
            holder.pop("ours", None)


def _refuse_hydra_keys(overrides: Sequence[str]) -> None:
    for override in overrides:
        key = override_key(override)
        if key == "hydra" or key.startswith(("hydra.", "hydra/")):
            raise UsageError(
                f"{key} has no effect: lwbench composes configurations with Hydra and starts runs "
                "itself\nruns are written to out=<folder>; jobs=<n> sets how many run at once"
            )


def _check_complete(verb: str, config: dict[str, Any]) -> None:
    """Raises UsageError where an override deleted a key (`~lr`) that the command needs."""
    import yaml

    own = yaml.safe_load((conf_folder() / f"{verb}.yaml").read_text(encoding="utf-8"))
    groups = {next(iter(one)) for one in own.pop("defaults") if isinstance(one, dict)}
    # the teacher's network is optional, as an experiment is
    groups = {group for group in groups if "@" not in group} - {"experiment"}
    for key in [*own, *sorted(groups)]:
        if key not in config:
            raise UsageError(f"{key} is needed and cannot be removed")


def _check_effect(raw: dict[str, Any], overrides: Sequence[str]) -> None:
    """Raises UsageError for a recipe key that no other key refers to under the chosen options."""
    keys = [override_key(override) for override in overrides]
    typed = [key for key in keys if key.startswith("data.recipe.")]
    if not typed:
        return
    values = [value for value in _leaves(raw) if isinstance(value, str)]
    for key in typed:
        if not any(f"${{{key}}}" in value for value in values):
            name = key.rpartition(".")[2]
            others = [k for k in dotted(raw) if (k.endswith(f".{name}") and k != key) or k == name]
            hint = f"; set {' or '.join(others)}" if others else ""
            raise UsageError(f"{key} has no effect with the chosen options{hint}")


def _leaves(config: Mapping[str, Any]) -> Iterator[Any]:
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield value
