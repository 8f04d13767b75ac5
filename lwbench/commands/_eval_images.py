"""The images of `eval weights=`: as in training, or prepared as authors of weights do it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from ..errors import UsageError
from ..registry import Spec, validated
from ..runs.keys import ImageSize, Precision
from ..runs.machine import usable_cores
from ..runs.schema import Images
from ._building import built_data
from ._weights import GivenWeights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..data.preprocessing import Transform

Three = Annotated[list[float], Field(min_length=3, max_length=3)]
# (split "test" or "train", the most images or None) -> batches of images with their labels
Batches = Callable[..., Iterator[tuple["Tensor", "Tensor"]]]


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
        out: str | None = None,
        reference: str | None = None,
        preprocess: dict[str, Any],
        trust_code: bool = False,
    ) -> None:
        self.weights, self.partial = weights, weights_partial
        self.batch_size, self.image_size = batch_size, image_size
        self.device, self.precision, self.workers = device, precision, workers
        self.predictions = Path(predictions) if predictions else None
        self.out = Path(out) if out else None
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

    `labels`: (N,) int64, negative where they are not known. `described`: as a record states them.
    """

    described: Images
    class_names: Sequence[str]
    labels: "Tensor"
    names: Sequence[object]
    batches: Batches
    image_size: int  # of the network's input, px
    steps: str = ""  # of preprocessing, where it is that of authors


def test_images(
    spec: Spec, options: Options, given: GivenWeights, device: "torch.device", seed: int = 0
) -> TestImages:
    """The test images of a data set. `seed`: which of them are taken where not all are wanted."""
    if given.public is None and not options.preprocess:
        return _as_in_training(spec, options, device, seed)
    import numpy as np

    from ..data.draws import evaluation_sample
    from ..data.preprocessing import preprocessed

    splits = spec.build().splits()
    parts: dict[str, tuple[Sequence[str] | np.ndarray, Tensor]]
    if splits is not None:
        import torch

        for fault in splits.test.faults.values():
            raise UsageError(fault)
        class_names = splits.train.class_names
        parts = {
            name: (part.paths, torch.tensor(part.labels, dtype=torch.int64))
            for name, part in splits.parts
        }
        described = Images(
            digest=splits.digest,
            root=str(splits.test.folder),
            train_size=len(splits.train.labels),
            test_size=len(splits.test.labels),
            classes=len(class_names),
            class_names=tuple(class_names),
        )
        stored, window, mean, std = 8, 7, None, None  # a margin of an eighth, as in training
    else:
        source = spec.build().load(options.image_size)
        parts = {}
        for name, held in (("train", source.train), ("test", source.test)):
            assert held.images is not None, "a set without files is in memory"
            parts[name] = held.images.numpy(), held.labels
        class_names, mean, std = source.class_names, source.mean, source.std
        described = source.images(None)
        stored, window = source.stored, source.window
    labels = parts["test"][1]
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

    def batches(
        split: str = "test", most: int | None = None
    ) -> Iterator[tuple["Tensor", "Tensor"]]:
        images, known = parts[split]
        if most is not None and most < len(images):
            rows = evaluation_sample(len(images), most, seed)
            known = known[rows]
            if isinstance(images, np.ndarray):
                images = images[rows.numpy()]
            else:
                images = [images[row] for row in rows]
        return preprocessed(
            images,
            known,
            transform,
            size=size,
            batch_size=options.batch_size,
            workers=workers,
            device=device,
        )

    names: Sequence[object] = range(len(labels)) if splits is None else list(parts["test"][0])
    return TestImages(described, class_names, labels, names, batches, size, steps)


def _as_in_training(spec: Spec, options: Options, device: "torch.device", seed: int) -> TestImages:
    data = built_data(
        spec,
        {},
        image_size=options.image_size,
        batch_size=options.batch_size,
        seed=seed,
        device=device,
        workers=options.workers or 0,
    )
    test = data.source.test
    names = test.paths or range(len(test))
    return TestImages(
        data.source.images(None),
        data.class_names,
        test.labels,
        names,
        data.eval_batches,
        options.image_size,
    )


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
