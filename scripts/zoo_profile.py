"""Run `lwbench profile` on every classification network of torchvision and timm.

    python scripts/zoo_profile.py [--library NAME] [--only SUBSTRING] [--seconds S] [--gib G]
    python scripts/zoo_profile.py --page [--check]

Writes a row per network to outputs/measured/zoo_profile.csv: its figures at its own image size with
1000 classes, or one line that says why there are none. Networks that the file already holds, for
the installed version of their library, are skipped, so that an interrupted run continues; rows
that lack a rule, which was added after they were written, are made again. `--page` writes
docs/zoo_profile.md from the file, `--check` only compares the two.

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
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "outputs" / "measured" / "zoo_profile.csv"
PAGE = ROOT / "docs" / "zoo_profile.md"
# a figure for every network; the other counters may fail
RULES = ("plain", "conv_only", "thop2020", "torchstat", "ptflops", "fvcore")
COUNTERS = ("thop", "flop_counter")
FIGURES = ("params", "buffers", *RULES, *COUNTERS, "activations", "peak_bytes")
COLUMNS = ("library", "version", "arch", "image_size", *FIGURES, "unknown", "not_covered")
COLUMNS += ("seconds", "remark", "error")
Network = tuple[str, str, str]  # library, its version, name
REUSES = 25  # networks per worker process
WALL = 20  # a network is also ended after this multiple of its seconds, should it hang idle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", choices=("torchvision", "timm"))
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--gib", type=float, default=8.0)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--page", action="store_true", help="write docs/zoo_profile.md")
    parser.add_argument("--check", action="store_true", help="with --page: compare, do not write")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.page:
        text = page(options.table)
        if options.check and PAGE.read_text(encoding="utf-8") != text:
            sys.exit(f"{PAGE} is out of date: run scripts/zoo_profile.py --page")
        if not options.check:
            PAGE.write_text(text, encoding="utf-8")
        return
    if options.worker:
        work(options.gib)
        return
    rows = stored(options.table)
    wanted = [
        network
        for network in networks()
        if not is_complete(rows.get(network))
        and options.only in network[2]
        and options.library in (None, network[0])
    ]
    print(f"{len(rows)} networks are in {options.table}, {len(wanted)} to go", flush=True)
    options.table.parent.mkdir(parents=True, exist_ok=True)
    with workers(options) as ask:
        for network in wanted:
            library, version, arch = network
            before = rows.get(network, {})
            answer = ask(library, arch)
            if not (before and answer.get("error")):  # the figures that are there stay
                rows[network] = {"library": library, "version": version, "arch": arch, **answer}
                write(options.table, rows.values())
            other = [k for k in FIGURES if before.get(k) and before[k] != str(answer.get(k))]
            changed = f", other {', '.join(other)} than before" if other else ""
            print(
                f"{library} {arch}: {answer.get('error') or answer['plain']}{changed}", flush=True
            )


def stored(table: Path) -> dict[Network, dict[str, Any]]:
    """The rows of a table by library, version and name of the network."""
    if not table.exists():
        return {}
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {(row["library"], row["version"], row["arch"]): row for row in rows}


def is_complete(row: dict[str, Any] | None) -> bool:
    """Whether a row has a figure under every rule, or says why it has none."""
    return row is not None and bool(row["error"] or all(row.get(rule) for rule in RULES))


def write(table: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Replace a table at once, so that an interruption costs no row."""
    partial = table.with_suffix(".partial")
    with open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(table)


def networks() -> list[Network]:
    """Every network as (library, version, name); of timm one of each family first, and so on."""
    import timm
    import torchvision

    tv = torchvision.models.list_models(module=torchvision.models)
    families = [timm.list_models(module=module) for module in timm.list_modules()]
    ranked = {name: rank for family in families for rank, name in enumerate(family)}
    names = sorted(timm.list_models(), key=lambda name: ranked.get(name, 0))
    found = [("torchvision", name) for name in tv] + [("timm", name) for name in names]
    return [(library, metadata.version(library), name) for library, name in found]


# the page

HEAD = """# Every network of torchvision and timm, counted

`scripts/zoo_profile.py` runs `lwbench profile` on the classification networks of both libraries,
each at its own image size with 1000 classes, in worker processes that may use 60 s of processor
time and 8 GiB of memory per network. The figures are in
[outputs/measured/zoo_profile.csv](../outputs/measured/zoo_profile.csv). This page is written from
that file by `scripts/zoo_profile.py --page`.

"""


