"""Sweeps: every combination of the values of a command line, and the ranges of a search."""

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..errors import UsageError
from ..runs.runconfig import Overrides, override_key
from .composing import hydra_ready
from .overrides import TEXT_KEYS, parsed_overrides, split_text

MAX_RUNS = 10_000  # of one sweep; range(1e9) is a slip


class Range(NamedTuple):
    """What a search may choose for a key: texts of `choices`, or a number within `bounds`."""

    choices: tuple[str, ...] = ()
    bounds: tuple[float, float] = (0, 0)
    is_log: bool = False


def expanded(overrides: Sequence[str], verb: str = "train") -> list[Overrides]:
    """Every combination of the swept values, in the order of Hydra's basic sweeper.

    `jobs=` concerns the sweep and is in none of them. Raises UsageError.
    """
    axes: list[list[str]] = []
    with hydra_ready():
        for override in overrides:
            key = override_key(override)
            if key == "jobs" and verb == "train":
                continue
            if key in TEXT_KEYS and "=" in override:
                values: Iterable[str] = split_text(override.partition("=")[2])
            else:
                (parsed,) = parsed_overrides(verb, [override])
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
    with hydra_ready():
        for override in overrides:
            if override_key(override) in TEXT_KEYS:
                fixed.append(override)
                continue
            (parsed,) = parsed_overrides("train", [override])
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
