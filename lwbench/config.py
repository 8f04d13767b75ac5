"""Command-line overrides to configurations: the only module that knows Hydra and OmegaConf.

`train_config` and `train_configs` return validated `RunConfig`s, `command_values` the resolved keys
of another command. Hydra's grammar (`key=value`) holds for every key except those in `TEXT_KEYS`,
whose values are paths and names and are taken as they are typed. Hydra is imported on first use.
"""

import itertools
import json
import math
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

from .errors import UsageError, nearest
from .paths import conf_files, conf_folder, config_dir, set_name
from .registry import DATASETS, MODELS, OPTIMIZERS, SCHEDULERS, Spec
from .runs import network_file
from .runs.cache import cached, digest
from .runs.processes import with_images_per_process
from .runs.runconfig import Overrides, RunConfig, override_key
from .runs.teacher import with_teacher
from .runs.weights_id import with_weights_id

GROUPS = ("model", "data", "optimizer", "scheduler", "experiment")
# Keys that hold paths and names: their values are text as typed, whatever characters are in it.
# One enclosing pair of quotes is removed, `null` is no value, and a leading `~` is expanded.
TEXT_KEYS = (
    "data.root", "data.cache", "data.name", "model.path", "out", "run", "teacher",
    "weights", "predictions", "reference", "import",
)  # fmt: skip
MAX_RUNS = 10_000  # of one sweep; range(1e9) is a slip
Plain = dict[str, Any]


class Specs(NamedTuple):
    """The groups of a configuration, checked against the signatures of their builders."""

    model: Spec
    data: Spec
    optimizer: Spec
    scheduler: Spec


class Range(NamedTuple):
    """What a search may choose for a key: texts of `choices`, or a number within `bounds`."""

    choices: tuple[str, ...] = ()
    bounds: tuple[float, float] = (0, 0)
    is_log: bool = False


def train_config(overrides: Sequence[str]) -> RunConfig:
    """The configuration that `lwbench train <overrides>` runs with.

    Raises UsageError for unknown keys, groups and options (with the nearest names), unreadable
    overrides, values that are missing or out of range, and keys that have no effect.
    """
    if config := RunConfig.from_environment():
        return config
    with _hydra():
        return _run_config(overrides, *_composed("train", overrides))


def train_configs(requests: Iterable[Overrides]) -> dict[Overrides, RunConfig]:
    """`train_config` of many overrides, composed once per state of the configuration files.

    Requests that differ in `seed` and `out` alone are composed once. Results are cached on disk.
    Raises UsageError for the first request that cannot be composed.
    """
    divided = {request: _divided(request) for request in requests}
    by_key = {_cache_key(base): base for base, _ in divided.values()}

    def make(keys: list[str]) -> dict[str, tuple[dict[str, Any], dict[str, str]]]:
        with _hydra():
            return {key: _composed("train", by_key[key]) for key in keys}

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
            changes[key] = _text(value)
        else:
            base.append(override)
    return tuple(base), changes


def command_values(
    verb: str, jobs: Sequence[Sequence[str]]
) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """The resolved keys of `conf/<verb>.yaml` and the chosen options, for each list of overrides.

    Raises UsageError as `train_config` does.
    """
    with _hydra():
        composed = (_composed(verb, job) for job in jobs)
        return [(_completed(values), choices) for values, choices in composed]


def specs(config: RunConfig) -> Specs:
    """The builders of all four groups with their validated arguments; imports torch.

    Raises UsageError for an unknown builder, and for arguments that its signature does not take.
    """
    return Specs(
        MODELS.spec(config.model.spec),
        DATASETS.spec(config.data.spec),
        OPTIMIZERS.spec(config.optimizer.spec),
        SCHEDULERS.spec(config.scheduler.spec),
    )


def expanded(overrides: Sequence[str], verb: str = "train") -> list[Overrides]:
    """Every combination of the swept values, in the order of Hydra's basic sweeper.

    `jobs=` concerns the sweep and is in none of them. Raises UsageError.
    """
    axes: list[list[str]] = []
    with _hydra():
        for override in overrides:
            key = override_key(override)
            if key == "jobs" and verb == "train":
                continue
            if key in TEXT_KEYS and "=" in override:
                values: Iterable[str] = _split(override.partition("=")[2])
            else:
                (parsed,) = _parsed(verb, [override])
                if not parsed.is_sweep_override():
                    axes.append([override])
                    continue
                key = parsed.get_key_element()
                values = itertools.islice(parsed.sweep_string_iterator(), MAX_RUNS + 1)
                if key == "model" and "glob(" in override:
                    values = [value for value in values if value != "file"]  # needs a path
            axes.append([f"{key}={value}" for value in values])
    if math.prod(map(len, axes)) > MAX_RUNS:
        raise UsageError(f"more than {MAX_RUNS:,} runs; -m takes every combination of the values")
    return list(itertools.product(*axes))


