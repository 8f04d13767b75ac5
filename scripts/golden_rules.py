"""Write tests/golden/rules.json: what published counting tools print for the tests' networks.

    python scripts/golden_rules.py [--tools FOLDER]

Each tool is installed with pip into a folder of its own (under --tools, default a temporary
folder) and runs in a process of its own, forked once per network, since some of them patch classes
of torch. A network that a tool fails on has null and the error. Two of the tools need help with
today's Python: thop of 2020 imports `Iterable` from `collections`, where it was until Python 3.9,
and torchstat imports pandas, which it gets in its folder (and uses numpy's `np.long`, which numpy
1.24 to 1.26 lack). Their code is not changed.
"""

import argparse
import collections
import collections.abc
import contextlib
import importlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "rules.json"
# rule -> the distribution whose counts it claims, and what that needs beside torch and numpy
TOOLS = {
    "thop2020": ["thop==0.0.31.post2005241907"],
    "torchstat": ["torchstat==0.0.7", "pandas", "python-dateutil", "six", "pytz", "tzdata"],
    "ptflops": ["ptflops==0.6.4"],
    "thop": ["thop==0.1.1.post2209072238"],
    "fvcore": [
        "fvcore==0.1.5.post20221221",
        "iopath",
        "yacs",
        "portalocker",
        "termcolor",
        "tabulate",
    ],
}
# how each tool names, on its standard output, a class that it counts as nothing
IGNORED = {
    "thop2020": r"Cannot find rule for <class '[^']*?(\w+)'>",
    "torchstat": r"\[Flops\]: (\w+) is not supported",
    "ptflops": r"module (\w+) is treated as a zero-op",
    "thop": r"Cannot find rule for <class '[^']*?(\w+)'>",
    "fvcore": r"^ignored (\w+)$",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", type=Path, help="folder to install the tools into")
    parser.add_argument("--run", choices=TOOLS, help=argparse.SUPPRESS)  # inside a tool's process
    options = parser.parse_args()
    if options.run:
        print(json.dumps(counted_by(options.run)))
        return
    with contextlib.ExitStack() as stack:
        folder = options.tools or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        found = {tool: run(tool, folder / tool) for tool in TOOLS}
    import torch
    import torchvision

    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    tools = {tool: requirements[0] for tool, requirements in TOOLS.items()}
    cases = {name: {tool: found[tool][name] for tool in TOOLS} for name in found["thop"]}
    GOLDEN.parent.mkdir(exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in cases.items())
    head = json.dumps({"tools": tools, "versions": versions})[1:-1]
    GOLDEN.write_text(f'{{{head}, "cases": {{\n{lines}\n}}}}\n', encoding="utf-8")
    print(f"written: {GOLDEN}")


def run(tool: str, folder: Path) -> dict[str, Any]:
    """Install a tool into `folder`, unless it is there, and count every case with it."""
    if not folder.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
        subprocess.run([*pip, str(folder), *TOOLS[tool]], check=True)
    path = os.pathsep.join([str(folder), str(ROOT / "tests"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, __file__, "--run", tool],
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def counted_by(tool: str) -> dict[str, Any]:
    """Every case's count by the tool of this process: {"macs": ..., "ignored": [classes]}."""
    import golden_networks
    import torch

    name, _, wanted = TOOLS[tool][0].partition("==")
    if Version(metadata.version(name)) != Version(wanted):  # "0.0.31-2005241907" is a post-release
        raise SystemExit(f"{name} {metadata.version(name)} is found instead of {wanted}")
    torch.set_num_threads(1)
    collections.Iterable = collections.abc.Iterable  # for thop of 2020
    importlib.import_module(name)  # a tool that cannot be imported is no tool that fails
    names = [*golden_networks.LAYERS, *golden_networks.TORCHVISION, *golden_networks.OURS]
    return {name: in_a_fork(tool, name) for name in names}


def in_a_fork(tool: str, name: str) -> dict[str, Any]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(writer, "w") as pipe:
            json.dump(one_count(tool, name), pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return json.loads(answer)


def one_count(tool: str, name: str) -> dict[str, Any]:
    import golden_networks

    model, size = golden_networks.build(name), golden_networks.image_size(name)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            macs: int | None = int(CALLS[tool](model, size))
            error = {}
    except Exception as failure:
        macs, error = None, {"error": f"{type(failure).__name__}: {failure}"[:100]}
    ignored = sorted(set(re.findall(IGNORED[tool], printed.getvalue(), re.MULTILINE)))
    return {"macs": macs, "ignored": ignored} | error


def with_thop(model: Any, size: int) -> float:
    import torch
    from thop import profile

    options = {} if metadata.version("thop").startswith("0.0") else {"report_missing": True}
    return profile(model, inputs=(torch.zeros(1, 3, size, size),), verbose=True, **options)[0]


def with_ptflops(model: Any, size: int) -> float:
    from ptflops import get_model_complexity_info

    options = {"as_strings": False, "print_per_layer_stat": False, "verbose": True}
    # its default stream is the one of import time
    return get_model_complexity_info(model, (3, size, size), ost=sys.stdout, **options)[0]


def with_fvcore(model: Any, size: int) -> float:
    import torch
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(model, torch.zeros(1, 3, size, size))
    analysis.unsupported_ops_warnings(False)
    total = analysis.total()
    for name in analysis.unsupported_ops():
        print(f"ignored {name.partition('::')[2]}")
    return total


def with_torchstat(model: Any, size: int) -> int:
    from torchstat.statistics import ModelStat

    nodes = ModelStat(model, (3, size, size))._analyze_model()
    return sum(int(node.Flops) for node in nodes)


CALLS = {
    "thop2020": with_thop,
    "thop": with_thop,
    "ptflops": with_ptflops,
    "torchstat": with_torchstat,
    "fvcore": with_fvcore,
}

if __name__ == "__main__":
    main()
