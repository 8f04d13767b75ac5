"""Compare training steps of lwbench on a device with those of a plain PyTorch loop.

Compared with: the same network, NCHW, autocast to the same precision, with `loss.item()` at every
step; and our own step without CUDA graphs. `bench_gpu.sh` calls this.

    python scripts/gpu_steps.py [--device cuda] [--tiny] [--runs N] [--steps N]
"""

import argparse
import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from interleaved import clocked, compare
from torch import Tensor, nn

from lwbench.commands._building import device_name
from lwbench.engine.accumulation import Cycles
from lwbench.engine.inputs import Settings
from lwbench.engine.optimizers import sgd
from lwbench.engine.step import TrainStep
from lwbench.registry import MODELS

NETWORKS = {
    "mb0": {"builder": "mobilenet_ldc"},
    "ldc0": {"builder": "mobilenet_ldc", "stem": "ldc"},
    "mobilenet_v3_small": {"builder": "torchvision", "arch": "mobilenet_v3_small"},
}
SIZES = {32: 128, 224: 64}  # pixels -> batch


def ours(model: nn.Module, images: Tensor, labels: Tensor, *, graph: bool) -> Callable[[], object]:
    """A step as the engine takes it."""
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    cycles = Cycles(length=1, batches=1, images=len(images), batch_size=len(images))
    step = TrainStep(
        model,
        sgd(model, lr=1e-3),
        lambda progress: 1e-3,
        settings=Settings(epochs=1),
        cycles=cycles,
        device=images.device,
    )
    if not graph:
        step.graph = None
    images = images.contiguous(memory_format=torch.channels_last)
    return lambda: step(images, labels, 0, 0)


def plain(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], object]:
    """A step as it is mostly written."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    is_cuda = images.device.type == "cuda"

    def step() -> float:
        optimizer.zero_grad()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=is_cuda):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def repeated(step: Callable[[], object], count: int, device: torch.device) -> Callable[[], None]:
    """Several steps, after which the device is waited for."""

    def run() -> None:
        for _ in range(count):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a few seconds, to test the script")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    device, networks, sizes = torch.device(options.device), NETWORKS, SIZES
    if options.tiny:
        options.runs, options.steps, sizes = 2, 2, {32: 8}
    facts = {"device": device_name(device), "steps": options.steps}
    for name, config in networks.items():
        for size, batch in sizes.items():
            torch.manual_seed(0)
            model = MODELS.build(config, 10).to(device).train()
            images = torch.randn(batch, 3, size, size, device=device)
            labels = torch.randint(10, (batch,), device=device)
            steps = {
                "lwbench": ours(model, images, labels, graph=True),
                "lwbench without graphs": ours(model, images, labels, graph=False),
                "plain PyTorch": plain(model, images, labels),
            }
            timed = {k: clocked(repeated(s, options.steps, device)) for k, s in steps.items()}
            mine = timed.pop("lwbench")
            case = f"{name} train step, {size} px, batch {batch}"
            compare("gpu", case, mine, timed, runs=options.runs, limit_s=60, **facts)


if __name__ == "__main__":
    main()
