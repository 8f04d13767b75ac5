"""Says in the log when epochs become slower, and how much of the CPUs this process had then."""

import logging
import os
import time
from statistics import median

log = logging.getLogger("lwbench")

SLOWER, AS_BEFORE = 0.75, 0.9  # of the median rate of the epochs before


class LoadWatch:
    """Compares the rate of each epoch with the median of those before it in this start.

    The number of threads is chosen before the first step, beside the processes that run then; what
    starts later is seen here alone.
    """

    def __init__(self) -> None:
        self._rates: list[float] = []
        self._is_slow = False
        self._cpu_s, self._wall_s = time.process_time(), time.monotonic()

    def epoch(self, number: int, images_per_s: float) -> None:
        """Note an epoch; log a line where the rate falls below, or is back at, that of before."""
        cpu_s, wall_s = time.process_time(), time.monotonic()
        cores = (cpu_s - self._cpu_s) / max(wall_s - self._wall_s, 1e-9)
        self._cpu_s, self._wall_s = cpu_s, wall_s
        # the first epoch also fills caches: two are needed to know what is usual
        usual = median(self._rates) if len(self._rates) >= 2 else images_per_s
        if self._is_slow and images_per_s >= AS_BEFORE * usual:
            self._is_slow = False
            log.info("epoch %d: %.0f images/s, as fast as before again", number, images_per_s)
        elif not self._is_slow and images_per_s < SLOWER * usual:
            self._is_slow = True
            log.info(
                "epoch %d: %.0f images/s, %.0f before; this process computed on %.1f cores on "
                "average%s: if others use the CPUs now, threads=1 may be faster",
                *(number, images_per_s, usual, cores, _load()),
            )
        # slow epochs do not become what is usual
        if not self._is_slow:
            self._rates.append(images_per_s)


def _load() -> str:
    try:
        return f", load average {os.getloadavg()[0]:.1f}"
    except (AttributeError, OSError):  # not on every system
        return ""
