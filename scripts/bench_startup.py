"""Compare commands that build no network with importing torch and torchvision.

python scripts/bench_startup.py [--tiny] [--runs N]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile

from interleaved import clocked, compare


def command(*arguments: str, cache: str | None = None):
    """A process that runs `python <arguments>`, to be timed."""
    environment = {**os.environ, **({"XDG_CACHE_HOME": cache} if cache else {})}

    def run() -> None:
        subprocess.run(
            [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=environment
        )

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a few seconds, to test the script")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    runs = 1 if options.tiny else options.runs
    imports = {"import torch, torchvision": clocked(command("-c", "import torch, torchvision"))}
    for arguments in (["--help"], ["list"]):
        case = f"lwbench {' '.join(arguments)}"
        ours = clocked(command("-m", "lwbench", *arguments))
        compare("startup", case, ours, imports, runs=runs)
    table = ["-m", "lwbench", "table", "table=ldc/4" if options.tiny else "table=all"]
    with tempfile.TemporaryDirectory() as warm, tempfile.TemporaryDirectory() as cold:
        command(*table, cache=warm)()
        first = command(*table, cache=cold)

        def forgetful() -> None:
            shutil.rmtree(os.path.join(cold, "lwbench"), ignore_errors=True)
            first()

        compare(
            "startup",
            " ".join(["lwbench", *table[2:]]),
            clocked(command(*table, cache=warm)),
            {"its first call": clocked(forgetful)},
            runs=min(runs, 3),
        )


if __name__ == "__main__":
    main()