def search_space(overrides: Sequence[str]) -> tuple[list[str], dict[str, Range]]:
    """The overrides with one value, and the ranges of the others: `interval()`, `choice()`, lists.

    `tag(log, interval(1e-4, 1))` is searched by orders of magnitude. Raises UsageError.
    """
    fixed: list[str] = []
    ranges: dict[str, Range] = {}
    with _hydra():
        for override in overrides:
            if override_key(override) in TEXT_KEYS:
                fixed.append(override)
                continue
            (parsed,) = _parsed("train", [override])
            key = parsed.get_key_element()
            if parsed.is_interval_sweep():
                interval = parsed.value()
                bounds = interval.start, interval.end
                # Hydra makes them floats; as written, 1 and 4 mean whole numbers
                if re.search(r"interval\(\s*-?\d+\s*,\s*-?\d+\s*\)", override):
                    bounds = int(interval.start), int(interval.end)
                ranges[key] = Range(bounds=bounds, is_log="log" in interval.tags)
            elif parsed.is_sweep_override():
                values = itertools.islice(parsed.sweep_string_iterator(), MAX_RUNS)
                ranges[key] = Range(choices=tuple(values))
            else:
                fixed.append(override)
    return fixed, ranges


def typed_values(overrides: Sequence[str], verb: str) -> dict[str, Any]:
    """Overrides as a mapping, with values typed as Hydra reads them. Raises UsageError."""
    texts, others = _text_values(overrides)
    with _hydra():
        parsed = _parsed(verb, others)
    return {o.get_key_element(): o.value() for o in parsed} | texts


def train_keys() -> list[str]:
    """The keys at the top level of train.yaml; read without Hydra."""
    lines = (conf_folder() / "train.yaml").read_text(encoding="utf-8").splitlines()
    return [line.partition(":")[0] for line in lines if re.match(r"\w+:", line)]


def complete(
    arguments: Sequence[str], verbs: Sequence[str], plain_keys: Callable[[str], Sequence[str]]
) -> int:
    """Shell completion: `eval "$(lwbench -sc install=bash)"`.

    Hydra completes keys and options; it has no notion of verbs, so the verb is removed from the
    line that it sees. `plain_keys(verb)`: what is offered behind a verb that does not use Hydra,
    nothing for the other verbs.
    """
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra

    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    verb, position = "train", 1 + (len(words) > 1 and words[1] == "-m")
    if any(a.startswith("query=") for a in arguments):
        is_new_word = line.endswith(" ") or not line
        if len(words) + is_new_word <= position + 1:
            print(" ".join(verbs))
            return 0
        verb = words[position] if words[position] in verbs else "train"
        if offered := plain_keys(verb):
            print(" ".join(offered))
            return 0
        line = " ".join([words[0], *words[position + 1 :]]) + (" " if is_new_word else "")
        os.environ["COMP_LINE"], os.environ["COMP_POINT"] = line, str(len(line))
    search_path = create_config_search_path(str(conf_folder()))
    try:
        main = Hydra.create_main_hydra2("lwbench", search_path)
        main.shell_completion(verb, [a for a in arguments if "=" in a])
    finally:
        GlobalHydra.instance().clear()
    return 0


# composing


@contextmanager
def _hydra() -> Iterator[None]:
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


