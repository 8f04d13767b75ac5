"""What `export` exports: the network of a run or of `weights=`, with the images to compare on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ..config import specs
from ..errors import LwbenchError, UsageError, shown
from ..logs import log
from ..registry import DATASETS, MODELS, Spec
from ..runs.directory import Run
from ..runs.images import differences, is_same, require_same_classes
from ..runs.keys import Group
from ..runs.runconfig import RunConfig
from ..runs.schema import Images
from ..runs.sources import allow
from ..runs.weights_id import identity_of
from ._building import built_data, prepared_device
from ._eval_images import Options as EvaluationOptions
from ._eval_images import TestImages, test_images
from ._eval_run import run_to_evaluate
from ._eval_weights import network_of_weights
from ._export_options import Options
from ._weights import GivenWeights, read_weights

if TYPE_CHECKING:
    from torch import nn

    from ..data.loader import Data
    from ..deploy.preprocess import Pixels
    from ..deploy.verify import Case
    from ..models.public import PublicWeights

GENERATED = 16  # images that are compared where there are no others
CLASSES = 1000  # where neither data nor weights say how many


@dataclass
class Subject:
    """A network that is computed as PyTorch does it, and the images that it is meant for.

    `data`: prepared as in training; `public`: prepared as the authors of public weights do it;
    neither: there are no images. `authors`: the public weights. `facts`: for the model card.
    """

    name: str
    spec: Spec
    model: "nn.Module"
    class_names: Sequence[str]
    num_classes: int
    image_size: int
    data: "Data | None" = None
    public: TestImages | None = None
    authors: "PublicWeights | None" = None
    facts: dict[str, Any] = field(default_factory=dict)

    def pixels(self) -> "Pixels":
        """How bytes become the input. Raises UsageError where that is not known.

        Images for public weights are resized and cropped before, by Pillow, which no operator
        reproduces.
        """
        from ..deploy.preprocess import Pixels

        if self.data is not None:
            source = self.data.source
            return Pixels(source.window, self.image_size, source.mean, source.std)
        if self.authors is None:
            raise UsageError(
                "preprocess=true needs the data set, whose mean and deviation go into the graph"
            )
        steps = self.authors.steps
        if steps is None:
            raise UsageError(
                f"preprocess=true: {self.authors.tag} is evaluated in steps whose last one is not "
                f"a normalisation alone ({self.authors.text})"
            )
        return Pixels(self.image_size, self.image_size, steps["mean"], steps["std"])

    def preparation(self, *, is_in_graph: bool) -> str | None:
        """The steps from an image to the input in words, None where they are not known."""
        if self.authors is None:
            return None if self.data is None else str(self.pixels())
        if not is_in_graph:
            return self.authors.text
        return f"{self.pixels()}, of images prepared by Pillow ({self.authors.geometry})"

    def cases(
        self, split: Literal["test", "train"] = "test", *, is_bytes: bool, most: int | None = None
    ) -> "Iterator[Case]":
        """Batches of images, or generated ones: for the runtime, for PyTorch, with labels.

        `is_bytes`: whether the runtime takes bytes. `most`: of a larger split so many, drawn by the
        seed.
        """
        if self.data is not None:
            for windows, labels in self.data.eval_windows(split, most):
                x = self.data.prepared(windows)
                yield (windows if is_bytes else x).numpy(), x, labels
        elif self.public is not None:
            for x, labels in self.public.batches(split, most):
                yield (self.pixels().bytes_of(x) if is_bytes else x).numpy(), x, labels
        else:
            yield from self._generated()

    @property
    def train_size(self) -> int:
        """The number of training images, 0 without images."""
        if self.data is not None:
            return len(self.data.source.train)
        return (self.public.described.train_size or 0) if self.public is not None else 0

    def _generated(self) -> "Iterator[Case]":
        import torch

        generator = torch.Generator().manual_seed(0)
        images = torch.randn(GENERATED, 3, self.image_size, self.image_size, generator=generator)
        for x in (images[:1], images[1:]):  # two batch sizes
            yield x.numpy(), x, None


def run_subject(
    options: Options, changes: Mapping[str, Any], *, with_images: bool = True
) -> Subject:
    """The network of a run with its last weights. `changes`: data.root and data.cache.

    Raises UsageError as `lwbench eval run=` does; without the images only a warning.
    `with_images`: whether they are looked for.
    """
    assert options.run is not None
    run = Run(options.run)
    config, recorded = run_to_evaluate(run, {"device": "cpu"} | dict(changes), options.trust_code)
    environment = run.environment()
    groups = specs(config)
    given = read_weights(str(run.path))
    trained = environment.data
    data = _run_images(options, changes, run, config, trained, groups.data) if with_images else None
    names = data.class_names if data else list(trained.class_names)
    num_classes = len(names) or trained.classes
    if not num_classes:
        raise UsageError(f"{run.path}: env.json does not say how many classes the network has")
    model, _ = network_of_weights(
        groups.model, given, names or [str(label) for label in range(num_classes)]
    )
    return Subject(
        name=recorded.model if recorded else run.path.absolute().parent.name,
        spec=groups.model,
        model=model,
        class_names=names,
        num_classes=num_classes,
        image_size=config.image_size,
        data=data,
        facts={
            "run": str(run.path),
            "weights": f"{run.path}/checkpoints/last.pt ({identity_of(str(run.path))})",
            "data": {"name": recorded.data if recorded else run.data_name} | _described(trained),
            "recipe": run.read_config().values,
            "results": recorded and recorded.model_dump(),
        },
    )


def _run_images(
    options: Options,
    changes: Mapping[str, Any],
    run: Run,
    config: RunConfig,
    trained: Images,
    spec: Spec,
) -> "Data | None":
    """The run's images, or None, with a warning, where they are not on this machine."""
    try:
        data = built_data(
            spec,
            {},  # no augmentation
            image_size=config.image_size,
            batch_size=options.batch_size or config.batch_size,
            seed=options.seed,
            device=prepared_device("cpu"),
            workers=config.num_workers if options.workers is None else options.workers,
        )
    except LwbenchError as error:
        if changes:  # data.root= says where the images are
            raise
        log.warning("%s\nonly generated images are compared", error)
        return None
    images = data.source.images(config.data_root)
    require_same_classes(trained, images, str(run.path))
    if not is_same(trained, images):
        raise UsageError(
            f"{run.path} was made with other images: {differences(trained, images)}\n"
            "an export is compared on the images of the run"
        )
    data.source.require_labels()
    return data


