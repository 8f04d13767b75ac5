"""Command-line entry point: dispatches verbs and maps errors to exit codes.

Nothing that a command does not need is imported; no traceback reaches the screen.
"""

import io
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence

from .commands import command, summary, verbs
from .commands._config_dir import FLAG, using_config_dir, without_config_dir
from .commands._keys import Key
from .engine import distributed
from .engine.signals import Interrupted, Signals
from .errors import LwbenchError, UsageError, nearest

EXAMPLES = """\
  lwbench train                                   the default: LDC3 on handwritten digits, minutes
  lwbench train model=ldc3 data=cifar100          a paper's network with its recipe
  lwbench train -m model=mb0,ldc3 seed=0,1,2      a sweep; every run is a process
  lwbench eval run=outputs/digits/ldc3/...        evaluate a run again
  lwbench profile model=ldc0                      parameters and MACs
  lwbench table table=ldc/4                       a published table beside counts and measurements
  lwbench reproduce table=ldc/4 columns=cifar10   its missing runs, then the table
  lwbench report                                  everything on one page: outputs/report/index.html
  lwbench <command> --help                        its keys and groups"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, 1 (failed), 2 (wrong input), or the code of a signal."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal must not end a run
    try:
        code = _answered(arguments)
    except Interrupted as second:  # a signal while the first one was being handled
        code = second.exit_code
    except KeyboardInterrupt:
        code = 130
    distributed.leave()
    try:
        sys.stdout.flush()
    except OSError:  # what an error left unprinted; at exit Python would end with 120
        _discard_output()
    return code


def _answered(arguments: list[str]) -> int:
    """The command's exit code; every error is printed in a line or two."""
    try:
        with Signals(patience_s=0):
            code = _dispatch(arguments)
            sys.stdout.flush()  # here, where a reader that has left is noticed
            return code
    except LwbenchError as error:
        _say(str(error))
        return error.exit_code
    except Interrupted as interruption:
        name = signal.Signals(interruption.signum).name
        state = "state saved" if interruption.saved else "ended"
        if distributed.current().leads:
            _say(f"{name}: {state}; the same command continues")
        return interruption.exit_code
    except KeyboardInterrupt:
        if distributed.current().leads:
            _say("interrupted")
        return 130
    except BrokenPipeError:
        _discard_output()
        return 141
    except Exception as error:
        return _unexpected(error)


def _say(message: str) -> None:
    """Print a message; an empty one has been printed by another process of the training."""
    ranks = distributed.current()
    if message:
        print(f"lwbench: {'' if ranks.leads else f'rank {ranks.rank}: '}{message}", file=sys.stderr)


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unexpected(error: Exception) -> int:
    """One line on the screen for an internal error; the traceback goes to a file."""
    with tempfile.NamedTemporaryFile("w", prefix="lwbench-", suffix=".log", delete=False) as file:
        traceback.print_exc(file=file)
    reason = (str(error).splitlines() or [""])[0][:200]
    _say(f"{type(error).__name__}: {reason}\ntraceback: {file.name}")
    return 1


def _dispatch(arguments: list[str]) -> int:
    if "-sc" in arguments:
        from .config import complete

        return complete(arguments, verbs(), _offered)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        from . import __version__

        print(f"lwbench {__version__}")
        return 0
    arguments, folder = without_config_dir(arguments)
    with using_config_dir(folder):
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    if not arguments:
        raise UsageError(f"{FLAG} needs a command")
    verb, *rest = arguments
    if verb not in verbs():
        raise UsageError(f"no command {verb!r}{nearest(verb, verbs())}")
    module = command(verb)
    if "-h" in rest or "--help" in rest:
        print(module.help())
        return 0
    flags = {"-m" if a == "--multirun" else a for a in rest if a.startswith("-")}
    if unknown := sorted(flags - set(module.FLAGS)):
        known = ", ".join([*module.FLAGS, FLAG, "--help"])
        raise UsageError(f"lwbench {verb} has no option {unknown[0]!r}; there is: {known}")
    return distributed.as_rank(
        lambda: module.run([a for a in rest if not a.startswith("-")], flags),
        is_training=verb == "train" and not flags,
    )


def overview() -> str:
    """`lwbench --help`."""
    lines = "\n".join(f"  {verb:<10} {summary(verb)}" for verb in verbs())
    return (
        "lwbench: cost, accuracy and significance of lightweight image classifiers\n\n"
        f"usage: lwbench <command> [key=value ...]\n\n{lines}\n\n{EXAMPLES}\n\n"
        "--config-dir <folder> behind any command adds configuration files of yours\n"
        'completion: eval "$(lwbench -sc install=bash)"'
    )


def _offered(verb: str) -> list[str]:
    """What completion offers behind a verb that does not use Hydra; nothing for the others."""
    keys: dict[str, Key] = command(verb).KEYS
    return list(keys) if verb == "list" else [f"{key}=" for key in keys]