def _composed(verb: str, overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The resolved configuration, and the option chosen in each group. Needs `_hydra`."""
    from omegaconf import OmegaConf, open_dict

    _refuse_hydra_keys(overrides)
    texts, others = _text_values(overrides)
    try:
        config = _composed_by_hydra(verb, others)
        choices = {str(k): v for k, v in config.hydra.runtime.choices.items()}
        with open_dict(config):
            del config["hydra"]
        raw = cast(Plain, OmegaConf.to_container(config, resolve=False))
        plain = cast(Plain, OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    except Exception as error:  # Hydra raises AssertionError and RecursionError too; the overrides
        raise _explained(verb, others, error) from None  # are the cause of all of them
    _remove_ours(plain, overrides)
    for key, value in texts.items():
        _set(plain, key, value)
    _name_data(plain)
    _check_complete(verb, plain)
    _check_effect(raw, overrides)
    return plain, {k: str(v) for k, v in choices.items() if k in GROUPS and v is not None}


def _run_config(
    overrides: Sequence[str], values: Mapping[str, Any], choices: Mapping[str, str]
) -> RunConfig:
    config = RunConfig.of(
        with_images_per_process(with_teacher(with_weights_id(_completed(values)))), choices
    )
    config.check_effect(overrides)
    return config


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


def _completed(values: Mapping[str, Any]) -> Plain:
    """With what the source of a network in a file of the user's says of its arguments."""
    model = values.get("model")
    if isinstance(model, dict) and model.get("builder") == "file":
        return {**values, "model": network_file.completed(model)}
    return dict(values)


def _set(config: dict[str, Any], key: str, value: str | None) -> None:
    group, _, name = key.rpartition(".")
    target = config.get(group) if group else config
    if not isinstance(target, dict) or name not in target:
        raise UsageError(f"unknown key {key!r}{nearest(key, _dotted(config))}")
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
            others = [k for k in _dotted(raw) if (k.endswith(f".{name}") and k != key) or k == name]
            hint = f"; set {' or '.join(others)}" if others else ""
            raise UsageError(f"{key} has no effect with the chosen options{hint}")


def _leaves(config: Mapping[str, Any]) -> Iterator[Any]:
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield value


# text values


def _text_values(overrides: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """The values of TEXT_KEYS, and the overrides of all other keys."""
    texts: dict[str, str | None] = {}
    others = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if equals and key.lstrip("+") in TEXT_KEYS:
            texts[key.lstrip("+")] = _text(value)
        else:
            others.append(override)
    return texts, others


def _text(value: str) -> str | None:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return os.path.expanduser(value[1:-1])
    return None if value == "null" else os.path.expanduser(value)


def _split(value: str) -> list[str]:
    """A swept text value at its commas; commas between quotes are part of the text."""
    pattern = r"""(?:"[^"]*"|'[^']*'|[^,])+"""
    return re.findall(pattern, value) or [value]


def _cache_key(request: Overrides) -> str:
    """The request, and where a relative data.root leads: it names a user's data set."""
    roots = (r.partition("=")[2] for r in request if override_key(r) == "data.root")
    return json.dumps([*request, *(os.path.realpath(_text(root) or "") for root in roots)])


# errors


def _parsed(verb: str, overrides: Sequence[str]) -> list[Any]:
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    loader = GlobalHydra.instance().config_loader()
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    except Exception as error:
        raise _explained(verb, overrides, error) from None


def _explained(verb: str, overrides: Sequence[str], error: Exception) -> UsageError:
    """Hydra's and OmegaConf's errors in plain words, with the nearest names."""
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    text = str(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    if "Ambiguous value" in text:
        return UsageError(f"{text.splitlines()[0].rstrip(':')}: to sweep over values, add -m")
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.removesuffix(".yaml").rpartition("/")
        return UsageError(f"no {group} {option!r}{nearest(option, conf_files(group))}")
    if isinstance(error, MissingMandatoryValue):
        return UsageError(f"{getattr(error, 'full_key', text)} is needed and not given")
    pattern = r"Could not (?:override|append to config|delete)[^']*'([^']+)'"
    if found := re.search(pattern, text):
        key = found[1]
        others = [o for o in overrides if override_key(o) != key]
        return UsageError(f"unknown key {key!r}{nearest(key, _known_keys(verb, others))}")
    lines = [line for line in text.splitlines() if line.strip()]
    if isinstance(error, HydraException | OmegaConfBaseException) and lines:
        return UsageError("; ".join(line[:200] for line in lines[:2]))
    return _unreadable(shlex.join(overrides))


def _unreadable(override: str) -> UsageError:
    hint = "overrides are written key=value"
    if "=" in override and override.isprintable():
        key, _, value = override.partition("=")
        quoted = shlex.quote(f'{key}="{value}"')
        hint += f"; a value with special characters is quoted: {quoted}"
    return UsageError(f"cannot read {override!r}; {hint}")


def _known_keys(verb: str, overrides: Sequence[str]) -> list[str]:
    """All keys that an override may set; the groups alone where other overrides are wrong too."""
    from hydra import compose
    from omegaconf import OmegaConf

    try:
        config = OmegaConf.to_container(compose(verb, list(overrides)))
    except Exception:
        config = {}
    return [*GROUPS, *(_dotted(config) if isinstance(config, dict) else ())]


def _dotted(config: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
