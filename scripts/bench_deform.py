"""Compare lwbench's deformable convolution on a CPU with torchvision's operator.

Cases: the first layer alone (3 -> 16 channels, 3 x 3, stride 2, 224 px), forward and backward
without a gradient for the image; a training step of LDC0 at 224 px, of lwbench and in plain PyTorch
with the operator of torchvision.

    python scripts/bench_deform.py [--tiny] [--runs N] [--batch N] [--size PX] [--threads N]
        [--only TEXT]
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as engine/threads.py sets it on an idle machine

import argparse
from collections.abc import Callable

import torch
from interleaved import clocked, compare
from torch import Tensor, nn

from lwbench.layers import deform_operator
from lwbench.layers.accelerated import accelerate
from lwbench.registry import MODELS


def stem_case(batch: int, size: int, *, channels_last: bool = False) -> Callable[[], Tensor]:
    """Forward and backward of the operator on random data, offsets of about a pixel."""
    torch.manual_seed(0)
    out = (size - 1) // 2 + 1
    fmt = torch.channels_last if channels_last else torch.contiguous_format

    def rand(channels: int, pixels: int) -> Tensor:
        return torch.randn(batch, channels, pixels, pixels).contiguous(memory_format=fmt)

    x, gradient = rand(3, size), rand(16, out)
    offset, mask = rand(18, out).requires_grad_(), rand(9, out).sigmoid_().requires_grad_()
    weight = torch.randn(16, 3, 3, 3, requires_grad=True)

    def run() -> Tensor:
        y = deform_operator.deform_conv2d(x, offset, mask, weight, stride=2, padding=1)
        return torch.autograd.grad(y, (offset, mask, weight), gradient)[2]

    return run


def step_case(batch: int, size: int, *, accelerated: bool) -> Callable[[], Tensor]:
    """One step of SGD on LDC0, channels_last, as the engine takes it."""
    torch.manual_seed(0)
    model = MODELS.build({"builder": "mobilenet_ldc", "stem": "ldc"}, 1000)
    model = model.to(memory_format=torch.channels_last)
    if accelerated:
        accelerate(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)
    x = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(1000, (batch,))

    def run() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return loss

    return run


def under(backend: str, run: Callable[[], Tensor]) -> Callable[[], object]:
    """Return `run` with the operator of that backend."""

    def once() -> None:
        with deform_operator.backend(backend):
            run()

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a few seconds, to test the script")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", default="", help="cases that contain this text")
    options = parser.parse_args()
    if options.tiny:
        options.runs, options.batch, options.size = 2, 2, 64
    torch.set_num_threads(options.threads)
    batch, size = options.batch, options.size
    shape = f"{size} px, batch {batch}"
    stem = stem_case(batch, size)
    last = stem_case(batch, size, channels_last=True)
    cases = {
        f"stem forward + backward, {shape}": (stem, stem),
        f"stem forward + backward, {shape}, channels_last": (last, last),
        f"LDC0 train step, {shape}": tuple(
            step_case(batch, size, accelerated=ours) for ours in (True, False)
        ),
    }
    for case, (ours, theirs) in cases.items():
        if options.only and options.only not in case:
            continue
        peers = {"torchvision": clocked(under("torchvision", theirs))}
        compare("deform", case, clocked(under("cpu", ours)), peers, runs=options.runs)


if __name__ == "__main__":
    main()
