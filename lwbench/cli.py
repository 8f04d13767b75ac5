"""The door: verbs and Hydra's `key=value` grammar in, plain dictionaries out.

The only file that imports hydra or omegaconf, and none of it, nor torch, before it is needed.
"""

import io
import itertools
import json
import math
import os
import re
import shlex
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .engine.signals import Interrupted, Signals
from .errors import LwbenchError, UsageError, nearest
from .folders import conf_folder

VERBS = {
    "train": "train a network on a data set; -m sweeps",
    "eval": "evaluate a run, or a checkpoint, again",
    "profile": "what a network costs: parameters, MACs under each rule; -m for several",
    "table": "published tables, with what was counted and measured beside them",
    "reproduce": "run what a table's cells still need, and show the table",
    "check": "look at every image of a data set: bad files, duplicates, class balance",
    "report": "one page of published tables, studies and runs, for a browser",
    "list": "models, data sets, optimizers, schedulers, experiments",
}
# what completion offers behind the verbs whose keys are not Hydra's
# fmt: off
PLAIN_KEYS = {
    "list": ("model", "data", "optimizer", "scheduler", "experiment"),
    "table": (
        "table=", "runs=", "rows=", "columns=", "baseline=", "select=best", "ci=true", "format=",
        "out=", "kept=false",
    ),
    "reproduce": ("table=", "rows=", "columns=", "seeds=", "jobs=", "dry_run=true", "kept=false"),
    "report": ("out=", "out_dir=", "kept=false", "select=best"),
}
# fmt: on
ComposedRun = tuple[dict[str, Any], dict[str, str]]  # configuration, choices in the groups
MOST_RUNS = 10_000  # of a sweep: range(1e9) is a slip
GROUPS = ("model", "data", "optimizer", "scheduler", "experiment")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, 1 (failed), 2 (wrong input), 130 or 143 (interrupted)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an ASCII terminal ends no command
            stream.reconfigure(errors="backslashreplace")
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
        return _complete(arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if arguments[0] == "--version":
        from . import __version__

        print(f"lwbench {__version__}")
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        raise UsageError(f"no command {verb!r}{nearest(verb, VERBS)}")
    if "-h" in rest or "--help" in rest:
        print(_help_of(verb))
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
    with _hydra():
        if "--cfg" in flags:
            print(_as_yaml(_composed("train", overrides)[0]))
            return 0
        if flags & {"-m", "--multirun"}:
            from .sweep import Job, sweep

            jobs = [Job(tuple(job), *_composed("train", job)) for job in _expanded(overrides)]
            return sweep(jobs, jobs[0].config["jobs"])
        config, choices = _composed("train", overrides)
    from .commands import train

    return train(config, choices)


def _eval(overrides: list[str], flags: set[str]) -> int:
    from .commands import evaluate_checkpoint, evaluate_run

    with _hydra():
        values = _values(overrides)
        if values.get("run") is not None:
            return evaluate_run(str(values.pop("run")), values)
        config, _ = _composed("eval", overrides)
    if config["checkpoint"] is None:
        raise UsageError("eval needs run=<run directory>, or checkpoint=<file> with model and data")
    return evaluate_checkpoint(config)


def _profile(overrides: list[str], flags: set[str]) -> int:
    with _hydra():
        is_sweep = bool(flags & {"-m", "--multirun"})
        jobs = _expanded(overrides, "profile") if is_sweep else [overrides]
        found = [_composed("profile", job) for job in jobs]
    from .profile import profile, show

    show([profile(config, choices["model"]) for config, choices in found], found[0][0]["format"])
    return 0


def _table(arguments: list[str], flags: set[str]) -> int:
    from .tabulate import KEYS, tabulate

    keys, overrides = _own_and_training(arguments, KEYS)
    print(tabulate(keys, overrides, composed_runs, counted, _width()))
    return 0


def _reproduce(arguments: list[str], flags: set[str]) -> int:
    from .reproduce import KEYS, reproduce

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
    from .reporting import KEYS, write_report

    path = write_report(_plain_values(arguments, KEYS), composed_runs, counted)
    print(f"written: {path}")
    return 0


def counted(requests: list[Any]) -> dict[Any, Any]:
    """Counts of `results.tables.CountRequest`s that are in no cache; loads torch."""
    with _hydra():
        configs = {
            request: _composed(
                "profile",
                [
                    *request.model,
                    f"num_classes={request.num_classes}",
                    f"image_size={request.image_size}",
                ],
            )[0]
            for request in requests
        }
    from .commands import counts

    return {request: counts(config) for request, config in configs.items()}


def _check(overrides: list[str], flags: set[str]) -> int:
    with _hydra():
        config, _ = _composed("check", overrides)
    from .check import check

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
    from .console import metric
    from .counts import cached_counts
    from .results.tables import CountRequest

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


# Hydra


def composed_runs(requests: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], ComposedRun]:
    """The configuration and choices of every run (a tuple of overrides of `train`).

    Kept between commands, for one state of the configuration files. Raises UsageError for the first
    request that cannot be composed.
    """
    from .cache import cached, digest

    def make(keys: list[str]) -> dict[str, ComposedRun]:
        with _hydra():
            return {key: _composed("train", json.loads(key)) for key in keys}

    requests = list(dict.fromkeys(requests))
    files = sorted(conf_folder().rglob("*.yaml"))
    name = f"runs-{digest(files, ('hydra-core', 'omegaconf', 'lwbench'))}"
    found = cached(name, map(json.dumps, requests), make)
    return {request: tuple(found[json.dumps(request)]) for request in requests}


