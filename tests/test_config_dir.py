"""`--config-dir <folder>`: a user's own configuration files, beside ours, for every command."""

import pytest

from lwbench.cli import main
from lwbench.commands._config_dir import using_config_dir
from lwbench.config import expanded, train_config, train_configs
from lwbench.errors import UsageError
from lwbench.paths import conf_files, config_dir_arguments
from lwbench.runs.provenance import this_start
from lwbench.sweeps.plan import PlannedRun

FILES = {
    "model/mine.yaml": "# mb0 with another stem\ndefaults: [mb0, _self_]\nstem: ldc\n",
    "data/few.yaml": "# the digits\ndefaults: [digits, _self_]\n",
    "optimizer/fast.yaml": "# sgd\ndefaults: [sgd, _self_]\nlr: 0.5\n",
    "scheduler/flat.yaml": "# constant\ndefaults: [constant, _self_]\n",
    "experiment/ours.yaml": "# @package _global_\n# two epochs\nepochs: 2\n",
    "table/study.yaml": (
        "source: a study\ncolumns:\n  digits_top1: {kind: top1, data: digits}\n"
        'rows:\n  - {label: one, run: "model=mine epochs=1"}\n'
    ),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        path = tmp_path / "my files" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    return tmp_path / "my files"


def test_a_file_of_every_group_can_be_chosen(folder):
    with using_config_dir(folder):
        config = train_config(
            ["model=mine", "data=few", "optimizer=fast", "scheduler=flat", "experiment=ours"]
        )
        assert config.model_name == "mine" and config.model.spec["stem"] == "ldc"
        assert (config.data_name, config.lr, config.epochs) == ("few", 0.5, 2)
        assert config.scheduler.builder == "constant"
        assert expanded(["model=glob(mi*)"]) == [("model=mine",)]
    with pytest.raises(UsageError, match="no model 'mine'"):
        train_config(["model=mine"])


def test_a_changed_file_is_composed_again(folder):
    request = ("model=mine",)
    stems = []
    for stem in ("ldc", "dc"):
        (folder / "model" / "mine.yaml").write_text(f"defaults: [mb0, _self_]\nstem: {stem}\n")
        with using_config_dir(folder):
            stems.append(train_configs([request])[request].model.spec["stem"])
    assert stems == ["ldc", "dc"]


def test_lists_help_and_tables_know_the_files(folder, capsys):
    flag = ["--config-dir", "my files"]
    assert main(["list", "optimizer", *flag]) == 0
    assert "fast" in capsys.readouterr().out
    assert main(["train", *flag, "--help"]) == 0
    assert "experiment: dcnn" in (shown := capsys.readouterr().out) and " ours" in shown
    assert main(["reproduce", "table=study", "seeds=1", "dry_run=true", *flag]) == 0
    printed = "lwbench train --config-dir 'my files' model=mine epochs=1 data=digits seed=0"
    assert printed in capsys.readouterr().out
    assert main(["table", "table=study", "--config-dir=my files"]) == 0
    assert "one" in capsys.readouterr().out
    assert main(["table", "table=study"]) == 2
    assert "no table 'study'" in capsys.readouterr().err


def test_a_child_process_gets_the_folder_and_a_start_records_it(folder):
    with using_config_dir(folder):
        assert config_dir_arguments() == ["--config-dir", str(folder)]
        job = PlannedRun(("model=mine",), train_config(["model=mine"]))
        assert job.command == f"lwbench train --config-dir '{folder}' model=mine"
        assert this_start().config_dir == str(folder)
    assert this_start().config_dir is None and config_dir_arguments() == []


@pytest.mark.parametrize("name", ["model/ldc3.yaml", "table/ldc/4.yaml", "train.yaml"])
def test_a_name_of_ours_is_refused(folder, name, capsys):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("# another\n")
    assert main(["list", "--config-dir", str(folder)]) == 2
    message = capsys.readouterr().err
    assert f"{folder / name}: lwbench has a file of this name" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "--config-dir", "nowhere"], "--config-dir nowhere: no such folder"),
        (["list", "--config-dir", "."], "none of the folders"),
        (["list", "--config-dir"], "--config-dir takes one folder"),
        (["list", "--config-dir=a", "--config-dir=b"], "--config-dir takes one folder"),
        (["--config-dir", "my files"], "--config-dir needs a command"),
    ],
)
def test_a_wrong_folder_is_an_error_of_a_line(folder, words, message, capsys):
    assert main(words) == 2
    assert message in capsys.readouterr().err
    with using_config_dir(None):
        assert "mine" not in conf_files("model")
