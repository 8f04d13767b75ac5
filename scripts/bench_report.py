"""Time `lwbench report` and `lwbench table` over many made-up runs, beside importing torch.

The runs are of the configurations behind the published tables, with 20 epochs and several seeds
each. Figures are random: only their number matters.

    python scripts/bench_report.py [--tiny] [--runs N] [--records N]
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from interleaved import clocked, compare

from lwbench.config import train_configs
from lwbench.runs.directory import Run
from lwbench.tables import published

EPOCHS = 20


def make_runs(out: Path, number: int) -> None:
    """Write `number` finished runs, all configurations of the tables in turn."""
    tables = published.load("all")
    trains = [figure.train for table in tables for figure in table.figures if figure.train]
    configs = list({c.identity: c for c in train_configs(dict.fromkeys(trains)).values()}.values())
    draws = random.Random(0)
    start = json.dumps({"started": "2026-01-02T03:04:05Z", "python": "3.11", "epochs": EPOCHS})
    for count in range(number):
        config, seed = configs[count % len(configs)], count // len(configs)
        path = out / config.data_name / config.model_name / f"{config.identity}-s{seed}"
        path.mkdir(parents=True)
        if seed == 0:
            (path / "config.yaml").write_text(yaml.safe_dump(config.values, sort_keys=False))
        else:
            first = path.with_name(f"{config.identity}-s0") / "config.yaml"
            text = first.read_text().replace("seed: 0\n", f"seed: {seed}\n", 1)
            (path / "config.yaml").write_text(text)
        top1 = [round(draws.uniform(40, 90), 3) for _ in range(EPOCHS)]
        rows = [f"{e},0.1,1.5,{v},1.6,{v},{v + 5},900,30\n" for e, v in enumerate(top1, 1)]
        header = "epoch,lr,train_loss,train_top1,test_loss,test_top1,test_top5,images_per_s,seconds"
        (path / "metrics.csv").write_text(header + "\n" + "".join(rows))
        (path / "env.json").write_text(
            f'{{"starts": [{start}], "data": {{"digest": "abc", "train_size": 50000, '
            '"test_size": 10000}}'
        )
        last = {"epoch": EPOCHS, "test_loss": 1.6, "test_top1": top1[-1], "train_top1": top1[-1]}
        last["test_top5"] = top1[-1] + 5
        Run(path).write_result(
            {
                "identity": config.identity, "model": config.model_name, "data": config.data_name,
                "seed": seed, "epochs": EPOCHS, "precision": "fp32", "device": "a processor",
                "params": 10, "seconds": 600, "images_per_s": 900, "final": last, "best": last,
            }
        )  # fmt: skip


def command(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a few seconds, to test the script")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--records", type=int, default=10_000)
    options = parser.parse_args()
    number, runs = (20, 1) if options.tiny else (options.records, options.runs)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "outputs"
        make_runs(out, number)
        page = out / "report"
        imports = {"import torch": clocked(lambda: command("-c", "import torch"))}
        for case, arguments in {
            f"lwbench report, {number} runs": ["report", f"out={out}", f"out_dir={page}"],
            f"lwbench table table=all, {number} runs": ["table", "table=all", f"out={out}"],
        }.items():
            ours = clocked(lambda words=arguments: command("-m", "lwbench", *words))
            command("-m", "lwbench", *arguments)  # counts of networks are cached from here on
            bytes_of_page = (page / "index.html").stat().st_size
            facts = {"page_bytes": bytes_of_page} if arguments[0] == "report" else {}
            compare("report", case, ours, imports, runs=runs, **facts)
        shutil.rmtree(out)


if __name__ == "__main__":
    main()
