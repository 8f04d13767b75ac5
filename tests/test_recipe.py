"""The recipe values that are ours: lists in the configuration files, truthful for every table."""

import pytest
import yaml

from lwbench.config import train_configs
from lwbench.errors import UsageError
from lwbench.paths import conf_folder
from lwbench.runs.runconfig import RunConfig
from lwbench.tables import published
from lwbench.tables.recipe import is_ours, ours

EXPERIMENTS = sorted(path.stem for path in (conf_folder() / "experiment").glob("*.yaml"))
SETS = sorted(path.stem for path in (conf_folder() / "data").glob("*.yaml"))
VALUES = {
    "batch_size": 128, "image_size": 224, "epochs": 100, "label_smoothing": 0.0,
    "data": {"builder": "cifar10", "augment": {"flip": True, "mixup": 0.0},
             "recipe": {"batch_size": 128}},
    "optimizer": {"builder": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
    "model": {"builder": "mobilenet_ldc"}, "scheduler": {"builder": "cosine"},
}  # fmt: skip
CONFIG = RunConfig.stored(VALUES, "")

# What each document states of how it trained, in shared/papers/README.md; all else is ours.
STATED = {
    "ldc": {
        "optimizer.builder", "optimizer.lr", "epochs", "model.dropout", "scheduler.builder",
        "scheduler.restart_epochs", "scheduler.restart_factor", "scheduler.eta_min",
        "label_smoothing",
    },
    "dcnn": {"image_size"},
    "hsnet": set(),
    "mbv1": {
        "optimizer.builder", "optimizer.decay_depthwise", "image_size", "data.crop",
        "data.augment.crop_padding",
    },
    "resmb": {"optimizer.builder", "epochs", "batch_size", "image_size"},
    # of no document
    "imagenet_modern": set(),
    "finetune": set(),
}  # fmt: skip
# Keys of a configuration that are no recipe: the network, the data set and how it is stored.
NOT_RECIPE = ("model.", "data.", "compile", "precision")


def runs(table):
    """The accuracy runs of a table: data set, experiment and configuration of each."""
    trains = {f.train: f.data for f in table.figures if f.train}
    configs = train_configs(trains)
    for train, data in trains.items():
        (experiment,) = (part[11:] for part in train if part.startswith("experiment="))
        yield data, experiment, configs[train]


def listed(group, option):
    """The content of a configuration file, and what it lists as ours."""
    text = (conf_folder() / group / f"{option}.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    return content, content.pop("ours")


def holds(content, key):
    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            return False
        content = content[part]
    return True


@pytest.mark.parametrize("name", published.names())
def test_nothing_that_the_document_states_is_called_ours(name):
    (table,) = published.load(name)
    for data, experiment, config in runs(table):
        found = {key for key in config.flat if is_ours(key, data, experiment)}
        assert found & STATED[experiment] == set(), (data, experiment)
        captions = " ".join(ours([(data, experiment, config)]))
        for key in STATED[experiment]:
            assert f"{key.removesuffix('.builder')} " not in captions


@pytest.mark.parametrize("name", published.names())
def test_every_value_of_the_recipe_that_the_document_leaves_open_is_called_ours(name):
    (table,) = published.load(name)
    for data, experiment, config in runs(table):
        for key in config.identifying:
            is_recipe = key.startswith("data.augment.") or not key.startswith(NOT_RECIPE)
            # at which size the CIFAR forms of networks ran is said in the table's notes
            if is_recipe and key not in STATED[experiment] and key != "image_size":
                assert is_ours(key, data, experiment), (data, experiment, key)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_lists_keys_that_it_or_its_data_sets_set(name):
    content, entries = listed("experiment", name)
    data, _ = listed("data", "cifar10")
    assert entries and len(set(entries)) == len(entries)
    for entry in entries:
        assert holds(content, entry) or holds({"data": {"recipe": data["recipe"]}}, entry), entry


@pytest.mark.parametrize("name", SETS)
def test_a_data_set_lists_keys_that_it_sets(name):
    content, entries = listed("data", name)
    assert entries and len(set(entries)) == len(entries)
    for entry in entries:
        assert holds(content, entry), entry


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_value_of_an_experiment_is_either_ours_or_stated(name):
    content, _ = listed("experiment", name)
    del content["defaults"]
    keys = [key for key in train_configs([(f"experiment={name}",)])[f"experiment={name}",].flat]
    values = [key for key in keys if holds(content, key)]
    assert len(values) >= 8
    for key in values:
        assert is_ours(key, "imagenet", name) != (key in STATED[name]), key


def test_the_list_enters_no_configuration_and_cannot_be_set():
    plain = ("model=ldc3", "data=cifar10")
    made = train_configs([plain, (*plain, "experiment=ldc")]).values()
    assert {one.identity for one in made} == {"2f142d37"}
    assert not any("ours" in key for one in made for key in one.flat)
    for override in ("ours=[lr]", "+ours=[lr]", "data.ours=[]"):
        with pytest.raises(UsageError, match="ours"):
            train_configs([(*plain, "experiment=ldc", override)])


def test_values_of_ours_are_told_under_the_keys_that_runs_have():
    assert ours([("cifar10", "ldc", CONFIG)]) == [
        "batch_size 128", "image_size 224", "data.augment.flip True", "optimizer.momentum 0.9",
        "optimizer.nesterov True",
    ]  # fmt: skip


def test_an_experiments_list_goes_before_the_data_sets():
    assert "optimizer.lr 0.05" in ours([("cifar10", "hsnet", CONFIG)])  # hsnet states no rate
    assert "batch_size 128" not in ours([("cifar10", "resmb", CONFIG)])  # resmb does state it
    assert "image_size 224" not in ours([("imagenet", "dcnn", CONFIG)])


def test_a_users_own_images_have_no_list():
    assert ours([("my_own_images", None, CONFIG)]) == []


def test_values_that_differ_between_data_sets_name_them():
    other = CONFIG.changed({"batch_size": 64})
    assert ours([("cifar10", "ldc", CONFIG), ("cifar100", "ldc", other)])[:2] == [
        "batch_size 128 (cifar10)", "batch_size 64 (cifar100)",
    ]  # fmt: skip
