"""Where things lie outside a run: configuration files, the user's data sets, the user's cache.

Configuration files are ours and, with `--config-dir <folder>`, also those of a folder of the
user's, which is laid out in the same way: `<group>/<name>.yaml`.
"""

import os
from pathlib import Path

_config_dir: Path | None = None  # the folder of --config-dir, for one command


def conf_folder() -> Path:
    """Our configuration files: inside the package once installed, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return next(folder for folder in (here / "conf", here.parent / "conf") if folder.is_dir())


def config_dir() -> Path | None:
    """The absolute folder of `--config-dir`, or None."""
    return _config_dir.absolute() if _config_dir else None


def config_dir_arguments() -> list[str]:
    """`--config-dir <folder>` as a command repeats it, or nothing."""
    return ["--config-dir", str(_config_dir)] if _config_dir else []


def conf_files(group: str) -> dict[str, Path]:
    """The YAML files of a group by name (`ldc3`, `ldc/4`), ours and those of `--config-dir`."""
    mine = yaml_files(_config_dir / group) if _config_dir else {}
    return yaml_files(conf_folder() / group) | mine


def use_config_dir(folder: Path | None) -> Path | None:
    """Set the folder of `--config-dir`; return what it was before."""
    global _config_dir
    before, _config_dir = _config_dir, folder
    return before


def yaml_files(folder: Path) -> dict[str, Path]:
    """The YAML files under a folder by name: `ldc/4` is ldc/4.yaml."""
    found = sorted(folder.rglob("*.yaml"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}


def data_home() -> Path:
    """The folder of downloaded data sets, one per user: $XDG_DATA_HOME or ~/.local/share."""
    return _xdg("XDG_DATA_HOME", ".local/share") / "lwbench"


def cache_home() -> Path:
    """The folder of what can be made anew, one per user: $XDG_CACHE_HOME or ~/.cache."""
    return _xdg("XDG_CACHE_HOME", ".cache") / "lwbench"


def _xdg(variable: str, default: str) -> Path:
    folder = os.environ.get(variable, "")
    if os.path.isabs(folder):  # the standard has relative paths ignored
        return Path(folder)
    home = os.path.expanduser("~")
    # the usual home of users that have none: nothing can be made there, and messages show it
    return Path(home if os.path.isabs(home) else "/nonexistent") / default


def set_name(root: str) -> str:
    """Return the name of the data set in `root`: of the folder, or of the file without ending."""
    # the real path, so that data.root=. has the name of the folder
    path = os.path.realpath(os.path.expanduser(root))
    name = os.path.basename(path)
    return os.path.splitext(name)[0] if os.path.isfile(path) else name
