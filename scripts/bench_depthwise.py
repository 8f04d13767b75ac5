"""Compare accelerated convolutions on a CPU with PyTorch's own.

Cases: single layers, forward and backward; training steps of networks. Compared with the same
layer or network without `layers.depthwise.accelerate`: plain PyTorch, channels_last, fused SGD.

    python scripts/bench_depthwise.py [--tiny] [--runs N] [--threads N] [--only layers|steps]
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as engine/threads.py sets it on an idle machine

import argparse
import copy
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from interleaved import clocked, compare
from torch import Tensor, nn

from lwbench.layers.accelerated import accelerate, path
from lwbench.registry import MODELS

# channels in, channels out, map, kernel, stride, batch; of MobileNetV3, mb0 and MobileNetV1
LAYERS = [
    (240, 240, 14, 5, 1, 32),
    (576, 576, 7, 5, 1, 32),
    (96, 96, 28, 5, 2, 32),
    (576, 576, 1, 5, 1, 128),
    (240, 240, 2, 5, 1, 128),
    (240, 240, 14, 7, 1, 32),
    (512, 512, 2, 3, 1, 128),
    (96, 576, 1, 1, 1, 128),
    (96, 576, 2, 1, 1, 128),
]
NETWORKS = {
    "mb0": {"builder": "mobilenet_ldc"},
    "mobilenet_v3_small": {"builder": "torchvision", "arch": "mobilenet_v3_small"},
}
SIZES = {32: 128, 64: 64, 224: 16}  # pixels -> batch

Work = Callable[[], object]


def images(batch: int, channels: int, size: int) -> Tensor:
    return torch.randn(batch, size, size, channels).permute(0, 3, 1, 2)


def layer(model: nn.Module, x: Tensor) -> Work:
    """Forward and backward of one layer, as inside a network."""
    gradient = torch.randn_like(model(x))

    def run() -> None:
        out = model(x)
        torch.autograd.grad(out, (x, *model.parameters()), gradient)

    return run


def step(model: nn.Module, x: Tensor) -> Work:
    """One step of SGD, as the engine takes it."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, fused=True)
    labels = torch.randint(100, (len(x),))

    def run() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return run


def both(work: Callable[[nn.Module, Tensor], Work], model: nn.Module, x: Tensor) -> list[Work]:
    """The work on the accelerated model and on a plain copy of it."""
    model = model.to(memory_format=torch.channels_last)
    plain = copy.deepcopy(model)
    return [work(accelerate(model), x), work(plain, x)]


def times(work: Work, count: int) -> None:
    for _ in range(count):
        work()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a few seconds, to test the script")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=["layers", "steps"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    layers, sizes = LAYERS, SIZES
    if options.tiny:
        options.runs, layers, sizes = 2, LAYERS[4:5], {32: 4}
    computed = path(accelerate(nn.Conv2d(2, 2, 5, groups=2)))

    def report(case: str, ours: Work, plain: Work) -> None:
        peers = {"plain PyTorch": clocked(plain)}
        compare("depthwise", case, clocked(ours), peers, runs=options.runs, path=computed)

    for channels, out, size, kernel, stride, batch in layers if options.only != "steps" else ():
        torch.manual_seed(0)
        groups = 1 if kernel == 1 else channels
        conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        pair = both(layer, conv, images(batch, channels, size).requires_grad_())
        # ten calls a run: one of some takes less than the clock and the scheduler disturb
        ours, plain = (partial(times, work, 10) for work in pair)
        kind = f"{channels} -> {out}" if groups == 1 else f"{channels} channels"
        report(
            f"{kernel} x {kernel}, stride {stride}, {kind}, {size} px, batch {batch}", ours, plain
        )
    for name, config in NETWORKS.items() if options.only != "layers" else ():
        for size, batch in sizes.items():
            torch.manual_seed(0)
            model = MODELS.build(config, 100)
            pair = both(step, model, images(batch, 3, size))
            report(f"{name} train step, {size} px, batch {batch}", *pair)


if __name__ == "__main__":
    main()
