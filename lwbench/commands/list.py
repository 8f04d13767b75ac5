"""List models, data sets, optimizers, schedulers and experiments."""

from pathlib import Path

from ..errors import UsageError, nearest
from ..paths import conf_files
from ..registry import MODELS, package_of
from ._keys import GROUPS as TRAINING
from ._keys import Key

GROUPS = (*TRAINING, "launcher")
FLAGS: tuple[str, ...] = ()
KEYS = {group: Key(f"the options of the group {group}") for group in GROUPS}


def help() -> str:
    return (
        f"usage: lwbench list [{' | '.join(GROUPS)}]\n\n"
        "lwbench list model adds the parameters and MACs of each network at 224 px, 1000 classes"
    )


def run(arguments: list[str], flags: set[str]) -> int:
    """Print the options of the named groups, or of all. Raises UsageError for another word."""
    groups = [word.removesuffix("s") for word in arguments]
    if unknown := set(groups) - set(GROUPS):
        word = unknown.pop()
        raise UsageError(f"nothing to list under {word!r}{nearest(word, GROUPS)}")
    for group in groups or GROUPS:
        options = dict(sorted(conf_files(group).items()))
        width = max(map(len, options), default=0)
        figures = _figures(list(options)) if groups == ["model"] else {}
        print(f"{group}:" if options else f"{group}: none")
        for name, path in options.items():
            print(f"  {name:<{width}}  {figures.get(name, '')}{first_comment(path)}")
        for name, point in sorted(MODELS.installed().items() if group == "model" else ()):
            if name not in options:
                print(f"  {name:<{width}}  of the installed package {package_of(point)}")
    return 0


def _figures(models: list[str]) -> dict[str, str]:
    """Parameters and plain MACs of each model at 224 px with 1000 classes, as text."""
    from ..logs import metric
    from ..tables.cells import CountRequest
    from ._counting import cached_counts, counted

    requests = {
        name: CountRequest((f"model={name}",), 1000, 224)
        for name in models
        if name != "file"  # a file of the user's
    }
    counts = cached_counts(requests.values(), counted)
    return {
        name: f"{metric(c['params']):>9} params  {metric(c['macs']['plain']):>9} MACs  "
        for name, request in requests.items()
        if (c := counts.get(request))
    }


def first_comment(path: Path) -> str:
    """The first line of a configuration file, which says what it is."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith("# ") and "@package" not in line:
                return line[2:].strip()
    return ""
