"""The door: verbs in, exit codes out; no traceback passes. Loads nothing before it is needed."""

import io
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .commands.usage import GROUPS, VERBS, help_of, overview
from .config import complete, composed, composed_runs, expanded, hydra, values
from .engine.signals import Interrupted, Signals
from .errors import LwbenchError, UsageError, nearest
from .paths import conf_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, 1 (failed), 2 (wrong input), 130 or 143 (interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an ASCII terminal ends no command
            stream.reconfigure(errors="backslashreplace")
    try:
        return _answered(arguments)
    except (Interrupted, KeyboardInterrupt) as second:  # while the first was being answered
        return second.exit_code if isinstance(second, Interrupted) else 130


def _answered(arguments: list[str]) -> int:
    """The command's exit code; every error said in a line or two."""
    try:
        with Signals(patience_s=0):
            return _dispatch(arguments)
    except LwbenchError as error:
        print(f"lwbench: {error}", file=sys.stderr)
        return error.exit_code
    except Interrupted as interruption:
        name = signal.Signals(interruption.signum).name
        state = "state saved" if interruption.saved else "ended"
        print(f"lwbench: {name}: {state}; the same command goes on", file=sys.stderr)
        return interruption.exit_code
    except KeyboardInterrupt:
        print("lwbench: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    """One line on screen for an error of ours; the traceback goes to a file."""
    with tempfile.NamedTemporaryFile("w", prefix="lwbench-", suffix=".log", delete=False) as file:
        traceback.print_exc(file=file)
    reason = (str(error).splitlines() or [""])[0][:200]
    print(f"lwbench: {type(error).__name__}: {reason}\ntraceback: {file.name}", file=sys.stderr)
    return 1


def _dispatch(arguments: list[str]) -> int:
    if "-sc" in arguments:
        return complete(arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        from . import __version__

        print(f"lwbench {__version__}")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        raise UsageError(f"no command {verb!r}{nearest(verb, VERBS)}")
    if "-h" in rest or "--help" in rest:
        print(help_of(verb))
        return 0
    flags = [a for a in rest if a.startswith("-")]
    overrides = [a for a in rest if not a.startswith("-")]
    if unknown := set(flags) - {"-m", "--multirun", "--cfg"}:
        raise UsageError(f"no option {unknown.pop()!r}; there is: -m, --cfg, --help")
    commands = {
        "train": _train,
        "eval": _eval,
        "profile": _profile,
        "table": _table,
        "reproduce": _reproduce,
        "check": _check,
        "report": _report,
        "list": _list,
    }
    return commands[verb](overrides, set(flags))


# verbs


def _train(overrides: list[str], flags: set[str]) -> int:
    with hydra():
        if "--cfg" in flags:
            print(_as_yaml(composed("train", overrides)[0]))
            return 0
        if flags & {"-m", "--multirun"}:
            from .sweeps.local import Job, sweep

            jobs = [Job(tuple(job), *composed("train", job)) for job in expanded(overrides)]
            return sweep(jobs, jobs[0].config["jobs"])
        config, choices = composed("train", overrides)
    from .commands.train import train

    return train(config, choices)


def _eval(overrides: list[str], flags: set[str]) -> int:
    from .commands.train import evaluate_checkpoint, evaluate_run

    with hydra():
        free = values(overrides)
        if free.get("run") is not None:
            return evaluate_run(str(free.pop("run")), free)
        config, _ = composed("eval", overrides)
    if config["checkpoint"] is None:
        raise UsageError("eval needs run=<run directory>, or checkpoint=<file> with model and data")
    return evaluate_checkpoint(config)


def _profile(overrides: list[str], flags: set[str]) -> int:
    with hydra():
        is_sweep = bool(flags & {"-m", "--multirun"})
        jobs = expanded(overrides, "profile") if is_sweep else [overrides]
        found = [composed("profile", job) for job in jobs]
    from .commands.profile import profile, show

    show([profile(config, choices["model"]) for config, choices in found], found[0][0]["format"])
    return 0


def _table(arguments: list[str], flags: set[str]) -> int:
    from .commands.table import KEYS, tabulate

    keys, overrides = _own_and_training(arguments, KEYS)
    print(tabulate(keys, overrides, composed_runs, counted, _width()))
    return 0


def _reproduce(arguments: list[str], flags: set[str]) -> int:
    from .commands.reproduce import KEYS, reproduce

    keys, overrides = _own_and_training(arguments, KEYS)
    return reproduce(keys, overrides, composed_runs, counted, _width())


def _own_and_training(
    arguments: list[str], own: tuple[str, ...]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """A verb's own keys, and overrides of every run behind the cells. Raises UsageError."""
    mine = [a for a in arguments if a.partition("=")[0] in own or "=" not in a]
    extra = tuple(a for a in arguments if a not in mine)
    for override in extra:
        key = override.partition("=")[0].lstrip("+~")
        if key in ("seed", "model", "data", "force"):
            raise UsageError(
                f"{override}: a table's rows and columns say it; choose rows=, columns="
            )
        known = {*own, *GROUPS, *_train_keys()}
        if "." not in key and not override.startswith("+") and key not in known:
            raise UsageError(f"unknown key {key!r}{nearest(key, known)}")
    return _plain_values(mine, own), extra


def _train_keys() -> set[str]:
    """What stands at the top of train.yaml: known without Hydra."""
    lines = (conf_folder() / "train.yaml").read_text(encoding="utf-8").splitlines()
    return {line.partition(":")[0] for line in lines if re.match(r"\w+:", line)}


def _width() -> int:
    """Of the terminal, in characters; wide where there is none."""
    return shutil.get_terminal_size((160, 24)).columns


def _report(arguments: list[str], flags: set[str]) -> int:
    from .commands.report import KEYS, write_report

    path = write_report(_plain_values(arguments, KEYS), composed_runs, counted)
    print(f"written: {path}")
    return 0


def counted(requests: list[Any]) -> dict[Any, Any]:
    """Counts of `results.tables.CountRequest`s that are in no cache; loads torch."""
    with hydra():
        configs = {
            request: composed(
                "profile",
                [
                    *request.model,
                    f"num_classes={request.num_classes}",
                    f"image_size={request.image_size}",
                ],
            )[0]
            for request in requests
        }
    from .commands.train import counts

    return {request: counts(config) for request, config in configs.items()}


def _check(overrides: list[str], flags: set[str]) -> int:
    with hydra():
        config, _ = composed("check", overrides)
    from .commands.check import check

    return check(config)


def _list(kinds: list[str], flags: set[str]) -> int:
    kinds = [kind.removesuffix("s") for kind in kinds]
    if unknown := set(kinds) - set(GROUPS):
        word = unknown.pop()
        raise UsageError(f"nothing to list under {word!r}{nearest(word, GROUPS)}")
    for kind in kinds or GROUPS:
        options = sorted((conf_folder() / kind).glob("*.yaml"))
        width = max((len(path.stem) for path in options), default=0)
        figures = _figures([path.stem for path in options]) if kinds == ["model"] else {}
        print(f"{kind}:" if options else f"{kind}: none")
        for path in options:
            print(f"  {path.stem:<{width}}  {figures.get(path.stem, '')}{first_comment(path)}")
    return 0


def _figures(models: list[str]) -> dict[str, str]:
    """Parameters and plain MACs of each model at 224 px with 1000 classes, as text."""
    from .logs import metric
    from .tables.cells import CountRequest
    from .tables.counts import cached_counts

    requests = {name: CountRequest((f"model={name}",), 1000, 224) for name in models}
    counts = cached_counts(requests.values(), conf_folder(), counted)
    return {
        name: f"{metric(c['params']):>9} params  {metric(c['macs']['plain']):>9} MACs  "
        for name, request in requests.items()
        if (c := counts.get(request))
    }


def first_comment(path: Path) -> str:
    """What a configuration file says of itself in its first line."""
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.startswith("# ") and "@package" not in line:
                return line[2:].strip()
    return ""


def _plain_values(arguments: list[str], allowed: tuple[str, ...]) -> dict[str, str]:
    """`key=value` as it stands, for verbs that need no Hydra. Raises UsageError."""
    values = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UsageError(f"cannot read {argument!r}; overrides are written key=value")
        if key not in allowed:
            raise UsageError(f"unknown key {key!r}{nearest(key, allowed)}")
        values[key] = value
    return values


def _as_yaml(config: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(config, sort_keys=False).rstrip()
