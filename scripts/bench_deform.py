"""How much faster deformable convolution runs here than torchvision's operator.

Cases: the stem alone (3 -> 16 channels, 3 x 3, stride 2, 224 px), forward and backward without a
gradient for the image; a whole train step of LDC0 at 224 px, the same but for the operator. Runs
of both are interleaved; the ratio is that of the medians, the spread the lowest and highest ratio
of a pair. One JSON line a case on standard output, what is going on on standard error.

    python scripts/bench_deform.py [--tiny] [--runs N] [--batch N] [--size PX] [--threads N]
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # lwbench.threads, on an idle machine

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from lwbench.layers import deform
from lwbench.registry import MODELS

PEER = "torchvision"
SECONDS_A_CASE = 200  # stop adding runs then: the script ends within 8 minutes


def processor() -> str:
    """The CPU's name; "unknown" where the system does not tell."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


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
        y = deform.deform_conv2d(x, offset, mask, weight, stride=2, padding=1)
        return torch.autograd.grad(y, (offset, mask, weight), gradient)[2]

    return run


def step_case(batch: int, size: int) -> Callable[[], Tensor]:
    """One step of SGD on LDC0, channels_last, as the engine takes it."""
    torch.manual_seed(0)
    model = MODELS.build({"builder": "mobilenet_ldc", "stem": "ldc"}, 1000)
    model = model.to(memory_format=torch.channels_last)
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


def seconds(run: Callable[[], Tensor], backend: str) -> float:
    """Time of one run under `backend`."""
    with deform.backend(backend):
        start = time.perf_counter()
        run()
    return time.perf_counter() - start


def measure(case: str, run: Callable[[], Tensor], runs: int) -> dict[str, object]:
    """Interleaved runs of both; the first of each is not counted."""
    ours, peer = "cpu", PEER
    begin = time.perf_counter()
    times: dict[str, list[float]] = {ours: [], peer: []}
    for turn in range(runs + 1):
        pair = {name: seconds(run, name) for name in times}
        if turn:
            for name, took in pair.items():
                times[name].append(took)
        late = time.perf_counter() - begin > SECONDS_A_CASE
        if late and times[ours]:
            break
    ratios = [slow / fast for slow, fast in zip(times[peer], times[ours], strict=True)]
    medians = {name: statistics.median(took) for name, took in times.items()}
    return {
        "bench": "deform",
        "case": case,
        "peer": PEER,
        "ratio": round(medians[peer] / medians[ours], 2),
        "runs": len(ratios),
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
        "ours_ms": round(1e3 * medians[ours], 2),
        "peer_ms": round(1e3 * medians[peer], 2),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tiny", action="store_true", help="seconds: proves that it works")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    if options.tiny:
        options.runs, options.batch, options.size = 2, 2, 64
    torch.set_num_threads(options.threads)
    batch, size = options.batch, options.size
    shape = f"{size} px, batch {batch}"
    cases = {
        f"stem forward + backward, {shape}": stem_case(batch, size),
        f"stem forward + backward, {shape}, channels_last": stem_case(
            batch, size, channels_last=True
        ),
        f"LDC0 train step, {shape}": step_case(batch, size),
    }
    where = {"cpu": processor(), "torch": torch.__version__, "threads": options.threads}
    for case, run in cases.items():
        print(f"{case} ...", file=sys.stderr)
        print(json.dumps(measure(case, run, options.runs) | where | {"tiny": options.tiny}))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
