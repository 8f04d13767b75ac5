"""Errors that are shown to the user: one or two lines, and the exit code of the command."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


class LwbenchError(Exception):
    """The run failed (exit code 1). The message: what is wrong, where, what would be right."""

    exit_code = 1


class UsageError(LwbenchError):
    """The command or its input is wrong (exit code 2)."""

    exit_code = 2


class DamagedError(UsageError):
    """A file is not what was once written (exit code 2)."""


class CodeError(UsageError):
    """The code of a user's network failed (exit code 2); the message has its file and line."""


class NonFiniteError(LwbenchError):
    """The training loss became NaN or infinite (exit code 1)."""


class PeerLostError(LwbenchError):
    """Another process of a training on several devices has died (exit code 1)."""


def user_place(error: BaseException) -> str:
    """`my_net.py:12`, the innermost line of a network's file that an exception passed, or ""."""
    place = ""
    step = error.__traceback__
    while step is not None:
        if "__network_file__" in step.tb_frame.f_globals:
            place = f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}"
        step = step.tb_next
    return place


def shown(name: object) -> str:
    """A path or a name as it may stand in a message: in one line, control characters escaped."""
    text = str(name)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plural(count: int, noun: str) -> str:
    """A number and what is counted: "1 run", "2 runs", "1,797 images"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def nearest(word: str, words: Iterable[str], count: int = 3) -> str:
    """A hint such as "; nearest: lr, eta_min", or all words where few, or nothing."""
    words = sorted(set(words))
    found = get_close_matches(word, words, n=count, cutoff=0.5)
    if found:
        return f"; nearest: {', '.join(found)}"
    return f"; there is: {', '.join(words)}" if 0 < len(words) <= 12 else ""


def explained(problems: Sequence[Any], fields: Iterable[str], where: str = "") -> UsageError:
    """A validation error of pydantic's as one of ours, naming each wrong key as `where.key`.

    `problems`: the error's `errors()`, of which the first two are shown; `fields`: the known keys.
    """
    return UsageError("\n".join(_explained(problem, fields, where) for problem in problems[:2]))


def _explained(problem: Any, fields: Iterable[str], where: str) -> str:
    is_file = "/" in where
    location = [str(part) for part in problem["loc"]]
    key = ".".join(([where] if where and not is_file else []) + location)
    prefix = f"{where}: " if is_file else ""
    if problem["type"] == "extra_forbidden":
        return f"{prefix}unknown key {key!r}{nearest(location[-1], fields)}"
    if problem["type"] == "missing":
        return f"{prefix}{key} is needed and not given"
    text = problem["msg"].removeprefix("Value error, ")
    reason = text[0].lower() + text[1:]
    return f"{prefix}{key}={problem['input']!r}: {reason}"
