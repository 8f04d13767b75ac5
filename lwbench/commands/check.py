"""Look at every image of a data set: bad files, duplicates, class balance."""

from ..config import command_values
from ._keys import Key, help_of_groups

FLAGS: tuple[str, ...] = ()
KEYS: dict[str, Key] = {}


def help() -> str:
    return help_of_groups("check")


def run(arguments: list[str], flags: set[str]) -> int:
    """Decode a whole data set; 1 if something is wrong with it."""
    ((values, _),) = command_values("check", [arguments])
    from ..data.check import check

    return check(values)
