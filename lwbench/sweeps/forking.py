"""Start a sweep's runs, each in a process of its own, without importing torch for each.

Importing torch takes longer than an epoch of a small run. Python's fork server imports it once, and
runs are forked from there, before torch has started a thread or used a GPU. Elsewhere than on
Linux, and where the environment has changed since the import, a run is a new interpreter.
"""

import atexit
import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import Any, TextIO

from ..runs.runconfig import VARIABLE
from . import job

PRELOADED = [
    "torch",
    "lwbench.commands.train",
    "lwbench.engine.train",
    "lwbench.sweeps.served",
]
LATE = {"CUDA_VISIBLE_DEVICES", VARIABLE}  # what is read after torch was imported
_served: dict[str, str] = {}  # the environment in which the fork server imported torch


def started(
    words: Sequence[str], environment: Mapping[str, str], piped: bool
) -> "subprocess.Popen[bytes] | Forked":
    """Start `lwbench train` with these words; its standard output is piped, or this process's."""
    if sys.platform == "linux" and _is_served(environment):
        try:
            return Forked(words, environment, piped)
        except (OSError, EOFError):  # the server was killed, or torch cannot be imported
            pass
    return subprocess.Popen(
        job.command(words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if piped else None,
        stderr=subprocess.PIPE,
        env=dict(environment),
        # in a session of its own, or a terminal's Ctrl-C would reach it beside ours, and a second
        # one ends a run without saving
        start_new_session=True,
    )


def _is_served(environment: Mapping[str, str]) -> bool:
    """Whether the fork server, which is started at the first call, has this environment."""
    early = {name: value for name, value in environment.items() if name not in LATE}
    if not _served:
        with _environment(early):
            multiprocessing.set_forkserver_preload(PRELOADED)
            forkserver.ensure_running()
        _served.update(early)
    return _served == early


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    try:
        _replace(values)
        yield
    finally:
        _replace(before)


def _replace(values: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


class Forked:
    """A run's process that was forked, with the part of `subprocess.Popen` that a sweep uses."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], piped: bool) -> None:
        context = multiprocessing.get_context("forkserver")
        stdin, ours = context.Pipe(duplex=False)
        error, stderr = context.Pipe(duplex=False)
        output, stdout = context.Pipe(duplex=False) if piped else (None, _copy(1))
        ready, theirs = context.Pipe(duplex=False)
        self.stdin = os.fdopen(os.dup(ours.fileno()), "wb")
        self.stderr = os.fdopen(os.dup(error.fileno()), "rb")
        self.stdout = os.fdopen(os.dup(output.fileno()), "rb") if output else None
        streams = (stdin, stdout, stderr)
        arguments = (list(words), dict(environment), os.getcwd(), streams, theirs)
        self._process = context.Process(target=_become, args=arguments)
        self._process.start()
        for end in (*streams, theirs, ours, error, *([output] if output else [])):
            end.close()
        ready.poll(None)  # the end is closed: from here on, signals have their effect
        ready.close()

    @property
    def returncode(self) -> int | Any:
        """As `subprocess.Popen` has it: the exit code, or the negative number of the signal."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.exitcode

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        self._process.join()
        code = self._process.exitcode
        assert code is not None
        return code

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless it has ended."""
        if self._process.exitcode is None and self._process.pid is not None:
            os.kill(self._process.pid, signum)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def _copy(descriptor: int) -> Connection:
    return Connection(os.dup(descriptor), readable=False)


def _text(descriptor: int, like: TextIO) -> TextIO:
    """A stream of what the descriptor is now; Python's own may have begun in a file."""
    return open(
        descriptor, "w", buffering=1, encoding=like.encoding, errors=like.errors, closefd=False
    )


def _become(
    words: list[str],
    environment: dict[str, str],
    folder: str,
    streams: tuple[Connection, Connection, Connection],
    ready: Connection,
) -> None:
    """Turn a forked process into what `python -m lwbench.sweeps.job` is, and train."""
    os.setsid()
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    ready.close()
    for descriptor, stream in enumerate(streams):
        os.dup2(stream.fileno(), descriptor)
        stream.close()
    sys.stdout, sys.stderr = _text(1, sys.stdout), _text(2, sys.stderr)
    _replace(environment)
    os.chdir(folder)
    faulthandler.enable()
    sys.orig_argv = job.command(words)
    try:
        job.run(words)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out before Python 3.14
