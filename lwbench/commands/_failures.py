"""What a training that fails leaves: a traceback in the run's log, and a line or two on screen."""

from collections.abc import Callable
from typing import Any

from ..engine.signals import Interrupted
from ..errors import LwbenchError, user_place
from ..logs import gibibytes, log
from ..runs.directory import Run
from ..runs.runconfig import RunConfig

LARGE_BYTES = 256 << 20  # of memory that neither batch nor image size lowers: worth a word


def logged(
    work: Callable[[], dict[str, Any]], run: Run, config: RunConfig, num_classes: int
) -> dict[str, Any]:
    """Call `work`; a failure leaves its traceback in the run's log and a line or two on screen."""
    try:
        return work()
    except Interrupted as interruption:
        log.info("interrupted by signal %d", interruption.signum)
        raise
    except LwbenchError as error:
        log.error("%s", error, exc_info=True, extra={"on_screen": False})
        raise
    except Exception as error:
        log.error("failed", exc_info=True, extra={"on_screen": False})
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        if place := user_place(error):
            reason = f"{place}: {reason}"
        if _is_out_of_memory(error):
            reason = _out_of_memory(config, num_classes)
        raise LwbenchError(f"{reason}\ntraceback: {run.path / 'train.log'}") from None


def _out_of_memory(config: RunConfig, num_classes: int) -> str:
    from ..engine.evaluate import confusion_bytes

    reason = (
        f"out of memory with batch_size={config.batch_size} and image_size={config.image_size}: "
        "lower one of them"
    )
    if (matrices := confusion_bytes(num_classes)) > LARGE_BYTES:
        reason += (
            f"; the confusion matrices of {num_classes:,} classes take {gibibytes(matrices)} "
            "whatever they are"
        )
    return reason


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in str(error)  # torch's allocator on CPUs
