"""Repeat `lwbench bench` of the same network under two names, and count what it says of them.

Equal networks have no difference: of N repetitions at level alpha, at most about alpha * N may show
one. `ratio` is the median of the repetitions' ratios, `no_difference_shown` how many repetitions
said so, `half_width` the median half-width of the interval of a median, as a share.

    python scripts/bench_latency.py [--tiny] [--runs N] [--seconds S] [--model NAME] [--size PX]
        [--runtime NAME] [--alpha A] [--first SEED]
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
import tempfile

from lwbench.cli import main as lwbench
from lwbench.runs.provenance import cpu_model, installed_version


def repetition(options: argparse.Namespace, seed: int, out: str) -> list[dict]:
    """The records of one command, as `format=json` prints them."""
    words = {
        "model": f"{options.model},{options.model}", "image_size": options.size, "seed": seed,
        "runtime": options.runtime, "seconds": options.seconds, "alpha": options.alpha,
        "force": "true", "out": out, "format": "json",
    }  # fmt: skip
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        code = lwbench(["bench", *(f"{key}={value}" for key, value in words.items())])
    if code:
        sys.exit(code)
    return json.loads(text.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a few seconds, to test the script")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=5, help="of measuring, a repetition")
    parser.add_argument("--model", default="mb0")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--runtime", default="eager")
    parser.add_argument("--alpha", type=float, default=0.01)
    parser.add_argument("--first", type=int, default=0, help="seed of the first repetition")
    options = parser.parse_args()
    if options.tiny:
        options.runs, options.seconds, options.size = 1, 0.2, 32
    ratios, words, widths, drifted = [], [], [], 0
    with tempfile.TemporaryDirectory() as out:
        for seed in range(options.first, options.first + options.runs):
            first, second = repetition(options, seed, out)
            ratios.append(1 + second["difference"])
            words.append(second["answer"])
            drifted += first["has_drifted"] or second["has_drifted"]
            widths += [(o["high_ms"] - o["low_ms"]) / 2 / o["p50_ms"] for o in (first, second)]
            print(f"latency: seed {seed}: {words[-1]}, {ratios[-1]:.4f}", file=sys.stderr)
    line = {
        "bench": "latency",
        "case": f"{options.model} twice, {options.runtime}, {options.size} px, batch 1",
        "peer": "itself",
        "ratio": round(statistics.median(ratios), 4),
        "runs": len(ratios),
        "spread": [round(min(ratios), 4), round(max(ratios), 4)],
        "no_difference_shown": words.count("no difference shown"),
        "alpha": options.alpha,
        "seconds": options.seconds,
        "half_width": round(statistics.median(widths), 4),
        "largest_half_width": round(max(widths), 4),
        "drifted": drifted,
        "cpu": cpu_model(),
        "threads": 1,
        "torch": installed_version("torch"),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
