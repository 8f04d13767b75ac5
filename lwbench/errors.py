"""Errors that are meant for the user.

One or two lines, and the exit code they end the command with.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class LwbenchError(Exception):
    """The run failed (exit code 1). The message: what is wrong, where, what would be right."""

    exit_code = 1


class UsageError(LwbenchError):
    """The command or its input is wrong (exit code 2)."""

    exit_code = 2


class DamagedError(UsageError):
    """A file is not what was once written (exit code 2)."""


class NonFiniteError(LwbenchError):
    """The training loss became NaN or infinite (exit code 1)."""


def shown(name: object) -> str:
    """A path or a name as it may stand in a message: in one line, control characters escaped."""
    text = str(name)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def nearest(word: str, words: Iterable[str], count: int = 3) -> str:
    """A hint such as "; nearest: lr, eta_min", or all words where few, or nothing."""
    words = sorted(set(words))
    found = get_close_matches(word, words, n=count, cutoff=0.5)
    if found:
        return f"; nearest: {', '.join(found)}"
    return f"; there is: {', '.join(words)}" if 0 < len(words) <= 12 else ""
