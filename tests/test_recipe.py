"""What is ours in a recipe is read from the marks in the configuration files."""

from lwbench.runs.runconfig import RunConfig
from lwbench.tables.recipe import marks, ours

VALUES = {
    "batch_size": 128, "image_size": 224, "epochs": 100, "label_smoothing": 0.0,
    "data": {"builder": "cifar10", "augment": {"flip": True, "mixup": 0.0},
             "recipe": {"batch_size": 128}},
    "optimizer": {"builder": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
    "model": {"builder": "mobilenet_ldc"}, "scheduler": {"builder": "cosine"},
}  # fmt: skip
CONFIG = RunConfig.stored(VALUES, "")


def test_marks_stand_behind_a_value_above_it_or_behind_what_holds_it():
    found = marks("data", "cifar10")
    assert (found["recipe.lr"], found["recipe.batch_size"]) == (False, True)
    assert found["recipe.image_size"]  # a comment of several lines above it
    assert found["augment.flip"]  # said of all augmentation
    assert all(marks("data", "digits").values())
    assert marks("data", "my_own_images") == {}


def test_every_value_of_a_recipe_is_marked():
    for data in ("cifar10", "cifar100", "caltech256"):
        assert {key for key in marks("data", data) if key.startswith("recipe.")} >= {
            f"recipe.{key}" for key in ("lr", "dropout", "epochs", "batch_size", "momentum")
        }
    for name in ("ldc", "hsnet", "dcnn", "mbv1", "resmb"):
        assert any(marks("experiment", name).values())


def test_values_of_ours_are_told_under_the_keys_that_runs_have():
    assert ours([("cifar10", "ldc", CONFIG)]) == [
        "batch_size 128", "image_size 224", "data.augment.flip True", "optimizer.momentum 0.9",
        "optimizer.nesterov True",
    ]  # fmt: skip


def test_an_experiments_marks_go_before_the_data_sets():
    assert "optimizer.lr 0.05" in ours([("cifar10", "hsnet", CONFIG)])  # hsnet states no rate
    assert "batch_size 128" not in ours([("cifar10", "resmb", CONFIG)])  # resmb does state it


def test_values_that_differ_between_data_sets_name_them():
    other = CONFIG.changed({"batch_size": 64})
    assert ours([("cifar10", "ldc", CONFIG), ("cifar100", "ldc", other)])[:2] == [
        "batch_size 128 (cifar10)", "batch_size 64 (cifar100)",
    ]  # fmt: skip
