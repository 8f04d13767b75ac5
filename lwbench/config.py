"""From overrides to configurations: Hydra's grammar in, plain dictionaries out.

The only file that imports hydra or omegaconf, and neither before it is needed.
"""

import itertools
import json
import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .commands.usage import GROUPS, PLAIN_KEYS, VERBS
from .errors import UsageError, nearest
from .paths import conf_folder

ComposedRun = tuple[dict[str, Any], dict[str, str]]  # configuration, choices in the groups
MOST_RUNS = 10_000  # of a sweep: range(1e9) is a slip


def composed_runs(requests: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], ComposedRun]:
    """The configuration and choices of every run (a tuple of overrides of `train`).

    Kept between commands, for one state of the configuration files. Raises UsageError for the first
    request that cannot be composed.
    """
    from .runs.cache import cached, digest

    def make(keys: list[str]) -> dict[str, ComposedRun]:
        with hydra():
            return {key: composed("train", json.loads(key)) for key in keys}

    requests = list(dict.fromkeys(requests))
    files = sorted(conf_folder().rglob("*.yaml"))
    name = f"runs-{digest(files, ('hydra-core', 'omegaconf', 'lwbench'))}"
    found = cached(name, map(json.dumps, requests), make)
    return {request: tuple(found[json.dumps(request)]) for request in requests}


@contextmanager
def hydra() -> Iterator[None]:
    """While it lasts, Hydra knows our configuration files."""
    from hydra import initialize_config_dir

    with initialize_config_dir(str(conf_folder()), job_name="lwbench", version_base="1.3"):
        _register_resolvers()
        yield


def _register_resolvers() -> None:
    from omegaconf import OmegaConf

    # the last part of a path: names a user's own image folder (conf/data/folder.yaml)
    OmegaConf.register_new_resolver(
        "basename", lambda p: os.path.basename(os.path.realpath(p)) if p else None, replace=True
    )


def composed(verb: str, overrides: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The resolved configuration, and the option chosen in each group.

    Raises UsageError for unknown keys, groups and options (with the nearest names), unreadable
    overrides, and values that are needed and missing.
    """
    from hydra import compose
    from omegaconf import OmegaConf, open_dict

    try:
        config = compose(verb, overrides, return_hydra_config=True)
        choices = dict(OmegaConf.to_container(config.hydra.runtime.choices))
        with open_dict(config):
            del config["hydra"]
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except Exception as error:  # Hydra asserts and recurses too; all of it comes from overrides
        raise _explained(verb, overrides, error) from None
    _check_nothing_is_gone(verb, plain)
    return plain, {k: str(v) for k, v in choices.items() if k in GROUPS and v is not None}


def _check_nothing_is_gone(verb: str, config: dict[str, Any]) -> None:
    import yaml

    own = yaml.safe_load((conf_folder() / f"{verb}.yaml").read_text(encoding="utf-8"))
    groups = {next(iter(one)) for one in own.pop("defaults") if isinstance(one, dict)}
    for key in [*own, *sorted(groups - {"experiment"})]:
        if key not in config:
            raise UsageError(f"{key} is needed and cannot be left out")


def _explained(verb: str, overrides: list[str], error: Exception) -> UsageError:
    """Hydra's and OmegaConf's errors in our words, with the nearest names."""
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    text = str(error)
    if isinstance(error, OverrideParseException):
        return UsageError(f"cannot read {error.override!r}; overrides are written key=value")
    if "Ambiguous value" in text:
        return UsageError(f"{text.splitlines()[0].rstrip(':')}: to sweep over values, add -m")
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.removesuffix(".yaml").rpartition("/")
        names = [path.stem for path in (conf_folder() / group).glob("*.yaml")]
        return UsageError(f"no {group} {option!r}{nearest(option, names)}")
    if isinstance(error, MissingMandatoryValue):
        return UsageError(f"{getattr(error, 'full_key', text)} is needed and not given")
    pattern = r"Could not (?:override|append to config|delete)[^']*'([^']+)'"
    if found := re.search(pattern, text):
        key = found[1]
        others = [o for o in overrides if o.split("=")[0].lstrip("+~") != key]
        return UsageError(f"unknown key {key!r}{nearest(key, _keys(verb, others))}")
    lines = [line for line in text.splitlines() if line.strip()]
    if isinstance(error, HydraException | OmegaConfBaseException) and lines:
        return UsageError("; ".join(line[:200] for line in lines[:2]))
    return UsageError(f"cannot read {shlex.join(overrides)}; overrides are written key=value")


def _keys(verb: str, overrides: list[str]) -> list[str]:
    """All keys that an override may name; the groups alone where other overrides are wrong too."""
    from hydra import compose
    from omegaconf import OmegaConf

    try:
        config = OmegaConf.to_container(compose(verb, overrides))
    except Exception:
        config = {}
    return [*GROUPS, *_dotted(config)]


def _dotted(config: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")


def _parsed(overrides: list[str], verb: str) -> list[Any]:
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    loader = GlobalHydra.instance().config_loader()
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides(overrides)
    except Exception as error:
        raise _explained(verb, overrides, error) from None


def expanded(overrides: list[str], verb: str = "train") -> list[list[str]]:
    """Every combination of the swept values, as Hydra's basic sweeper orders them."""
    axes = []
    for override in _parsed(overrides, verb):
        if override.is_sweep_override():
            key = override.get_key_element()
            values = itertools.islice(override.sweep_string_iterator(), MOST_RUNS + 1)
            axes.append([f"{key}={value}" for value in values])
        else:
            axes.append([override.input_line])
    if math.prod(map(len, axes)) > MOST_RUNS:
        raise UsageError(f"more than {MOST_RUNS:,} runs; -m takes every combination of the values")
    return [list(job) for job in itertools.product(*axes)]


def values(overrides: list[str]) -> dict[str, Any]:
    """Overrides as a mapping, typed as Hydra reads them. Raises UsageError."""
    return {o.get_key_element(): o.value() for o in _parsed(overrides, "eval")}


def complete(arguments: list[str]) -> int:
    """Shell completion: `eval "$(lwbench -sc install=bash)"`. Hydra's, which knows no verbs."""
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra

    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    verb, position = "train", 1 + (len(words) > 1 and words[1] == "-m")
    if any(a.startswith("query=") for a in arguments):
        is_new_word = line.endswith(" ") or not line
        if len(words) + is_new_word <= position + 1:
            print(" ".join(VERBS))
            return 0
        verb = words[position] if words[position] in VERBS else "train"
        if verb in PLAIN_KEYS:
            print(" ".join(PLAIN_KEYS[verb]))
            return 0
        # Hydra takes the first word behind the program for an override
        line = " ".join([words[0], *words[position + 1 :]]) + (" " if is_new_word else "")
        os.environ["COMP_LINE"], os.environ["COMP_POINT"] = line, str(len(line))
    search_path = create_config_search_path(str(conf_folder()))
    try:
        main = Hydra.create_main_hydra2("lwbench", search_path)
        main.shell_completion(verb, [a for a in arguments if "=" in a])
    finally:
        GlobalHydra.instance().clear()
    return 0
