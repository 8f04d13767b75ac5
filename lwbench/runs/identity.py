"""Which keys of a configuration can change the result, and the hash of them that names a run."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Keys that cannot change the result, or that stand beside the hash (the seed).
_NOT_IDENTITY = {
    "seed", "device", "workers", "jobs", "out", "force", "extend", "checkpoint", "data.root",
    "data.cache", "data.recipe",
}  # fmt: skip
# Keys that always count, whatever their value; any other is left out while it is switched off, so
# that a later version's new key leaves the runs of today valid.
_ALWAYS = {"lr", "epochs", "batch_size", "momentum", "weight_decay", "dropout"}


def identity(config: Mapping[str, Any]) -> str:
    """A short hash of the resolved keys that can change the result."""
    text = json.dumps(identifying(config), sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def identifying(config: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved keys that can change the result, dotted; what is switched off is left out."""
    return {
        key: _plain(value)
        for key, value in flat(config)
        if is_identifying(key) and (key.rsplit(".", 1)[-1] in _ALWAYS or not _is_off(value))
    }


def is_identifying(key: str) -> bool:
    """Whether a dotted key can change the result."""
    return not any(key == k or key.startswith(k + ".") for k in _NOT_IDENTITY)


def flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted keys and their values, in the order of the configuration."""
    pairs = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            pairs += flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs


def _is_off(value: Any) -> bool:
    return value in (None, False, 0, "none", "raise") or value == []


def _plain(value: Any) -> Any:
    """1.0 and 1 are one value."""
    is_whole = isinstance(value, float) and value.is_integer()
    return int(value) if is_whole else value
