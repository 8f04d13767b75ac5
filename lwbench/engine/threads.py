"""How threads wait for one another. Decided before torch loads; changes speed, never a result."""

import os
import time
from pathlib import Path

# Turns of an idle thread's loop before it sleeps; some 0.2 ms. Small networks hand work to their
# threads hundreds of times a step: asleep at once, two threads train slower than one; spinning for
# long, as OpenMP's own default does, they collapse beside a busy neighbour (docs/performance.md).
SPINS = 10_000


def settle() -> None:
    """Waiting threads spin for a moment on an idle machine, and sleep at once on a busy one.

    What the user's environment says of it stands.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "0" if _others_are_busy() else str(SPINS)


def _others_are_busy(seconds: float = 0.1) -> bool:
    """Whether more than a quarter of a core is in use while this process sleeps; Linux tells."""
    before = _busy_ticks()
    time.sleep(seconds)
    after = _busy_ticks()
    if before is None or after is None:
        return False
    return (after - before) / os.sysconf("SC_CLK_TCK") > seconds / 4


def _busy_ticks() -> int | None:
    try:
        user, nice, system = Path("/proc/stat").read_text().split(maxsplit=4)[1:4]
    except (OSError, ValueError):
        return None
    return int(user) + int(nice) + int(system)
