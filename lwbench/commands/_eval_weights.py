"""Evaluate `weights=` of a configured network on a data set, as their authors did where known."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from ..errors import LwbenchError, UsageError
from ..logs import console
from ..registry import DATASETS, MODELS, Spec, validated
from ..runs.directory import Run
from ..runs.images import require_same_classes
from ..runs.machine import usable_cores
from ..runs.runconfig import Group, ImageSize, Precision
from ..runs.schema import Images
from ..runs.sources import allow
from ._building import built_data, prepared_device
from ._figures import figure_line, show_details, write_predictions
from ._weights import GivenWeights, read_weights

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from ..data.preprocessing import Transform

Three = Annotated[list[float], Field(min_length=3, max_length=3)]
Batches = Callable[[], Iterator[tuple["Tensor", "Tensor"]]]


class Options:
    """The keys of an evaluation besides model and data; the signature is their schema."""

    def __init__(
        self,
        *,
        weights: str,
        weights_partial: bool = False,
        run: str | None = None,
        batch_size: PositiveInt,
        image_size: ImageSize,
        device: str = "auto",
        precision: Precision = "auto",
        workers: NonNegativeInt | None = None,
        predictions: str | None = None,
        preprocess: dict[str, Any],
        trust_code: bool = False,
    ) -> None:
        self.weights, self.partial = weights, weights_partial
        self.batch_size, self.image_size = batch_size, image_size
        self.device, self.precision, self.workers = device, precision, workers
        self.predictions = Path(predictions) if predictions else None
        keys = validated(Preprocess, preprocess, "preprocess")
        self.preprocess = {key: value for key, value in keys.items() if value is not None}


class Preprocess:
    """The keys under `preprocess`; the signature is their schema."""

    def __init__(
        self,
        *,
        resize: ImageSize | None = None,
        crop: ImageSize | None = None,
        interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None,
        antialias: bool | None = None,
        mean: Three | None = None,
        std: Three | None = None,
    ) -> None:
        """Never called; see `data.preprocessing.Steps`."""


@dataclass(frozen=True)
class TestImages:
    """Images to evaluate on. `names`: what stands for each image, a path or a number.

    `labels`: (N,) int64, negative where they are not known.
    """

    class_names: Sequence[str]
    labels: "Tensor"
    names: Sequence[object]
    batches: Batches
    steps: str = ""  # of preprocessing, where it is that of authors


def evaluate_weights(values: Mapping[str, Any]) -> int:
    """Evaluate weights on the test images of a data set and show the figures.

    Raises UsageError for weights or images that do not fit, and for unlabelled images without
    `predictions`.
    """
    own = {key: value for key, value in values.items() if key not in ("model", "data")}
    options = Options(**validated(Options, own, ""))
    device = prepared_device(options.device)
    given = read_weights(options.weights)
    model_group, data_group = (Group.model_validate(values[kind]) for kind in ("model", "data"))
    allow(values["model"])  # a network in a file that this command names
    spec = MODELS.spec(model_group.spec)
    images = _test_images(DATASETS.spec(data_group.spec), options, given, device)
    if given.path is not None:
        # weights in a run directory were trained on the classes that are recorded there
        trained = Run(given.path.absolute().parent.parent).environment().data
        now = Images(classes=len(images.class_names), class_names=tuple(images.class_names))
        require_same_classes(trained, now, given.name)
    model, class_names = _network(spec, given, images, options.partial, device)
    if images.steps:
        console().print(f"images       {images.steps}")
    if bool((images.labels < 0).any()):
        return _predict(model, images, class_names, options, device)
    return _evaluate(model, images, class_names, options, device, given.name)


# --- images -------------------------------------------------------------------------------------


def _test_images(
    spec: Spec, options: Options, given: GivenWeights, device: "torch.device"
) -> TestImages:
    if given.public is None and not options.preprocess:
        return _as_in_training(spec, options, device)
    from ..data.preprocessing import preprocessed

    splits = spec.build().splits()
    files: Sequence[str] | np.ndarray
    if splits is not None:
        import torch

        for fault in splits.test.faults.values():
            raise UsageError(fault)
        class_names, files = splits.train.class_names, splits.test.paths
        labels = torch.tensor(splits.test.labels, dtype=torch.int64)
        stored, window, mean, std = 8, 7, None, None  # a margin of an eighth, as in training
    else:
        source = spec.build().load(options.image_size)
        assert source.test.images is not None, "a set without files is in memory"
        class_names, files = source.class_names, source.test.images.numpy()
        labels, mean, std = source.test.labels, source.mean, source.std
        stored, window = source.stored, source.window
    if not len(labels):
        raise UsageError("no images to test on")
    fallback = {
        "resize": round(options.image_size * stored / window),
        "crop": options.image_size,
        "mean": mean,
        "std": std,
    }
    transform, size, steps = _transform(given, options.preprocess, fallback)
    workers = usable_cores() if options.workers is None else options.workers

    def batches() -> Iterator[tuple["Tensor", "Tensor"]]:
        return preprocessed(
            files,
            labels,
            transform,
            size=size,
            batch_size=options.batch_size,
            workers=workers,
            device=device,
        )

    names: Sequence[object] = range(len(labels)) if splits is None else list(files)
    return TestImages(class_names, labels, names, batches, steps)


def _as_in_training(spec: Spec, options: Options, device: "torch.device") -> TestImages:
    data = built_data(
        spec,
        {},
        image_size=options.image_size,
        batch_size=options.batch_size,
        seed=0,
        device=device,
        workers=options.workers or 0,
    )
    test = data.source.test
    names = test.paths or range(len(test))
    return TestImages(data.class_names, test.labels, names, lambda: data.eval_batches("test"))


def _transform(
    given: GivenWeights, keys: Mapping[str, Any], fallback: Mapping[str, Any]
) -> tuple["Transform", int, str]:
    """The authors' own transform; with keys, their steps or the data set's with these changes."""
    from ..data.preprocessing import Steps

    if given.public is not None:
        if not keys:
            return given.public.transform, given.public.size, given.public.text
        if given.public.steps is None:
            raise UsageError(
                f"preprocess.{next(iter(keys))}: {given.name} was evaluated in steps that these "
                f"keys cannot express ({given.public.text})"
            )
        fallback = given.public.steps
    values = {**fallback, **keys}
    if missing := [key for key in ("mean", "std") if values.get(key) is None]:
        raise UsageError(
            f"preprocess.{missing[0]} is needed beside the other preprocess keys, such as "
            "[0.485,0.456,0.406] and [0.229,0.224,0.225] for most networks of ImageNet"
        )
    if values["crop"] > values["resize"]:
        # given alone, a larger crop keeps the margin
        if "resize" in keys:
            raise UsageError(
                f"preprocess.crop={values['crop']} is larger than preprocess.resize="
                f"{values['resize']}"
            )
        values["resize"] = values["crop"]
    steps = Steps(**values)
    return steps.transform(), steps.crop, str(steps)


# --- network ------------------------------------------------------------------------------------


def _network(
    spec: Spec, given: GivenWeights, images: TestImages, partial: bool, device: "torch.device"
) -> tuple["nn.Module", Sequence[str]]:
    """The network with the weights, and the names of its classes.

    A network of ImageNet's 1,000 classes may be evaluated on images of some of them.
    """
    import torch

    from ..layers import depthwise
    from ..measure.data_free import outline

    class_names = images.class_names
    try:
        # sizes are compared before memory is allocated for them
        without_weights = outline(lambda: spec.build(len(class_names)))
    except UsageError as error:
        raise UsageError(f"{given.name}: {error}") from None
    classes = given.check(without_weights, spec, partial=partial)
    if classes is not None:
        class_names = _all_classes(class_names, classes)
    model = spec.build(len(class_names))
    if remark := given.load(model, spec, partial=partial):
        console().print(f"{given.name}: {remark}")
    if given.public is not None and hasattr(model, "transform_input"):
        # torchvision's GoogLeNet and Inception have weights that expect another normalisation
        model.transform_input = True
    model.to(device).to(memory_format=torch.channels_last)
    if device.type == "cpu":  # as in training, or the last digits differ
        depthwise.accelerate(model)
    return model, class_names


def _all_classes(names: Sequence[str], classes: int) -> Sequence[str]:
    """ImageNet's 1,000 classes where the images are of some of them, otherwise the names given."""
    from ..data.wnids import imagenet_wnids

    wnids = imagenet_wnids()
    return wnids if classes == len(wnids) and set(names) <= set(wnids) else names


