"""Count a network's parameters and MACs under each rule; -m for several networks."""

from ..config import command_values, expanded
from ._keys import Key, help_of_groups

FLAGS = ("-m",)
KEYS: dict[str, Key] = {}


def help() -> str:
    return help_of_groups("profile", "[-m] ")


def run(arguments: list[str], flags: set[str]) -> int:
    """Print what one network costs, or a row per network with -m."""
    jobs = expanded(arguments, "profile") if "-m" in flags else [tuple(arguments)]
    found = command_values("profile", jobs)
    from ..measure.profile import profile, show

    profiles = [profile(values, choices["model"]) for values, choices in found]
    show(profiles, found[0][0]["format"])
    return 0
