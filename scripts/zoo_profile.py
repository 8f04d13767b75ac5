"""Run `lwbench profile` on every classification network of torchvision and timm.

    python scripts/zoo_profile.py [--library NAME] [--only SUBSTRING] [--seconds S] [--gib G]

Writes a row per network to outputs/measured/zoo_profile.csv: its figures at its own image size with
1000 classes, or one line that says why there are none. Networks that the file already holds, for
the installed version of their library, are skipped, so that an interrupted run continues.

A worker process answers several networks; it is restarted after a failure and after every 25
networks. A network may use S seconds of processor time (60; processor time so that other load on
the machine changes nothing) and G GiB of memory (8, as RLIMIT_DATA).
"""

import argparse
import contextlib
import csv
import io
import json
import logging
import os
import resource
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "outputs" / "measured" / "zoo_profile.csv"
RULES = ("plain", "conv_only", "thop2020", "torchstat", "ptflops", "thop", "flop_counter")
FIGURES = ("params", "buffers", *RULES, "activations", "peak_bytes")
COLUMNS = ("library", "version", "arch", "image_size", *FIGURES, "unknown", "not_covered")
COLUMNS += ("seconds", "remark", "error")
REUSES = 25  # networks per worker process
WALL = 20  # a network is also ended after this multiple of its seconds, should it hang idle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", choices=("torchvision", "timm"))
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--gib", type=float, default=8.0)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.gib)
        return
    rows = stored(options.table)
    wanted = [
        network
        for network in networks()
        if network not in rows
        and options.only in network[2]
        and options.library in (None, network[0])
    ]
    print(f"{len(rows)} networks are in {options.table}, {len(wanted)} to go", flush=True)
    options.table.parent.mkdir(parents=True, exist_ok=True)
    is_new = not options.table.exists()
    with open(options.table, "a", newline="", encoding="utf-8") as file, workers(options) as ask:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        if is_new:
            writer.writeheader()
        for library, version, arch in wanted:
            row = {"library": library, "version": version, "arch": arch}
            answer = ask(library, arch)
            writer.writerow(row | answer)
            file.flush()
            print(f"{library} {arch}: {answer.get('error') or answer.get('plain')}", flush=True)


def stored(table: Path) -> set[tuple[str, str, str]]:
    """Library, version and name of the networks that a table holds."""
    if not table.exists():
        return set()
    with open(table, newline="", encoding="utf-8") as file:
        return {(row["library"], row["version"], row["arch"]) for row in csv.DictReader(file)}


def networks() -> list[tuple[str, str, str]]:
    """Every network as (library, version, name); of timm one of each family first, and so on."""
    import timm
    import torchvision

    tv = torchvision.models.list_models(module=torchvision.models)
    families = [timm.list_models(module=module) for module in timm.list_modules()]
    ranked = {name: rank for family in families for rank, name in enumerate(family)}
    names = sorted(timm.list_models(), key=lambda name: ranked.get(name, 0))
    found = [("torchvision", name) for name in tv] + [("timm", name) for name in names]
    return [(library, metadata.version(library), name) for library, name in found]


# the parent's side


@contextlib.contextmanager
def workers(options: argparse.Namespace) -> Iterator[Any]:
    """A function that has a network profiled by a worker process, which it restarts as needed."""
    worker: subprocess.Popen[str] | None = None
    answered = 0

    def ask(library: str, arch: str) -> dict[str, Any]:
        nonlocal worker, answered
        if worker is None or answered == REUSES:
            stop(worker)
            worker, answered = start(options), 0
        begin, used = time.monotonic(), processor_seconds(worker)
        print(json.dumps([library, arch]), file=worker.stdin, flush=True)
        while not select.select([worker.stdout], [], [], 1.0)[0]:
            spent = processor_seconds(worker) - used
            if spent > options.seconds or time.monotonic() - begin > WALL * options.seconds:
                stop(worker)
                worker = None
                return {"error": f"not finished after {options.seconds:g} s of processor time"}
        line = worker.stdout.readline()
        answered += 1
        if not line:
            code = worker.wait()
            worker = None
            return {"error": f"the process ended with exit code {code}"}
        answer: dict[str, Any] = json.loads(line)
        if answer.get("error"):  # memory may be fragmented, or a library in an odd state
            stop(worker)
            worker = None
        return answer

    try:
        yield ask
    finally:
        stop(worker)


def start(options: argparse.Namespace) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--worker", "--gib", str(options.gib)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    worker = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    worker.stdout.readline()  # the libraries are loaded
    return worker


def stop(worker: "subprocess.Popen[str] | None") -> None:
    if worker is not None:
        worker.kill()
        worker.wait()


def processor_seconds(worker: "subprocess.Popen[str]") -> float:
    """User and system time of a process so far (Linux)."""
    try:
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# the worker's side


def work(gib: float) -> None:
    """Answer a JSON line per network on standard input, until it ends."""
    import timm  # noqa: F401  loaded before the first clock starts

    import lwbench.measure.profile  # noqa: F401

    resource.setrlimit(resource.RLIMIT_DATA, (int(gib * 2**30),) * 2)
    answers, sys.stdout = sys.stdout, io.StringIO()  # whatever libraries print is no answer
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        library, arch = json.loads(line)
        begin = time.monotonic()
        answer = profiled(library, arch)
        answer["seconds"] = round(time.monotonic() - begin, 1)
        print(json.dumps(answer), file=answers, flush=True)


def profiled(library: str, arch: str) -> dict[str, Any]:
    """The columns of one network, from what `lwbench profile` prints."""
    from lwbench.cli import main as lwbench

    remarks = Remarks()
    logging.getLogger("lwbench").addHandler(remarks)
    size = image_size(library, arch)
    keys = [f"model={library}", f"model.arch={arch}", f"image_size={size}", "format=json"]
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = lwbench(["profile", *keys])
    logging.getLogger("lwbench").removeHandler(remarks)
    if code:
        lines = [line for line in errors.getvalue().splitlines() if line.startswith("lwbench:")]
        return {"image_size": size, "error": (lines or [f"exit code {code}"])[-1]}
    found = json.loads(out.getvalue())
    return {
        "image_size": size,
        **{key: found[key] for key in FIGURES if key in found},
        **found["macs"],
        "unknown": words(found["unknown"]),
        "not_covered": " | ".join(
            f"{rule}: {words(c)}" for rule, c in found["not_covered"].items()
        ),
        "remark": "; ".join(remarks.lines),
    }


class Remarks(logging.Handler):
    """Collects warnings, such as that a comparison counter failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def words(times: dict[str, int]) -> str:
    return ", ".join(f"{name} x {count}" for name, count in Counter(times).most_common())


def image_size(library: str, arch: str) -> int:
    """The side of the images that a network was made for."""
    if library == "torchvision":
        return 299 if arch == "inception_v3" else 224
    import timm

    config = timm.models.get_pretrained_cfg(arch, allow_unregistered=True)
    return max(config.input_size[1:]) if config else 224


if __name__ == "__main__":
    main()
