"""What all tests share: a cache of the session's own, and the tests that were collected."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

COLLECTED = pytest.StashKey[list[pytest.Item]]()
# results that another session may use: the names of their files say all that they depend on
KEPT = ("counts-*.json", "costs-*.json", "runs-*.json")


def pytest_configure(config):
    """Give the session a cache of its own, which its processes share, instead of the user's."""
    if hasattr(config, "workerinput"):  # workers have the environment of the first process
        return
    folder = Path(tempfile.mkdtemp(prefix="lwbench-tests-"))
    os.environ["XDG_CACHE_HOME"] = str(folder)
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    if hasattr(config, "cache"):  # else pytest keeps nothing
        kept = config.cache.mkdir("lwbench")
        _copy(kept, folder / "lwbench")
        config.add_cleanup(lambda: _copy(folder / "lwbench", kept))
    # dozens of processes would compile our modules again
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _copy(source, target):
    """Replace what is kept in `target`, which need not exist, by what `source` has of it."""
    target.mkdir(exist_ok=True)
    for pattern in KEPT:
        for path in target.glob(pattern):
            path.unlink(missing_ok=True)
        for path in source.glob(pattern):
            shutil.copy2(path, target)


@pytest.hookimpl(tryfirst=True)  # before -m and -k leave tests out
def pytest_collection_modifyitems(config, items):
    config.stash[COLLECTED] = list(items)


@pytest.fixture(scope="module")
def uncounted(tmp_path_factory):
    """A cache of the file's own, in which no network is counted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def threads():
    """`torch.set_num_threads`, undone afterwards."""
    import torch

    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
