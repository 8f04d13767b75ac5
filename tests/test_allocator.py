"""Memory that is freed is reused, not given back to the system and asked for again."""

import resource
import subprocess
import sys

import pytest

SIZE = 48 << 20
# without torch, which takes longer to import than all of this
SCRIPT = f"""
import resource
from lwbench.engine.allocator import keep_freed_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        b"x" * {SIZE}
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
first = faults()
if keep_freed_memory():
    faults()
    print(first, faults())
"""


def test_memory_that_is_kept_costs_no_page_faults():
    command = [sys.executable, "-c", SCRIPT]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if not found:
        pytest.skip("this C library has no mallopt")
    default, kept = (int(count) for count in found)
    assert default > SIZE // resource.getpagesize()
    assert kept < default / 10
