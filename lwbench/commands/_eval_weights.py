"""Evaluate `weights=` of a configured network on a data set, as their authors did where known."""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LwbenchError, UsageError
from ..logs import console, log
from ..registry import DATASETS, MODELS, Spec, validated
from ..runs.images import require_same_classes
from ..runs.keys import Group
from ..runs.schema import Images
from ..runs.sources import allow
from ._building import prepared_device
from ._eval_images import Options, TestImages, test_images
from ._evaluation_record import record
from ._figures import figure_line, show_details, write_predictions
from ._weights import GivenWeights, read_weights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..engine.evaluate import Evaluation


def evaluate_weights(values: Mapping[str, Any], choices: Mapping[str, str]) -> int:
    """Evaluate weights on the test images of a data set, show the figures and record them.

    `choices`: the option chosen in each group. What is recorded: see `_evaluation_record`.

    Raises UsageError for weights or images that do not fit, and for unlabelled images without
    `predictions`.
    """
    own = {key: value for key, value in values.items() if key not in ("model", "data")}
    options = Options(**validated(Options, own, ""))
    device = prepared_device(options.device)
    import torch

    from ..layers import depthwise

    given = read_weights(options.weights)
    model_group, data_group = (Group.model_validate(values[kind]) for kind in ("model", "data"))
    allow(values["model"])  # a network in a file that this command names
    spec = MODELS.spec(model_group.spec)
    images = test_images(DATASETS.spec(data_group.spec), options, given, device)
    now = Images(classes=len(images.class_names), class_names=tuple(images.class_names))
    require_same_classes(given.trained, now, given.name)
    model, class_names = network_of_weights(spec, given, images.class_names, options.partial)
    model.to(device).to(memory_format=torch.channels_last)
    if device.type == "cpu":  # as in training, or the last digits differ
        depthwise.accelerate(model)
    if images.steps:
        console().print(f"images       {images.steps}")
    if bool((images.labels < 0).any()):
        return _predict(model, images, class_names, options, device)
    found = _evaluate(model, images, class_names, options, device, given.name)
    if options.out is not None:
        record(found, values, choices, options, images, device)
    return 0


# --- network ------------------------------------------------------------------------------------


def network_of_weights(
    spec: Spec, given: GivenWeights, class_names: Sequence[str], partial: bool = False
) -> tuple["nn.Module", Sequence[str]]:
    """The network with the weights, on the CPU, and the names of its classes.

    `class_names`: of the images. A network of ImageNet's 1,000 classes may be evaluated on images
    of some of them.
    """
    from ..measure.data_free import outline

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
    is_converted = given.converts_input(model, spec)
    if is_converted:
        model.transform_input = True
    elif is_converted is False and given.trained.classes is None:
        log.warning(
            "%s is not a file that torchvision publishes, by its digest, so images are not "
            "converted to [-1, 1]; for weights that need it, lwbench eval takes "
            "preprocess.mean=[0.5,0.5,0.5] preprocess.std=[0.5,0.5,0.5]",
            given.name,
        )
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
) -> "Evaluation":
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
    return found


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
