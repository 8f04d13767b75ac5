"""Overrides as they are typed: text values, Hydra's parser, and its errors in plain words."""

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import UsageError, nearest
from ..paths import conf_files
from ..runs.runconfig import override_key

GROUPS = ("model", "data", "optimizer", "scheduler", "experiment")
# Keys that hold paths and names: their values are text as typed, whatever characters are in it.
# One enclosing pair of quotes is removed, `null` is no value, and a leading `~` is expanded.
TEXT_KEYS = (
    "data.root", "data.cache", "data.name", "model.path", "out", "run", "teacher",
    "weights", "predictions", "reference", "import",
)  # fmt: skip


def text_values(overrides: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """The values of TEXT_KEYS, and the overrides of all other keys."""
    texts: dict[str, str | None] = {}
    others = []
    for override in overrides:
        key, equals, value = override.partition("=")
        if equals and key.lstrip("+") in TEXT_KEYS:
            texts[key.lstrip("+")] = text_of(value)
        else:
            others.append(override)
    return texts, others


def text_of(value: str) -> str | None:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return os.path.expanduser(value[1:-1])
    return None if value == "null" else os.path.expanduser(value)


def split_text(value: str) -> list[str]:
    """A swept text value at its commas; commas between quotes are part of the text."""
    pattern = r"""(?:"[^"]*"|'[^']*'|[^,])+"""
    return re.findall(pattern, value) or [value]


def parsed_overrides(verb: str, overrides: Sequence[str]) -> list[Any]:
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    loader = GlobalHydra.instance().config_loader()
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    except Exception as error:
        raise explained(verb, overrides, error) from None


def explained(verb: str, overrides: Sequence[str], error: Exception) -> UsageError:
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
        config = compose(verb, list(overrides), return_hydra_config=True)
        groups = [group for group in GROUPS if group in config.hydra.runtime.choices]
        keys = [str(key) for key in config if key != "hydra"]
        known = OmegaConf.to_container(OmegaConf.masked_copy(config, keys))
    except Exception:
        return list(GROUPS)
    return [*groups, *(dotted(known) if isinstance(known, dict) else ())]


def dotted(config: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{key}.")
