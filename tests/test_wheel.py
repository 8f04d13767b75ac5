"""The wheel: built, installed into a clean environment, run in an empty folder."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("not in a checkout")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_every_configuration_file_and_nothing_else_of_the_checkout(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert f"lwbench/conf/{path.relative_to(ROOT / 'conf')}" in names
    for path in (ROOT / "lwbench" / "report" / "templates").iterdir():
        assert f"lwbench/report/templates/{path.name}" in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lwbench"}


def test_the_installed_wheel_trains_in_an_empty_folder(wheel, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH", raising=False)  # it would hide what is installed
    # the dependencies are this environment's: installing gigabytes again would show nothing more
    venv.create(tmp_path / "env", with_pip=False)
    scripts = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    site = Path(
        subprocess.check_output(
            [scripts / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            text=True,
        ).strip()
    )
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", scripts / "python", "install", "-q"]
    done = subprocess.run([*pip, "--no-deps", "--no-index", wheel], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    quick = ["epochs=1", "batch_size=512", "image_size=8", "model=mb0"]
    done = subprocess.run(
        [scripts / "lwbench", "train", *quick], cwd=empty, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "finished: outputs/digits/mb0/" in done.stdout
    where = subprocess.check_output(
        [scripts / "python", "-c", "import lwbench; print(lwbench.__file__)"], cwd=empty, text=True
    )
    assert where.startswith(str(site))
