"""Send random signals to studies of small runs, restarted until they finish.

Each study is a table on digits that `lwbench reproduce` makes twice: undisturbed, and while signals
are sent to the command, to one of its runs, or to all. Afterwards both must be equal: the table,
every run's metrics and result except for times, every tensor of its checkpoints. Prints a report in
Markdown; exits with 1 if something differs. Linux only, since it finds its processes in /proc.

bash scripts/soak.sh [--minutes M] [--seed N]
"""

import argparse
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import suppress
from pathlib import Path

import torch

from lwbench.engine import checkpoint
from lwbench.runs.directory import Run
from lwbench.runs.files import read_json
from lwbench.runs.provenance import cpu_model, git_state

TABLE = """
source: "soak"
columns:
  digits_top1: {kind: top1, data: digits}
rows:
  - {label: MB0, run: "model=mb0"}
  - {label: LDC3, run: "model=ldc3"}
"""
TRAINING = ["epochs=4", "batch_size=64", "data.augment.rotation=5"]
TIMES = {"seconds", "train_seconds", "images_per_s", "finished"}
MARK = "LWBENCH_SOAK"  # in the environment of every process started here, and of their children
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
PATIENCE_S = 120.0  # for the processes of a killed command to end by themselves


class Study:
    """A table with its own seeds; the folders `calm` and `rough` contain its two sets of runs."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder / f"study-{number}"
        self.folder.mkdir()
        self.table = self.folder / "soak.yaml"
        self.table.write_text(TABLE)
        self.seeds = f"seeds=[{2 * number},{2 * number + 1}]"

    def command(self, verb: str, out: str, *more: str) -> list[str]:
        words = [f"table={self.table}", f"out={self.folder / out}", *TRAINING, *more]
        return [sys.executable, "-m", "lwbench", verb, *words]

    def reproduce(self, out: str) -> list[str]:
        return self.command("reproduce", out, self.seeds, "jobs=2", "checkpoint.every=0.5")

    def runs(self, out: str) -> dict[str, Run]:
        """Run directories by their path below `out`."""
        found = (self.folder / out).glob("*/*/*/config.yaml")
        return {str(path.parent.relative_to(self.folder / out)): Run(path.parent) for path in found}


class Soak:
    """Random signals from one seed, and their effects."""

    def __init__(self, seed: int, longest_s: float) -> None:
        self.chance, self.longest_s = random.Random(seed), longest_s
        self.mark = uuid.uuid4().hex
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", MARK: self.mark}
        self.sent: Counter = Counter()  # (signal, target) -> times
        self.exit_codes: Counter = Counter()
        self.faults: list[str] = []
        self.signalled = self.studies = self.runs = 0

    def __call__(self, folder: Path, seconds: float) -> None:
        while seconds > 0:
            study = Study(folder, self.studies)
            subprocess.run(
                study.reproduce("calm"), env=self.environment, check=True, stdout=subprocess.DEVNULL
            )
            seconds = self.disturb(study, seconds)
            self.studies += 1
            self.runs += len(study.runs("rough"))
            self.faults += differences(study, self.environment)
            print(f"# {self.studies} studies, {self.sent.total()} signals", flush=True)

    def disturb(self, study: Study, seconds: float) -> float:
        """Start the study until it is finished; without signals once the time is over.

        Returns the seconds that are left.
        """
        end = time.monotonic() + seconds
        log = study.folder / "log.txt"
        try:
            code = None
            while code != 0:
                with open(log, "ab") as file:
                    command = study.reproduce("rough")
                    process = subprocess.Popen(
                        command, env=self.environment, stdout=file, stderr=file
                    )
                code = self.send_until_it_ends(process, end)
                self.exit_codes[code] += 1
        finally:
            self.wait_for_the_rest()
        said = log.read_text(errors="replace")
        if "Traceback" in said:
            self.faults.append(f"on the screen:\n{said[said.index('Traceback') :][:2000]}")
        return end - time.monotonic()

    def send_until_it_ends(self, process: subprocess.Popen, end: float) -> int:
        while process.poll() is None:
            try:
                process.wait(self.pause())
            except subprocess.TimeoutExpired:
                if time.monotonic() < end:
                    self.send(process.pid)
        return process.returncode

    def pause(self) -> float:
        """Seconds to the next signal, from 0.3; the longest allow a run to train for a while."""
        return math.exp(self.chance.uniform(math.log(0.3), math.log(self.longest_s)))

    def send(self, command: int) -> None:
        """Send a signal to the command, to one of its processes, or to all at once."""
        children = sorted(set(self.processes()) - {command})
        target = self.chance.choice(["command", "run", "all"] if children else ["command"])
        run = [self.chance.choice(children)] if children else []
        pids = {"command": [command], "run": run, "all": [command, *children]}[target]
        signum = self.chance.choice(SIGNALS)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signum)
                self.signalled += 1
        self.sent[signum.name, target] += 1

    def processes(self) -> list[int]:
        """The live processes that were started here, directly or not, by their environment."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # it has ended, or belongs to another user
                if f"{MARK}={self.mark}".encode() in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def wait_for_the_rest(self) -> None:
        """Wait for the runs of a killed command; kill what does not end, which is a fault."""
        end = time.monotonic() + PATIENCE_S
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.2)
        for pid in left:
            self.faults.append(f"process {pid} did not end within {PATIENCE_S:.0f} s")
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of disturbed running")
    parser.add_argument("--pause", type=float, default=40.0, help="longest, in seconds")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    soak = Soak(options.seed, options.pause)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    soak(folder, 60 * options.minutes)
    show(soak, options)
    if soak.faults:
        print(f"runs and logs: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


# what must be equal


def differences(study: Study, environment: dict) -> list[str]:
    """Describe how the disturbed study differs from the undisturbed one, one text each."""
    calm, rough = study.runs("calm"), study.runs("rough")
    found = [] if calm.keys() == rough.keys() else [f"runs: {sorted(calm)} and {sorted(rough)}"]
    for name in calm.keys() & rough.keys():
        found += [f"{name}: {what} differs" for what in unequal(calm[name], rough[name])]
        found += [f"left behind: {path}" for path in rough[name].path.rglob("*.part")]
    tables = [shown(study, out, environment) for out in ("calm", "rough")]
    if tables[0] != tables[1]:
        found.append("the table differs")
    return found


def shown(study: Study, out: str, environment: dict) -> str:
    """The study's table as JSON."""
    command = study.command("table", out, "format=json")
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    if "digits_top1" not in done.stdout:
        raise RuntimeError(f"no figures in the table: {done.stdout[:500]}")
    return done.stdout.replace(str(study.folder / out), "<out>")


def unequal(calm: Run, rough: Run) -> list[str]:
    """Names of the records that differ, apart from times."""
    records = {
        "metrics.csv": (Run.metrics, (calm, rough)),
        "result.json": (lambda run: read_json(run.path / "result.json"), (calm, rough)),
        **{
            name: (lambda run, name=name: checkpoint.load(run.checkpoints / name), (calm, rough))
            for name in ("last.pt", "best.pt")
        },
    }
    return [name for name, (read, runs) in records.items() if not same(*map(read, runs))]


def same(one, other) -> bool:
    """Whether plain data and tensors are equal bit for bit, apart from times."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            same(one[key], other[key]) for key in one.keys() - TIMES
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def show(soak: Soak, options: argparse.Namespace) -> None:
    revision, is_dirty = git_state()
    how = f"--minutes {options.minutes:g} --pause {options.pause:g} --seed {options.seed}"
    codes = ", ".join(f"{code} ({count})" for code, count in sorted(soak.exit_codes.items()))
    targets = ("command", "run", "all")
    print(f"""
- {time.strftime("%Y-%m-%d", time.gmtime())}, {cpu_model()}, {os.cpu_count()} cores, revision
  `{(revision or "unknown")[:12]}`{" with changes" if is_dirty else ""};
  `bash scripts/soak.sh {how}`
- {soak.studies} studies, {soak.runs} runs; {soak.sent.total()} signals to {soak.signalled}
  processes; {soak.exit_codes.total()} starts
- exit codes of the command: {codes}; a negative one is a signal that could not be handled

| signal | {" | ".join(targets)} |
| --- |{" --- |" * len(targets)}""")
    for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGUSR1"):
        print(f"| {name} | {' | '.join(str(soak.sent[name, t]) for t in targets)} |")
    print()
    print("\n".join(f"- FAULT: {fault}" for fault in soak.faults) or "- no difference")


if __name__ == "__main__":
    sys.exit(main())