# --- figures ------------------------------------------------------------------------------------


def _evaluate(
    model: "nn.Module",
    images: TestImages,
    class_names: Sequence[str],
    options: Options,
    device: "torch.device",
    name: str,
) -> int:
    import torch

    from ..engine.evaluate import evaluate
    from ..engine.precision import autocast, resolved_precision

    cast = autocast(resolved_precision(options.precision, device), device)
    label_of = {class_name: label for label, class_name in enumerate(class_names)}
    index = torch.tensor([label_of[each] for each in images.class_names], device=device)
    batches = ((x, index[labels]) for x, labels in images.batches())
    begin = time.perf_counter()
    found = evaluate(model, batches, len(class_names), autocast=cast, probabilities=True)
    seconds = time.perf_counter() - begin
    if not math.isfinite(found.loss):
        raise LwbenchError(
            f"{name}: the loss on the test images is {found.loss}, so its accuracy means nothing"
        )
    console().print(figure_line(Path(name).name, found))
    if len(class_names) > len(images.class_names):
        console().print(
            f"classes      {len(images.class_names)} of the network's {len(class_names):,}: "
            "images of a part of ImageNet, whose accuracy is not that of the whole"
        )
    show_details(found, class_names, seconds)
    if options.predictions:
        assert found.probability is not None
        write_predictions(
            options.predictions,
            images.names,
            found.labels,
            found.predictions,
            found.probability,
            class_names,
        )
    return 0


def _predict(
    model: "nn.Module",
    images: TestImages,
    class_names: Sequence[str],
    options: Options,
    device: "torch.device",
) -> int:
    from ..engine.evaluate import predict
    from ..engine.precision import autocast, resolved_precision

    if options.predictions is None:
        raise UsageError(
            "the test images have no labels, so there is no accuracy\n"
            "predictions=<file.csv> writes what each image is taken for"
        )
    cast = autocast(resolved_precision(options.precision, device), device)
    predicted, probability = predict(model, images.batches(), autocast=cast)
    write_predictions(options.predictions, images.names, None, predicted, probability, class_names)
    return 0
