"""Compare `lwbench check` with a loop that only decodes, with as many threads.

The loop maps the same decoder over the same files in a pool of threads; `check` also compares the
pixels across splits, counts classes and reports. `ratio` is check's rate over the loop's.

    python scripts/bench_check.py [--tiny] [--runs N] [--images N] [--workers N]
                                  [--data=<folder of train and val>]
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as engine/threads.py sets it on an idle machine

import argparse
import contextlib
import io
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from bench_streaming import generated, tree
from interleaved import clocked, compare

from lwbench.data.check import check
from lwbench.data.decode import decode


def bare(paths: list[str], workers: int) -> None:
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda path: decode(path) is None, paths):
            pass


def ours(folder: Path, workers: int) -> None:
    config = {"builder": "imagenet", "root": str(folder), "recipe": {"image_size": 224}}
    with contextlib.redirect_stdout(io.StringIO()):
        check({"data": config, "workers": workers})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a few seconds, to test the script")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--data", help="folder of train and val; without it: generated JPEGs")
    options = parser.parse_args()
    torch.set_num_threads(1)
    count, runs = (64, 1) if options.tiny else (options.images, options.runs)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(options.data or scratch)
        if not options.data:
            made = Path(scratch) / "made"
            made.mkdir()
            tree(place, generated(made, 32), count)
        paths = [str(p) for split in ("train", "val") for p in place.glob(f"{split}/*/*.JPEG")]
        compare(
            "check",
            "every image decoded, compared and counted",
            clocked(lambda: ours(place, options.workers)),
            {"bare decoding loop": clocked(lambda: bare(paths, options.workers))},
            runs=runs,
            images=len(paths),
            data="images of --data" if options.data else "32 generated JPEGs, repeated",
            workers=options.workers,
        )


if __name__ == "__main__":
    main()