@contextmanager
def _hydra() -> Iterator[None]:
    from hydra import initialize_config_dir

    with initialize_config_dir(str(conf_folder()), job_name="lwbench", version_base="1.3"):
        _register_resolvers()
        yield


def _register_resolvers() -> None:
    from omegaconf import OmegaConf

    # the last part of a path: names a user's own image folder (conf/data/folder.yaml)
    OmegaConf.register_new_resolver(
        "basename", lambda p: os.path.basename(os.path.realpath(p)) if p else None, replace=True
    )


def _composed(verb: str, overrides: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The resolved configuration, and the option chosen in each group.

    Raises UsageError for unknown keys, groups and options (with the nearest names), unreadable
    overrides, and values that are needed and missing.
    """
    from hydra import compose
    from omegaconf import OmegaConf, open_dict

    try:
        config = compose(verb, overrides, return_hydra_config=True)
        choices = dict(OmegaConf.to_container(config.hydra.runtime.choices))
        with open_dict(config):
            del config["hydra"]
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except Exception as error:  # Hydra asserts and recurses too; all of it comes from overrides
        raise _explained(verb, overrides, error) from None
    _check_nothing_is_gone(verb, plain)
    return plain, {k: str(v) for k, v in choices.items() if k in GROUPS and v is not None}


def _check_nothing_is_gone(verb: str, config: dict[str, Any]) -> None:
    import yaml

    own = yaml.safe_load((conf_folder() / f"{verb}.yaml").read_text(encoding="utf-8"))
    groups = {next(iter(one)) for one in own.pop("defaults") if isinstance(one, dict)}
    for key in [*own, *sorted(groups - {"experiment"})]:
        if key not in config:
            raise UsageError(f"{key} is needed and cannot be left out")


def _explained(verb: str, overrides: list[str], error: Exception) -> UsageError:
    """Hydra's and OmegaConf's errors in our words, with the nearest names."""
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    text = str(error)
    if isinstance(error, OverrideParseException):
        return UsageError(f"cannot read {error.override!r}; overrides are written key=value")
    if "Ambiguous value" in text:
        return UsageError(f"{text.splitlines()[0].rstrip(':')}: to sweep over values, add -m")
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = error.missing_cfg_file.removesuffix(".yaml").rpartition("/")
        names = [path.stem for path in (conf_folder() / group).glob("*.yaml")]
        return UsageError(f"no {group} {option!r}{nearest(option, names)}")
    if isinstance(error, MissingMandatoryValue):
        return UsageError(f"{getattr(error, 'full_key', text)} is needed and not given")
    pattern = r"Could not (?:override|append to config|delete)[^']*'([^']+)'"
    if found := re.search(pattern, text):
        key = found[1]
        others = [o for o in overrides if o.split("=")[0].lstrip("+~") != key]
        return UsageError(f"unknown key {key!r}{nearest(key, _keys(verb, others))}")
    lines = [line for line in text.splitlines() if line.strip()]
    if isinstance(error, HydraException | OmegaConfBaseException) and lines:
        return UsageError("; ".join(line[:200] for line in lines[:2]))
    return UsageError(f"cannot read {shlex.join(overrides)}; overrides are written key=value")


def _keys(verb: str, overrides: list[str]) -> list[str]:
    """All keys that an override may name; the groups alone where other overrides are wrong too."""
    from hydra import compose
    from omegaconf import OmegaConf

    try:
        config = OmegaConf.to_container(compose(verb, overrides))
    except Exception:
        config = {}
    return [*GROUPS, *_dotted(config)]


def _dotted(config: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in config.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _dotted(value, f"{prefix}{key}.")


def _parsed(overrides: list[str], verb: str) -> list[Any]:
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    loader = GlobalHydra.instance().config_loader()
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides(overrides)
    except Exception as error:
        raise _explained(verb, overrides, error) from None


def _expanded(overrides: list[str], verb: str = "train") -> list[list[str]]:
    """Every combination of the swept values, as Hydra's basic sweeper orders them."""
    axes = []
    for override in _parsed(overrides, verb):
        if override.is_sweep_override():
            key = override.get_key_element()
            values = itertools.islice(override.sweep_string_iterator(), MOST_RUNS + 1)
            axes.append([f"{key}={value}" for value in values])
        else:
            axes.append([override.input_line])
    if math.prod(map(len, axes)) > MOST_RUNS:
        raise UsageError(f"more than {MOST_RUNS:,} runs; -m takes every combination of the values")
    return [list(job) for job in itertools.product(*axes)]


def _values(overrides: list[str]) -> dict[str, Any]:
    return {o.get_key_element(): o.value() for o in _parsed(overrides, "eval")}


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


def _complete(arguments: list[str]) -> int:
    """Shell completion: `eval "$(lwbench -sc install=bash)"`. Hydra's, which knows no verbs."""
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.global_hydra import GlobalHydra

    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    verb, position = "train", 1 + (len(words) > 1 and words[1] == "-m")
    if any(a.startswith("query=") for a in arguments):
        is_new_word = line.endswith(" ") or not line
        if len(words) + is_new_word <= position + 1:
            print(" ".join(VERBS))
            return 0
        verb = words[position] if words[position] in VERBS else "train"
        if verb in PLAIN_KEYS:
            print(" ".join(PLAIN_KEYS[verb]))
            return 0
        # Hydra takes the first word behind the program for an override
        line = " ".join([words[0], *words[position + 1 :]]) + (" " if is_new_word else "")
        os.environ["COMP_LINE"], os.environ["COMP_POINT"] = line, str(len(line))
    search_path = create_config_search_path(str(conf_folder()))
    try:
        hydra = Hydra.create_main_hydra2("lwbench", search_path)
        hydra.shell_completion(verb, [a for a in arguments if "=" in a])
    finally:
        GlobalHydra.instance().clear()
    return 0


# help


def _help() -> str:
    verbs = "\n".join(f"  {verb:<10} {text}" for verb, text in VERBS.items())
    return f"""lwbench: what a small network costs, how well it does, and whether it is real

usage: lwbench <command> [key=value ...]

{verbs}

  lwbench train                                   the default: LDC3 on real digits, in minutes
  lwbench train model=ldc3 data=cifar100          a paper's network with its recipe
  lwbench train -m model=mb0,ldc3 seed=0,1,2      a sweep, each run in a process of its own
  lwbench eval run=outputs/digits/ldc3/...        the same figures again
  lwbench profile model=ldc0                      its cost
  lwbench table table=ldc/4                       a published table, checked
  lwbench report                                  all of it on a page: outputs/report/index.html
  lwbench reproduce table=ldc/4 columns=cifar10   its missing runs, then the table
  lwbench <command> --help                        its keys and groups

completion: eval "$(lwbench -sc install=bash)\""""


def _help_of(verb: str) -> str:
    if verb == "list":
        return f"usage: lwbench list [{' | '.join(GROUPS)}]\n\nlist model adds each one's cost"
    if verb == "table":
        from .results import published

        names = " ".join(["all", *published.names()])
        return (
            "usage: lwbench table [table=<name> | runs=<folder>] [key=value ...]\n\n"
            "without a name: all tables, a line each\n\n"
            f"table: {names} or the path of a YAML file\n"
            "runs: a folder of finished runs, tabulated by the keys in which they differ\n"
            "rows: labels; columns: keys, data sets or kinds; comma lists\n"
            "baseline: label of the row that the others are compared with\n"
            "select: final | best (best on the test images flatters)\n"
            "ci: true adds the 95 % confidence interval of every mean\n"
            "format: terminal markdown latex html csv json\n"
            "out: where the runs lie (outputs)\n"
            "kept: whether runs under <out>/measured count (true)\n"
            "any other key is an override of every run, as in epochs=10 image_size=32: shows that\n"
            "reduced study; without one, full runs alone fill cells"
        )
    if verb == "reproduce":
        return (
            "usage: lwbench reproduce table=<name> [rows=...] [columns=...] [seeds=3] [jobs=1] "
            "[dry_run=true] [kept=false] [key=value ...]\n\nruns what the cells still need, then "
            "shows the table\n\n"
            "rows: labels; columns: keys, data sets or kinds; comma lists\n"
            "seeds: how many (3 is 0, 1, 2), or a list\n"
            "jobs: runs at once, sharing cores and GPUs\n"
            "dry_run: print the plan and a line a run, for a shell\n"
            "kept: whether runs under <out>/measured count as finished (true)\n"
            "any other key is an override of every run, as in epochs=10 image_size=32: a reduced "
            "study,\nwhich lwbench table shows with the same overrides"
        )
    if verb == "report":
        return (
            "usage: lwbench report [out=outputs] [out_dir=<out>/report] [kept=true] "
            "[select=final]\n\nwrites <out_dir>/index.html, a page that needs no other file and no "
            "network\n\n"
            "out: the folder of runs\n"
            "kept: whether runs under <out>/measured are shown, too\n"
            "select: final or best, the epoch of the accuracies; best flatters"
        )
    flags = {"train": "[-m] [--cfg] ", "profile": "[-m] "}.get(verb, "")
    keys = (conf_folder() / f"{verb}.yaml").read_text(encoding="utf-8")
    lines = [f"usage: lwbench {verb} {flags}[key=value ...]", "", keys]
    for group in GROUPS:
        names = sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))
        if names and f"- {group}:" in keys:
            lines.append(f"{group}: {' '.join(names)}")
    return "\n".join(lines)
