"""Keys and help of the commands."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import UsageError, nearest
from ..paths import conf_files, conf_folder

GROUPS = ("model", "data", "optimizer", "scheduler", "experiment")
YES_NO = ("true", "false")
NO_YES = ("false", "true")


class Key(NamedTuple):
    """A key that a command reads itself: its help, and the words it takes, the default first."""

    text: str
    words: tuple[str, ...] = ()


# what several commands take
_SHARED = {
    "rows": Key("labels, separated by commas"),
    "columns": Key("keys, data sets or kinds, separated by commas"),
    "baseline": Key("label of the row that the others are compared with"),
    "select": Key(
        "the epoch of accuracies; best on the test images is optimistic", ("final", "best")
    ),
    "jobs": Key("runs at once; they share cores and GPUs"),
    "format": Key("output format", ("terminal", "markdown", "latex", "html", "csv", "json")),
    "out": Key("the folder of runs (outputs)"),
    "archived": Key("whether archived runs under <out>/measured count", YES_NO),
    "trust_code": Key("run the code of network files that the tables name", NO_YES),
}


def shared(*names: str) -> dict[str, Key]:
    """Keys that several commands take."""
    return {name: _SHARED[name] for name in names}


def parsed(arguments: Sequence[str], keys: Mapping[str, Key]) -> dict[str, str]:
    """The values of `key=value` arguments, with the defaults of keys that take certain words.

    Raises UsageError for an unknown key, and for a word that a key does not take.
    """
    values = {name: key.words[0] for name, key in keys.items() if key.words}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals:
            raise UsageError(f"cannot read {argument!r}; arguments are written key=value")
        if name not in keys:
            raise UsageError(f"unknown key {name!r}{nearest(name, keys)}")
        words = keys[name].words
        if words and value not in words:
            raise UsageError(f"{name}={value}: expected {' or '.join(words)}")
        values[name] = value
    return values


def own_and_training(
    arguments: Sequence[str], keys: Mapping[str, Key]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """A command's own keys, and the overrides for every training run behind its cells.

    Raises UsageError for a key that is neither, or that rows and columns of a table determine.
    """
    from ..config import override_key, train_keys

    mine = [a for a in arguments if a.partition("=")[0] in keys or "=" not in a]
    overrides = tuple(a for a in arguments if a not in mine)
    for override in overrides:
        key = override_key(override)
        if key in ("seed", "model", "data", "force"):
            raise UsageError(
                f"{override}: the table's rows and columns determine it; choose with rows=, "
                "columns=, seeds="
            )
        known = {*keys, *GROUPS, *train_keys()}
        if "." not in key and not override.startswith("+") and key not in known:
            raise UsageError(f"unknown key {key!r}{nearest(key, known)}")
    return parsed(mine, keys), overrides


def help_of_keys(usage: str, text: str, keys: Mapping[str, Key]) -> str:
    """Help of a command that reads its keys itself."""
    width = max(map(len, keys)) + 2
    lines = [
        f"  {name:<{width}}{key.text}{_words(key)}".replace("\n", "\n" + " " * (width + 2))
        for name, key in keys.items()
    ]
    return "\n".join([f"usage: {usage}", "", text, "", *lines])


def help_of_groups(verb: str, flags: str = "") -> str:
    """Help of a command whose keys are those of `conf/<verb>.yaml`: the commented file."""
    content = (conf_folder() / f"{verb}.yaml").read_text(encoding="utf-8")
    lines = [f"usage: lwbench {verb} {flags}[key=value ...]", "", content]
    for group in GROUPS:
        names = sorted(conf_files(group))
        if names and f"- {group}:" in content:
            lines.append(f"{group}: {' '.join(names)}")
    return "\n".join(lines)


def _words(key: Key) -> str:
    return f" [{' | '.join(key.words)}; default {key.words[0]}]" if key.words else ""
