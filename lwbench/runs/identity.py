"""Which keys of a configuration can change the result, and so are part of a run's identity."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

# Keys that cannot change the result, or that stand beside the identity in the directory's name
# (the seed). `data.recipe` only holds defaults that other keys refer to. Which network `teacher`
# is, wherever it lies, is in `distillation.network`; which weights `weights` are, in `weights_id`.
NOT_IDENTIFYING = {
    "seed", "device", "workers", "threads", "jobs", "out", "force", "extend", "checkpoint",
    "evaluate_train", "data.root", "data.cache", "data.recipe", "model.path", "teacher",
    "weights",
}  # fmt: skip
# Keys that always enter the identity. Every other key is left out while it has a value that means
# "switched off", so that a key added by a later version leaves existing runs valid.
ALWAYS_IDENTIFYING = {"lr", "epochs", "batch_size", "momentum", "weight_decay", "dropout"}
OFF = (None, False, 0, "none", "raise")
OFF_AT_ONE = {"accumulate", "eval_every"}
# Keys that have no effect while another one is switched off
NEEDS = {
    "distillation": "teacher",
    "images_per_process": "local_batchnorm",
    "data.augment.crop_ratio": "data.augment.crop_scale",
    "data.augment.rand_magnitude": "data.augment.rand_augment",
}


def identifying_keys(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dotted keys of `flat` that can change the result and are not switched off."""
    return {
        key: _plain(value)
        for key, value in flat.items()
        if is_identifying(key)
        and (key.rpartition(".")[2] in ALWAYS_IDENTIFYING or not _is_off(key, value))
        and lacked_by(key, flat) is None
    }


@lru_cache(maxsize=4096)  # asked of each key of every planned run
def is_identifying(key: str) -> bool:
    """Whether a dotted key can change the result."""
    return not any(_is_within(key, name) for name in NOT_IDENTIFYING)


def lacked_by(key: str, flat: Mapping[str, Any]) -> str | None:
    """Return the key that `key` needs for an effect and that is switched off; else None."""
    for name, needed in NEEDS.items():
        if _is_within(key, name) and _is_off(needed, flat.get(needed)):
            return needed
    return None


def _is_within(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.")


def _is_off(key: str, value: Any) -> bool:
    return value in OFF or value == [] or (key in OFF_AT_ONE and value == 1)


def _plain(value: Any) -> Any:
    """1.0 and 1 are the same value."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    is_whole = isinstance(value, float) and value.is_integer()
    return int(value) if is_whole else value
