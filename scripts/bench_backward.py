"""Compare the backward pass of LDC0 with those of DC0 and mb0: its time, and what is kept for it.

The networks differ in their first layer alone. Each case has the operator of lwbench or that of
torchvision in both deformable networks. The ratio is the other network's time over LDC0's, so that
a ratio above 1 means that LDC0 is faster; `kept_mib` is the size of the tensors that autograd keeps
between forward and backward pass, each storage counted once, without parameters.

    python scripts/bench_backward.py [--tiny] [--runs N] [--batch N] [--size PX] [--threads N]
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as engine/threads.py sets it on an idle machine

import argparse
import time

import torch
from interleaved import Timed, compare
from torch import Tensor, nn

from lwbench.layers import deform_operator
from lwbench.layers.accelerated import accelerate
from lwbench.registry import MODELS

STEMS = {"LDC0": "ldc", "DC0": "dc", "mb0": "conv"}


def network(stem: str) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS.build({"builder": "mobilenet_ldc", "stem": stem}, 1000)
    accelerate(model)
    return model.to(memory_format=torch.channels_last)


def batch_of(images: int, size: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(images, 3, size, size).contiguous(memory_format=torch.channels_last)
    return x, torch.randint(1000, (images,))


def backward(model: nn.Module, backend: str, batch: tuple[Tensor, Tensor]) -> Timed:
    """Seconds of a backward pass; the forward pass before it is not timed."""
    x, labels = batch

    def once() -> float:
        with deform_operator.backend(backend):
            model.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(model(x), labels)
            begin = time.perf_counter()
            loss.backward()
            return time.perf_counter() - begin

    return once


def kept_mib(model: nn.Module, backend: str, batch: tuple[Tensor, Tensor]) -> float:
    """MiB of the tensors that are kept for the backward pass."""
    x, labels = batch
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        deform_operator.backend(backend),
        torch.autograd.graph.saved_tensors_hooks(note, lambda t: t),
    ):
        loss = nn.functional.cross_entropy(model(x), labels)
    del loss
    return round(sum(kept.values()) / 2**20, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a few seconds, to test the script")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    if options.tiny:
        options.runs, options.batch, options.size = 2, 2, 64
    torch.set_num_threads(options.threads)
    models = {name: network(stem) for name, stem in STEMS.items()}
    batch = batch_of(options.batch, options.size)
    for backend, whose in (("cpu", "lwbench"), ("torchvision", "torchvision")):
        timed = {name: backward(model, backend, batch) for name, model in models.items()}
        kept = {name: kept_mib(model, backend, batch) for name, model in models.items()}
        case = (
            f"backward pass of LDC0, operator of {whose}, {options.size} px, batch {options.batch}"
        )
        ours = timed.pop("LDC0")
        compare("backward", case, ours, timed, runs=options.runs, kept_mib=kept)


if __name__ == "__main__":
    main()
