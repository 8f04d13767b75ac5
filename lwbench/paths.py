"""Where things lie outside a run: configuration files, the user's data sets, the user's cache."""

import os
from pathlib import Path


def conf_folder() -> Path:
    """The configuration files: inside the package once installed, beside it in a checkout."""
    here = Path(__file__).resolve().parent
    return next(folder for folder in (here / "conf", here.parent / "conf") if folder.is_dir())


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
