"""`eval weights=`: pixels of the authors' pipelines, figures, parts of ImageNet, predictions."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models as peers
from torchvision.datasets import ImageFolder

from lwbench import create_model
from lwbench.cli import main
from lwbench.data.preprocessing import Steps, opened, preprocessed
from lwbench.data.sets import arrays
from lwbench.data.wnids import imagenet_wnids
from lwbench.engine.figures import calibration_error, class_accuracies, confusions
from lwbench.runs.images import PUBLISHED, digest_of_names

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photograph(path, rng, size=(90, 70), mode="RGB"):
    """A smooth picture with noise, as a JPEG of ordinary quality."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = rng.integers(0, 255, (6, 7, 3), np.uint8)
    image = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    noisy = np.asarray(image).astype(int) + rng.integers(-20, 20, (size[1], size[0], 3))
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode).save(path, quality=85)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five of ImageNet's classes, four validation images each, of several sizes and modes."""
    root, rng = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for number in (900, 3, 17, 500, 1):
        wnid = imagenet_wnids()[number]
        for split, count in (("train", 2), ("val", 4)):
            for image in range(count):
                size, mode = [(90, 70), (64, 120), (48, 48), (200, 97)][image], "RGB"
                if image == 1:
                    mode = "L"
                photograph(root / split / wnid / f"{image}.JPEG", rng, size, mode)
    return root


def ours(root, transform, size):
    set_ = ImageFolder(root / "val")
    paths = [path for path, _ in set_.samples]
    labels = torch.tensor(set_.targets)
    found = preprocessed(
        paths, labels, transform, size=size, batch_size=7, workers=2, device=torch.device("cpu")
    )
    images, targets = zip(*found, strict=True)
    assert torch.cat(targets).equal(labels)
    return torch.cat(images)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize, crop", [(72, 64), (232, 224), (40, 40)])
