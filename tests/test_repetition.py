"""After correct output every command ends with 0 and says nothing on standard error, every time."""

import os
import subprocess
import sys

import pytest
from test_interruption import image_tree

REPETITIONS = 100
TRAIN = ["train", "model=mb0", "data=folder", "data.root=images", "image_size=32", "epochs=1",
         "batch_size=12", "device=cpu", "workers=16", "threads=1"]  # fmt: skip
VERBS = {
    "train": [*TRAIN, "out=out-{n}"],
    "sweep": [*TRAIN[:1], "-m", *TRAIN[1:], "seed=0,1", "jobs=2", "out=sweep-{n}"],
    "eval": ["eval", "run={run}", "workers=16", "device=cpu"],
    "check": ["check", "data=folder", "data.root=images", "workers=16"],
    "profile": ["profile", "model=mb0", "image_size=32"],
    "table": ["table", "table=ldc/4"],
    "reproduce": ["reproduce", "table=ldc/4", "columns=cifar10", "dry_run=true"],
    "report": ["report", "out=runs", "out_dir=report-{n}"],
    "list": ["list", "model"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repetition")
    image_tree(folder / "images")
    run = subprocess.run(
        [sys.executable, "-m", "lwbench", *TRAIN, "out=runs"], cwd=folder, capture_output=True
    )
    assert run.returncode == 0
    return folder


@pytest.fixture
def load():
    """Busy processes until the machine has twice as many as cores; other work there counts."""
    code = "while True: sum(range(10000))"
    missing = max(0, 2 * os.cpu_count() - int(os.getloadavg()[0]))
    busy = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(missing)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("verb", VERBS)
def test_a_hundred_repetitions_under_load_end_alike(verb, folder, load, tmp_path):
    (run,) = (folder / "runs").glob("*/*/*/")
    places = {"TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(folder / "cache")}
    for number in range(int(os.environ.get("LWBENCH_REPETITIONS", REPETITIONS))):
        words = [word.format(n=number, run=run) for word in VERBS[verb]]
        done = subprocess.run(
            [sys.executable, "-m", "lwbench", *words], cwd=folder, capture_output=True, text=True,
            env={**os.environ, **places},
        )  # fmt: skip
        # a table is counted once, which thop and torch may comment on
        assert (done.returncode, done.stderr) == (0, ""), f"repetition {number}"
        left = [p.name for p in tmp_path.iterdir() if not p.name.startswith("torchinductor")]
        assert not left, "a temporary file is left; torch's own cache is meant to stay"
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert str(folder) not in left, "a process is left"
