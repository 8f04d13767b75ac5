"""The flag `--config-dir <folder>` of every command: configuration files of the user's."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import UsageError
from ..paths import conf_folder, use_config_dir, yaml_files

FLAG = "--config-dir"


def without_config_dir(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    """The arguments without `--config-dir <folder>`, and the folder. Raises UsageError."""
    rest: list[str] = []
    folder = None
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name != FLAG:
            rest.append(word)
            continue
        value = value if equals else next(words, "")
        if not value or folder is not None:
            raise UsageError(f"{FLAG} takes one folder: {FLAG} <folder>")
        folder = Path(value).expanduser()
    return rest, folder


@contextmanager
def using_config_dir(folder: Path | None) -> Iterator[None]:
    """Add a folder of configuration files for the duration of the block; None adds nothing.

    Raises UsageError where it is no such folder, or where a file has the name of one of ours, which
    would make a command mean two things.
    """
    if folder is not None:
        _check(folder)
    before = use_config_dir(folder)
    try:
        yield
    finally:
        use_config_dir(before)


def _check(folder: Path) -> None:
    if not folder.is_dir():
        raise UsageError(f"{FLAG} {folder}: no such folder")
    groups = sorted(path.name for path in conf_folder().iterdir() if path.is_dir())
    if not any((folder / group).is_dir() for group in groups):
        raise UsageError(
            f"{FLAG} {folder}: it has none of the folders {', '.join(groups)}; the file of a "
            "network, for example, is model/<name>.yaml in it"
        )
    at_the_top = {path.name: path for path in folder.glob("*.yaml")}
    taken = [path for name, path in at_the_top.items() if (conf_folder() / name).exists()]
    for group in groups:
        ours = yaml_files(conf_folder() / group)
        taken += [path for name, path in yaml_files(folder / group).items() if name in ours]
    if taken:
        raise UsageError(f"{taken[0]}: lwbench has a file of this name; choose another name")
