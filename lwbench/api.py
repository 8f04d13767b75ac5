"""The Python interface of lwbench: `lwbench.create_model`, `count`, `train` and the like.

It is what the commands use, for notebooks and scripts; docs/tutorial.py shows it. Names are taken
from here by `lwbench.<name>` on first use, so that `import lwbench` loads no torch. Wrong arguments
raise `lwbench.errors.UsageError`, whose message the commands print.
"""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import command_values, train_config
from .errors import UsageError
from .paths import conf_files
from .registry import MODELS
from .runs.network_file import completed
from .runs.records import Record, records
from .runs.sources import allow

if TYPE_CHECKING:
    import pandas
    from torch import nn

    from .measure.complexity import Complexity

__all__ = ["count", "create_model", "fuse", "list_models", "load_runs", "train"]


def list_models(pattern: str = "*") -> list[str]:
    """The names of networks that match a pattern such as "shuffle*", as `lwbench list model`.

    Those of installed packages are among them.
    """
    names = {*conf_files("model"), *MODELS.installed()} - {"file"}
    return sorted(name for name in names if fnmatchcase(name, pattern))


def create_model(name: str, *, num_classes: int = 1000, **arguments: Any) -> "nn.Module":
    """The network of that name with random weights; (N, 3, H, W) -> (N, num_classes) logits.

    `arguments`: those of the network, `model.<argument>` on the command line. A network in a file
    of yours is `create_model("file", path="my_net.py", function="my_net", width=0.5)`; its code is
    run. Raises UsageError for an unknown name, an unknown argument or a value out of range.
    """
    is_file = name == "file"
    ((values, _),) = command_values("profile", [[] if is_file else [f"model={name}"]])
    group = {"builder": "file"} if is_file else dict(values["model"])
    group |= arguments
    if group["builder"] == "file":
        group = completed(group)
        allow(group)
    model: nn.Module = MODELS.build(group, num_classes)
    return model


def count(model: "nn.Module", *, image_size: int = 224, in_channels: int = 3) -> "Complexity":
    """What one image costs in any network: `.params`, `.macs[rule]`, `.layers`, memory.

    Printed, the result is a table. The network is neither run nor changed. Raises UsageError where
    it cannot take such an image.
    """
    from .measure.complexity import count as counted

    return counted(model, image_size=image_size, in_channels=in_channels)


def fuse(model: "nn.Module", *, image_size: int = 224, in_channels: int = 3) -> "nn.Module":
    """A copy of a network in its deploy form: norms folded, branches merged, dropout gone.

    Its outputs are those of the network in evaluation mode, up to rounding. The network is not
    changed. Raises UsageError where it cannot take an image of this size.
    """
    from .deploy.fuse import fuse as fused

    return fused(model, image_size=image_size, in_channels=in_channels)


def train(*overrides: str, **keys: Any) -> Record:
    """Train as `lwbench train` does, or find the run finished; returns the run.

    Keys are given as on the command line ("model.width=0.5") or, where their names have no dot, as
    arguments (`model="ldc3", epochs=2`). The record has `.result`, `.metrics` (a row per epoch),
    `.config` and `.run.path`. Raises UsageError for what the command refuses, and LwbenchError
    where the training fails.
    """
    from .commands._training import train as trained

    words = [*overrides, *(f"{key}={_text(value)}" for key, value in keys.items())]
    run = trained(train_config(words))
    result = run.read_result()
    if result is None:
        raise UsageError(f"{run.path / 'result.json'} is damaged")
    return Record(run, result, is_archived=False)


def load_runs(out: str | Path = "outputs", *, archived: bool = True) -> "pandas.DataFrame":
    """The finished runs under a folder, a row each, as a pandas DataFrame.

    Columns are those of result.json (`model`, `data`, `seed`, `params` ...; `test_top1` and others
    of the last epoch, `best_test_top1` of the best one), the keys of the configuration by their
    dotted names, and `path`. Raises UsageError where pandas is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError:
        raise UsageError('load_runs needs pandas: pip install "lwbench[pandas]"') from None

    return pandas.DataFrame([_row(record) for record in records(Path(out), archived=archived)])


def _row(record: Record) -> dict[str, Any]:
    content = record.result.model_dump()
    final, best = content.pop("final"), content.pop("best")
    row = {k: v for k, v in content.items() if not isinstance(v, Mapping)}
    row |= {k: v for k, v in final.items() if k != "epoch"}
    row |= {f"best_{k}": v for k, v in best.items()}
    row |= {"archived": record.is_archived, "path": str(record.run.path)}
    try:
        keys = record.config.flat
    except UsageError:  # damaged, or changed since
        keys = {}
    return row | {key: value for key, value in keys.items() if key not in row}


def _text(value: Any) -> str:
    """A Python value as Hydra's grammar has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_text, value))}]"
    return str(value)
