"""What a run does before its first step: imports, and what is refused before a file is written."""

import os
import subprocess
import sys

import pytest

from lwbench.cli import main
from lwbench.commands._building import check_batch_of_one
from lwbench.config import train_config
from lwbench.registry import MODELS

QUICK = ["train", "model=mb0", "epochs=1", "batch_size=512", "image_size=8", "device=cpu"]
# each takes longer to import than a short epoch takes to train
SLOW_IMPORTS = (
    "torch._dynamo", "torchvision", "sklearn", "scipy.stats", "matplotlib", "pandas",
    "hydra",  # the sweep has composed the configuration
)  # fmt: skip


def test_a_sweeps_run_of_a_known_network_imports_nothing_slow_but_torch(tmp_path):
    assert main([*QUICK, f"out={tmp_path / 'first'}"]) == 0  # its counts are cached from here on
    code = (
        "import sys; from lwbench.cli import main; code = main(sys.argv[1:]); "
        f"print(*(m for m in {SLOW_IMPORTS} if m in sys.modules), file=sys.stderr); sys.exit(code)"
    )
    words = [*QUICK, "seed=1", f"out={tmp_path / 'second'}"]
    passed_on = train_config(words[1:]).as_environment
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True,
        env={**os.environ, **passed_on},
    )  # fmt: skip
    assert (done.returncode, done.stderr.split()) == (0, [])


@pytest.mark.parametrize("model", ["mb0", "ldc3", "mobilenetv3_small"])
def test_a_batch_of_one_that_batch_norm_cannot_train_on_is_refused_before_a_run_is_written(
    model, tmp_path, capsys
):
    words = ["train", f"model={model}", "image_size=32", "batch_size=1", f"out={tmp_path / 'out'}"]
    assert main(words) == 2
    message = capsys.readouterr().err
    assert "batch_size=1" in message and "batch norm" in message
    assert not (tmp_path / "out").exists()


def test_a_batch_of_one_is_fine_for_a_network_without_batch_norm():
    config = train_config(["model=squeezenet_11"])
    check_batch_of_one(MODELS.build(config.model.spec, 10), 64)
