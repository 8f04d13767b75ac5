"""Which tests run in the quick suite; as a pytest plugin, it writes them to the file $COLLECTED."""

import json
import os
from pathlib import Path

from _pytest.skipping import evaluate_skip_marks, evaluate_xfail_marks


def collected_tests(items):
    """The name of each collected test -> whether a case of it runs in the quick suite."""
    found = {}
    for item in items:
        name = f"{item.path.name}::{getattr(item, 'originalname', item.name)}"
        runs = not evaluate_skip_marks(item) and not evaluate_xfail_marks(item)
        slow = item.get_closest_marker("slow") or item.get_closest_marker("gpu")
        found[name] = found.get(name, False) or bool(runs and not slow)
    return found


def pytest_collection_modifyitems(items):
    Path(os.environ["COLLECTED"]).write_text(json.dumps(collected_tests(items)))
