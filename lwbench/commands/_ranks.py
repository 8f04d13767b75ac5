"""What a training in several processes (torchrun) needs beside one in a single process."""

from typing import TYPE_CHECKING

from ..engine.distributed import current
from ..errors import UsageError
from ..runs.runconfig import RunConfig
from ._building import resolved_device

if TYPE_CHECKING:
    import torch

    from ..data.loader import Data


def device_of_rank(name: str) -> "torch.device":
    """The device of that name; on a machine with GPUs, each process has one of its own.

    Raises UsageError where there are fewer GPUs than processes.
    """
    import torch

    place = current().place
    device = resolved_device(name)
    if place.size == 1 or device.type != "cuda":
        return device
    if device.index is not None and name != "auto":
        raise UsageError(f"device={name} is one GPU for {place.size} processes: use cuda or auto")
    if place.local_size > torch.cuda.device_count():
        raise UsageError(
            f"{place.local_size} processes for {torch.cuda.device_count()} GPUs: start torchrun "
            "with --nproc-per-node=gpu, or train with device=cpu"
        )
    torch.cuda.set_device(place.local_rank)  # NCCL's too
    return torch.device("cuda", place.local_rank)


def check_parts(config: RunConfig, data: "Data") -> None:
    """Raise UsageError where a process has too few images of a batch, or none."""
    size = current().size
    if config.local_batchnorm and config.batch_size // (config.images_per_process or 1) != size:
        raise UsageError(
            f"local_batchnorm=true with images_per_process={config.images_per_process} trains in "
            f"{config.batch_size // (config.images_per_process or 1)} processes: torchrun started "
            f"{size}"
        )
    least = 2 if config.local_batchnorm else 1  # batch norm cannot train on one image
    if size > 1 and (found := data.smallest_part(size)) < least:
        last = data.train_size - (data.steps_per_epoch - 1) * data.batch_size
        raise UsageError(
            f"the last batch of an epoch has {last} images, which leaves a process of {size} "
            f"with {found}: use fewer processes or another batch_size"
        )


def prepared_ranks(config: RunConfig, data: "Data") -> None:
    """Decode what is packed, once on each machine, and give each process random numbers."""
    ranks = current()
    if ranks.size > 1:
        workers = config.num_workers * ranks.place.local_size  # the other processes wait
        ranks.once_per_machine("packs", lambda: data.fill_packs(workers))
        ranks.reseed(config.seed)


def described_ranks(config: RunConfig) -> str:
    """What is said of the processes before the first step; nothing for a single one."""
    size = current().size
    if size == 1:
        return ""
    norm = "each" if config.local_batchnorm else "the whole batch"
    images = f"{config.batch_size / size:.4g}"
    return f", {size} processes with {images} images of a batch, batch norm over {norm}"