def test_pixels_equal_torchvisions_pipeline_exactly(interpolation, resize, crop, folder):
    from torchvision import transforms

    theirs = transforms.Compose(
        [
            transforms.Resize(resize, transforms.InterpolationMode(interpolation)),
            transforms.CenterCrop(crop),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    expected = torch.stack([image for image, _ in ImageFolder(folder / "val", theirs)])
    steps = Steps(resize=resize, crop=crop, interpolation=interpolation, mean=MEAN, std=STD)
    assert ours(folder, steps.transform(), crop).equal(expected)


@pytest.mark.parametrize(
    "name", ["mobilenetv3_small_100.lamb_in1k", "tf_mobilenetv3_small_100.in1k"]
)
def test_pixels_equal_timms_pipeline_exactly(name, folder):
    timm = pytest.importorskip("timm")
    from timm.data import create_dataset, create_transform, resolve_data_config

    config = timm.get_pretrained_cfg(name)
    settings = resolve_data_config({}, pretrained_cfg=config.to_dict())
    dataset = create_dataset("", root=str(folder / "val"))
    dataset.transform = create_transform(**settings, is_training=False)
    expected = torch.stack([image for image, _ in dataset])
    steps = Steps(
        resize=int(224 / settings["crop_pct"]),
        crop=224,
        interpolation=settings["interpolation"],
        mean=settings["mean"],
        std=settings["std"],
    )
    assert ours(folder, steps.transform(), 224).equal(expected)


@pytest.mark.parametrize("place", ["imagenet/val", "caltech256/256_ObjectCategories"])
def test_pixels_of_real_photographs_equal_those_of_the_weights_own_pipeline(place):
    root = Path(__file__).parents[2] / "shared" / "data" / place
    if not root.is_dir():
        pytest.skip(f"no photographs at {root}")
    paths = [path for path, _ in ImageFolder(root).samples][::13][:30]
    theirs = peers.MobileNet_V2_Weights.IMAGENET1K_V2.transforms()  # on Pillow's images
    expected = torch.stack([theirs(Image.open(path).convert("RGB")) for path in paths])
    steps = Steps(resize=232, crop=224, interpolation="bilinear", mean=MEAN, std=STD)
    labels = torch.zeros(len(paths), dtype=torch.long)
    found = preprocessed(
        paths,
        labels,
        steps.transform(),
        size=224,
        batch_size=7,
        workers=2,
        device=torch.device("cpu"),
    )
    assert torch.cat([images for images, _ in found]).equal(expected)


def test_without_antialias_pixels_differ_from_pillows(folder):
    image = opened(next((folder / "val").rglob("3.JPEG")))
    with_it, without = (
        Steps(resize=40, crop=40, antialias=on, mean=MEAN, std=STD).transform()(image)
        for on in (True, False)
    )
    assert not with_it.equal(without)


def test_the_wnids_are_those_of_the_published_set_in_order():
    assert digest_of_names(imagenet_wnids()) == PUBLISHED["imagenet"].names


@pytest.fixture(scope="module")
def squeezenet(folder):
    torch.manual_seed(0)
    model = peers.squeezenet1_1().eval()
    torch.nn.init.normal_(model.classifier[1].weight, 0.0, 0.1)
    torch.save(model.state_dict(), folder / "squeezenet.pth")
    return model


KEYS = [f"preprocess.mean={list(MEAN)}", f"preprocess.std={list(STD)}"]


def evaluation(folder, *arguments):
    set_ = ["data=imagenet", f"data.root={folder}", "image_size=64", "device=cpu"]
    weights = f"weights={folder / 'squeezenet.pth'}"
    return main(["eval", "model=squeezenet_11", weights, *set_, *KEYS, *arguments])


def test_a_part_of_imagenet_is_scored_with_the_labels_of_the_whole(
    folder, squeezenet, capsys, tmp_path
):
    assert evaluation(folder, f"predictions={tmp_path / 'p.csv'}") == 0
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    steps = Steps(resize=73, crop=64, mean=MEAN, std=STD).transform()
    with torch.no_grad():
        logits = squeezenet(torch.stack([steps(opened(row["path"])) for row in rows]))
    predicted = logits.argmax(1)
    assert [row["prediction"] for row in rows] == [imagenet_wnids()[i] for i in predicted]
    expected = logits.softmax(1).amax(1)
    assert np.allclose([float(row["probability"]) for row in rows], expected, atol=1e-5)
    assert all(f"/val/{row['label']}/" in row["path"] for row in rows) and len(rows) == 20
    truth = torch.tensor([imagenet_wnids().index(row["label"]) for row in rows])
    loss = torch.nn.functional.cross_entropy(logits, truth)
    out = capsys.readouterr().out
    assert f"loss {loss:.4f}"[:-1] in out and "5 of the network's 1,000" in out


def test_other_class_names_are_not_taken_for_a_part_of_imagenet(folder, squeezenet, capsys):
    weights = f"weights={folder / 'squeezenet.pth'}"
    assert main(["eval", "model=squeezenet_11", weights, "data=digits", "device=cpu"]) == 2
    assert "1000 classes" in capsys.readouterr().err


def test_mean_and_deviation_are_needed_beside_other_preprocess_keys(folder, squeezenet, capsys):
    weights = [f"weights={folder / 'squeezenet.pth'}", "model=squeezenet_11"]
    images = ["data=imagenet", f"data.root={folder}", "preprocess.resize=80"]
    assert main(["eval", *weights, *images]) == 2
    assert "preprocess.mean is needed" in capsys.readouterr().err


# figures


def test_the_calibration_error_is_the_papers():
    rng = np.random.default_rng(0)
    probability, correct = rng.random(500).astype(np.float32), rng.random(500) < 0.6
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (probability > low) & (probability <= low + 1 / 15)
        if inside.any():
            gap = abs(correct[inside].mean() - probability[inside].mean())
            expected += 100 * inside.mean() * gap
    assert calibration_error(probability, correct) == pytest.approx(expected, abs=0.01)
    assert calibration_error(np.ones(4), np.array([True, True, True, False])) == 25


def test_classes_and_confusions_are_counted():
    labels, predictions = np.array([0, 0, 0, 2, 2]), np.array([0, 2, 2, 2, 1])
    assert class_accuracies(labels, predictions) == {0: (1, 3), 2: (1, 2)}
    assert confusions(labels, predictions, 1) == [(0, 2, 2, 3)]
    assert len(confusions(labels, labels, 3)) == 0


# a run: predictions, and CIFAR-10-C


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("cifar"), np.random.default_rng(0)
    for split in ("train", "test"):
        for name in arrays.CIFAR10.class_names:
            photograph(root / split / name / "0.png", rng, (32, 32))
    command = ["train", "model=mobilenetv2", "model.width=0.1", "data=cifar10"]
    command += [f"data.root={root}", f"out={root / 'outputs'}", "image_size=32", "epochs=1"]
    assert main([*command, "device=cpu", "batch_size=10"]) == 0
    (result,) = root.glob("outputs/*/*/*/result.json")
    return result.parent


def test_predictions_of_a_run_have_a_line_per_test_image(run, tmp_path):
    assert main(["eval", f"run={run}", f"predictions={tmp_path / 'p.csv'}"]) == 0
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert [row["label"] for row in rows] == list(arrays.CIFAR10.class_names)
    assert {row["prediction"] for row in rows} <= set(arrays.CIFAR10.class_names)


def test_the_mean_corruption_error_is_over_corruptions_and_severities(
    run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(arrays, "SEVERITY_IMAGES", 20)
    rng, labels = np.random.default_rng(0), np.tile(np.arange(10), 10)
    np.save(tmp_path / "labels.npy", labels)
    for name in ("fog", "brightness", "spatter"):
        np.save(tmp_path / f"{name}.npy", rng.integers(0, 255, (100, 32, 32, 3), np.uint8))
    command = ["eval", f"run={run}", "data=cifar10_c", f"data.root={tmp_path}"]
    assert main([*command, f"reference={run}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = {words[0]: [float(w) for w in words[1:]] for words in map(str.split, lines[2:5])}
    assert set(table) == {"fog", "brightness", "spatter"}
    for figures in table.values():
        assert figures[5] == pytest.approx(np.mean(figures[:5]), abs=0.01) and figures[6] == 100
    mean = np.mean([table["fog"][5], table["brightness"][5]])
    assert f"mean corruption error {mean:.2f} %, unnormalised" in lines[5]
    assert "without spatter" in lines[5] and "100.00 %, normalised" in lines[6]
    assert main([*command, "data.corruption=fog", "data.severity=2"]) == 0
    error = 100 - float(capsys.readouterr().out.split("top-1 ")[1].split(" ")[0])
    assert error == pytest.approx(table["fog"][1], abs=0.01)


@pytest.mark.parametrize("how", ["run", "weights"])
def test_unlabelled_images_are_predicted_and_have_no_accuracy(how, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    lines = []
    for number in range(12):
        photograph(tmp_path / f"{number}.jpg", rng, (32, 32))
        split = "train" if number < 8 else "val" if number < 10 else "test"
        lines.append(f"{number}.jpg,{'' if split == 'test' else 'ab'[number % 2]},{split}")
    (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *lines]))
    keys = ["data=folder", "data.root=list.csv", "data.name=mine"]
    if how == "run":
        small = ["epochs=1", "batch_size=8", "image_size=32", "threads=1", "device=cpu"]
        assert main(["train", "model=mobilenetv1_025", *keys, *small]) == 0
        command = ["eval", f"run={next(Path('outputs').glob('mine/*/*'))}"]
    else:
        torch.save(create_model("mobilenetv1_025", num_classes=2).state_dict(), "net.pt")
        command = ["eval", "model=mobilenetv1_025", "weights=net.pt", "image_size=32", *keys]
    command += ["data.test_split=test", "device=cpu"]
    assert main(command) == 2
    assert "no labels, so there is no accuracy" in capsys.readouterr().err
    assert main([*command, "predictions=p.csv"]) == 0
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert [Path(row["path"]).name for row in rows] == ["10.jpg", "11.jpg"]
    assert {row["label"] for row in rows} == {""} and {row["prediction"] for row in rows} <= {*"ab"}


def test_validation_images_without_training_images_are_evaluated_on(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        photograph(tmp_path / "set" / "val" / name / "1.jpg", rng, (40, 40))
    monkeypatch.chdir(tmp_path)
    torch.save(create_model("mobilenetv1_025", num_classes=2).state_dict(), "net.pt")
    set_ = ["data=folder", "data.root=set", "image_size=32", "device=cpu"]
    for keys in (KEYS, []):
        assert main(["eval", "model=mobilenetv1_025", "weights=net.pt", *set_, *keys]) == 0
        assert "% of 1  ant" in capsys.readouterr().out
    assert main(["train", "model=mobilenetv1_025", *set_, "epochs=1"]) == 2
    assert "no training images; for evaluation only" in capsys.readouterr().err
