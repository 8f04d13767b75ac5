"""Latency of the whole zoo at 224 px, batch 1, one thread, in PyTorch and in onnxruntime.

    python scripts/zoo_latency.py --list            the pieces, each a command of a few minutes
    python scripts/zoo_latency.py --piece N         measure one; what has a record is skipped
    python scripts/zoo_latency.py                   write latency.csv and the picture of all records

Records are written to outputs/measured/latency. A piece measures its networks in turn.
"""

import argparse
import contextlib
import io
import sys
from pathlib import Path

from lwbench.cli import main as lwbench
from lwbench.paths import conf_files

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "outputs" / "measured"
LIBRARIES = {"file", "timm", "torchvision"}  # stand for networks that are not ours
SLOW = ("cifar_resnet50", "cifar_resnext101", "cifar_resnext50")  # about a second a call
SIZE = 8  # networks of a piece, whose processes are in memory together


def pieces() -> list[list[str]]:
    """The networks of each piece."""
    names = sorted(conf_files("model").keys() - LIBRARIES - {*SLOW})
    return [names[at : at + SIZE] for at in range(0, len(names), SIZE)] + [[n] for n in SLOW]


def command(networks: list[str], *more: str) -> list[str]:
    # one process of each: the table compares no networks
    words = [f"model={','.join(networks)}", "runtime=eager,onnx", "processes=1", f"out={OUT}"]
    return ["bench", *words, *more]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--list", action="store_true", help="print the pieces")
    parser.add_argument("--piece", type=int, help="measure this one, from 0")
    parser.add_argument("--seconds", type=float, default=40, help="of measuring a piece")
    options = parser.parse_args()
    if options.list:
        for number, networks in enumerate(pieces()):
            print(number, *networks)
        return 0
    if options.piece is not None:
        return lwbench(command(pieces()[options.piece], f"seconds={options.seconds}"))
    text = io.StringIO()
    picture = f"picture={ROOT / 'docs' / 'zoo_latency.png'}"
    with contextlib.redirect_stdout(text):
        measured = [n for piece in pieces() for n in piece if (OUT / "latency" / n).is_dir()]
        code = lwbench(command(measured, "format=csv", picture))
    if code == 0:
        (OUT / "latency.csv").write_text(text.getvalue())
    return code


if __name__ == "__main__":
    sys.exit(main())
