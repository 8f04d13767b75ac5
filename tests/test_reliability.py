"""docs/reliability.md and the suite say the same."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_every_test_that_the_page_names_exists():
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", PAGE)
    assert len(named) > 50
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).exists()
        or f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")
    ]
    assert missing == []


def test_every_promise_and_fault_has_its_line():
    first = re.findall(r"^\| (R?\d+) \|", PAGE, flags=re.MULTILINE)
    assert first == [f"R{n}" for n in range(1, 8)] + [str(n) for n in range(1, 31)]
