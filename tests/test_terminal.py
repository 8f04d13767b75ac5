"""Where commands write: no terminal, no colours, a reader that leaves."""

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

import pytest

from lwbench.cli import main
from lwbench.engine.signals import Interrupted

COMMANDS = [["list"], ["table", "table=ldc/4"], ["train", "--help"], ["profile", "model=mb0"]]
TRAIN = ["train", "model=mb0", "epochs=1", "batch_size=512", "image_size=8"]
ESCAPE = "\x1b"
COLOUR = re.compile(r"\x1b\[[\d;]*(3[0-7]|38|9[0-7])[\d;]*m")


def command(arguments):
    return [sys.executable, "-m", "lwbench", *arguments]


@pytest.mark.parametrize(
    ("arguments", "buffering"),
    [*[(words, "buffered") for words in COMMANDS], (COMMANDS[0], "unbuffered")]
    + [pytest.param(words, "unbuffered", marks=pytest.mark.slow) for words in COMMANDS[1:]],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_reader_that_leaves_ends_the_command_in_silence(arguments, buffering, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    if buffering == "unbuffered":
        environment["PYTHONUNBUFFERED"] = "1"
    reading, writing = os.pipe()
    os.close(reading)  # gone before the first line, where `head -1` leaves after it
    done = subprocess.run(
        command(arguments), cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True,
        env=environment,
    )  # fmt: skip
    os.close(writing)
    assert done.returncode in (0, 128 + signal.SIGPIPE)
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_without_a_terminal_nothing_but_text_is_written(arguments, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 0
    said = capfd.readouterr()
    assert said.out and ESCAPE not in said.out + said.err


def on_a_terminal(arguments, cwd, **more):
    own, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
    process = subprocess.Popen(
        command(arguments), cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1", **more},
    )  # fmt: skip
    os.close(theirs)
    said = b""
    while True:
        try:
            block = os.read(own, 4096)
        except OSError:  # Linux's way to say that the other side is closed
            break
        if not block:
            break
        said += block
    os.close(own)
    assert process.wait() == 0, said
    return said.decode()


@pytest.mark.parametrize(("variables", "unwanted"), [
    ({}, None),
    pytest.param({"NO_COLOR": "1"}, COLOUR, marks=pytest.mark.slow),
    ({"TERM": "dumb"}, re.compile(ESCAPE)),
], ids=["a terminal", "NO_COLOR", "a dumb terminal"])  # fmt: skip
def test_the_progress_bar_has_colours_where_the_terminal_takes_them(variables, unwanted, tmp_path):
    screen = on_a_terminal(TRAIN, tmp_path, **variables)
    assert "epoch 1/1  lr" in screen
    assert not unwanted.search(screen) if unwanted else COLOUR.search(screen)


@pytest.mark.parametrize(("second", "code"), [(KeyboardInterrupt(), 130), (Interrupted(15), 143)])
def test_a_second_signal_shows_no_traceback(monkeypatch, second, code):
    def interrupted(arguments):
        raise second

    monkeypatch.setattr("lwbench.cli._answered", interrupted)
    assert main(["list"]) == code