def page(table: Path) -> str:
    """The summary of a table, as Markdown."""
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = [
        "| library | networks | with figures | without | processor seconds, median | most |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for library in dict.fromkeys((row["library"], row["version"]) for row in rows):
        own = [row for row in rows if (row["library"], row["version"]) == library]
        failed = sum(bool(row["error"]) for row in own)
        seconds = sorted(float(row["seconds"]) for row in own if row["seconds"])
        times = f"{median(seconds):.1f} | {seconds[-1]:.1f}"
        lines.append(
            f"| {' '.join(library)} | {len(own)} | {len(own) - failed} | {failed} | {times} |"
        )
    counted = [row for row in rows if not row["error"]]
    lines += ["", *compared_counters(counted), "", *left_out(counted)]
    if failed := [row for row in rows if row["error"]]:
        lines += ["", "## Networks without figures", "", "| network | pixels | reason |"]
        lines += ["| --- | ---: | --- |"]
        for row in sorted(failed, key=lambda row: (row["library"], row["arch"])):
            reason = row["error"].removeprefix("lwbench: ").replace("|", "\\|")
            lines.append(f"| {row['library']} {row['arch']} | {row['image_size']} | {reason} |")
    return HEAD + "\n".join(lines) + "\n"


def compared_counters(rows: list[dict[str, str]]) -> list[str]:
    """How the `plain` figures compare with the two other counters."""
    lines = ["## Other counters", ""]
    torch_counts = [row for row in rows if row["flop_counter"]]
    same = sum(row["flop_counter"] == row["plain"] for row in torch_counts)
    lines.append(
        f"torch's FlopCounterMode counts {len(torch_counts)} of {len(rows)} networks; its figure "
        f"equals `plain` for {same} of them."
    )
    differing = [row for row in torch_counts if row["flop_counter"] != row["plain"]]
    if differing:
        lines += ["The others:", "", "| network | plain | FlopCounterMode | ratio |"]
        lines += ["| --- | ---: | ---: | ---: |"]
        for row in sorted(differing, key=lambda row: (row["library"], row["arch"])):
            plain, other = int(row["plain"]), int(row["flop_counter"])
            ratio = f"{other / plain:.4f}" if plain else "-"
            lines.append(f"| {row['library']} {row['arch']} | {plain:,} | {other:,} | {ratio} |")
    silent = [row for row in rows if not row["thop"]]
    lines += ["", f"The installed thop counts {len(rows) - len(silent)} of {len(rows)}."]
    if silent:
        names = ", ".join(f"{row['arch']} ({row['remark']})" for row in silent)
        lines[-1] += f" It fails on {names}."
    return [*lines, "", *fvcores_figures(rows)]


def fvcores_figures(rows: list[dict[str, str]]) -> list[str]:
    """How the figures of fvcore's rule, which was added last, compare with `plain`."""
    found = [row for row in rows if row.get("fvcore")]
    parts = [f"{len(found)} of {len(rows)} rows have the figure of the rule `fvcore`"]
    if len(found) < len(rows):
        parts.append(
            "the others were counted before lwbench had it: `scripts/zoo_profile.py` makes them "
            "again"
        )
    if ratios := sorted((int(r["fvcore"]) / int(r["plain"]), r["arch"]) for r in found):
        middle = median(ratio for ratio, _ in ratios)
        (low, low_arch), (high, high_arch) = ratios[0], ratios[-1]
        parts.append(
            f"it is {middle:.3f} times `plain` in the median, from {low:.3f} ({low_arch}) to "
            f"{high:.3f} ({high_arch}). It counts norms and pooling, and leaves out fused attention"
        )
    return [f"{'; '.join(parts)}."]


def left_out(rows: list[dict[str, str]]) -> list[str]:
    """Which operators no rule knows, and which classes the tools' rules count as 0 most often."""
    lines = ["## What is counted as 0", ""]
    unknown: Counter[str] = Counter()
    for row in rows:
        unknown.update({part.split(" x ")[0] for part in row["unknown"].split(", ") if part})
    found = ", ".join(most_common(unknown))
    lines.append(f"Operators that no rule knows, with the number of networks: {found or 'none'}.")
    lines += ["", "| rule | networks with parts it does not cover | most frequent ones |"]
    lines += ["| --- | ---: | --- |"]
    for rule in ("thop2020", "torchstat", "ptflops", "fvcore", "thop"):
        classes: Counter[str] = Counter()
        networks = 0
        counted = [row for row in rows if row.get(rule)]
        for row in counted:
            parts = dict(part.split(": ", 1) for part in row["not_covered"].split(" | ") if part)
            own = parts.get(rule, "")
            networks += bool(own)
            classes.update({word.split(" x ")[0] for word in own.split(", ") if word})
        named = ", ".join(most_common(classes)[:8])
        lines.append(f"| {rule} | {networks} of {len(counted)} | {named} |")
    return lines


def most_common(counts: Counter[str]) -> list[str]:
    """Names with their counts, the largest first, equal ones by name."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [f"{name} ({count})" for name, count in ordered]


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
        begin = time.process_time()
        answer = profiled(library, arch)
        answer["seconds"] = round(time.process_time() - begin, 1)
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
            f"{rule}: {words(c)}" for rule, c in found["not_covered"].items() if c
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


def torchvision_weights(arch: str) -> Any:
    """The published weights whose facts hold for a network as it is built without arguments."""
    from torchvision.models import get_model_weights

    weights = get_model_weights(arch)
    # networks whose first weights are for larger images have others for the usual size at the end
    return getattr(weights, "IMAGENET1K_V1", list(weights)[-1])


def image_size(library: str, arch: str) -> int:
    """The side of the images that a network was made for."""
    if library == "torchvision":
        return int(torchvision_weights(arch).transforms.keywords["crop_size"])
    import timm

    config = timm.models.get_pretrained_cfg(arch, allow_unregistered=True)
    return max(config.input_size[1:]) if config else 224


if __name__ == "__main__":
    main()