def weights_subject(
    options: Options, values: Mapping[str, Any], choices: Mapping[str, str]
) -> Subject:
    """The network of `model=` with `weights=`, or with random weights.

    Raises UsageError as `lwbench eval weights=` does.
    """
    prepared_device("cpu")
    group = Group.model_validate(values["model"])
    allow(values["model"])  # a network in a file that this command names
    spec = MODELS.spec(group.spec)
    given = read_weights(options.weights) if options.weights else GivenWeights("none", {})
    subject = Subject(
        name=choices["model"],
        spec=spec,
        model=None,  # type: ignore[arg-type]  # built below, when the classes are known
        class_names=[],
        num_classes=options.num_classes or CLASSES,
        image_size=given.public.size if given.public else options.image_size,
        authors=given.public,
        facts={
            "weights": f"{shown(options.weights)} ({identity_of(options.weights)})"
            if options.weights
            else "random"
        },
    )
    if "data" in choices:
        _add_images(subject, options, values, given)
    elif options.weights and options.num_classes is None:
        from ..measure.data_free import outline

        # 1,000 is a guess: the file knows
        guessed = outline(lambda: spec.build(CLASSES))
        subject.num_classes = given.check(guessed, spec) or CLASSES
    names = subject.class_names or [str(label) for label in range(subject.num_classes)]
    if options.weights:
        subject.model, names = network_of_weights(spec, given, names)
    else:
        import torch

        torch.manual_seed(0)
        subject.model = spec.build(len(names))
    subject.num_classes = len(names)
    subject.class_names = names if subject.class_names else []
    return subject


def _add_images(
    subject: Subject, options: Options, values: Mapping[str, Any], given: GivenWeights
) -> None:
    spec = DATASETS.spec(Group.model_validate(values["data"]).spec)
    name = str(values["data"].get("name") or values["data"]["builder"])
    device = prepared_device("cpu")
    if given.public is not None:
        evaluation = EvaluationOptions(
            weights=options.weights or "",
            batch_size=options.data_batch,
            image_size=options.image_size,
            workers=options.workers,
            preprocess={},
        )
        found = test_images(spec, evaluation, given, device, options.seed)
        if bool((found.labels < 0).any()):
            raise UsageError(f"data {name}: the test images have no labels to compare by")
        subject.public, subject.class_names = found, found.class_names
        subject.facts["data"] = {"name": name, "test_size": len(found.labels)}
        return
    data = built_data(
        spec,
        {},
        image_size=options.image_size,
        batch_size=options.data_batch,
        seed=options.seed,
        device=device,
        workers=options.workers or 0,
    )
    data.source.require_labels()
    images = data.source.images(None)
    require_same_classes(given.trained, images, given.name)
    subject.data, subject.class_names = data, data.class_names
    subject.facts["data"] = {"name": name} | _described(images)


def _described(images: Images) -> dict[str, Any]:
    """What a model card says of images; not where they are stored on this machine."""
    return images.model_dump(exclude={"class_names", "root", "fingerprint", "left_out"})
