"""Which images a run was made with: how two records differ, and what published sets consist of."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import UsageError, shown
from .schema import Images

MOST_NAMED = 5  # class names in a message


@dataclass(frozen=True)
class PublishedSet:
    """What a data set consists of where documents report on it.

    `images`: training and test images together; `train`: training images, None where the split is
    ours; `names`: `digest_of_names` of the classes in order, None where no list is known.
    """

    images: int
    classes: int
    train: int | None = None
    names: str | None = None


# Class names: those of the archives' batches.meta and meta (fine_label_names), and the wnids of
# ILSVRC 2012 in order, as in timm's imagenet_synsets.txt.
PUBLISHED = {
    "cifar10": PublishedSet(60_000, 10, 50_000, "bb3914949cecedee"),
    "cifar100": PublishedSet(60_000, 100, 50_000, "fbe8ad23bbaf2496"),
    "imagenet": PublishedSet(1_331_167, 1000, 1_281_167, "385e0240499426c0"),
    "caltech256": PublishedSet(29_780, 256),
}


def digest_of_names(names: Iterable[str]) -> str:
    """Hash class names in order to 16 hex digits."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def unlike_published(images: Images, data: str) -> str:
    """Say how the images of a run differ from the published set of that name; "" if they do not.

    What is not recorded is not compared, nor is a set that no document reports on.
    """
    known = PUBLISHED.get(data)
    if known is None:
        return ""
    names = digest_of_names(images.class_names) if images.class_names else None
    total = None
    if images.train_size is not None and images.test_size is not None:
        total = images.train_size + images.test_size
    found = []
    if not _agree(images.classes, known.classes):
        found.append(f"{images.classes} classes instead of {known.classes}")
    if not _agree(total, known.images):
        found.append(f"{total:,} images instead of {known.images:,}")
    elif not _agree(images.train_size, known.train):
        found.append(f"{images.train_size:,} training images instead of {known.train:,}")
    if not found and not _agree(names, known.names):
        found.append("other class names")
    return ", ".join(found)


def unlike_published_tests(images: Images, data: str) -> str:
    """Say how test images differ from those of the published set of that name; "" if they do not.

    For weights that were trained elsewhere: the training images may be missing, where it is known
    how many images the published split tests on.
    """
    known = PUBLISHED.get(data)
    if known is None:
        return f"no document reports on {data}"
    if images.classes is None or images.test_size is None or not images.class_names:
        return "classes and test images are not recorded"
    if known.train is None:
        return unlike_published(images, data)
    tests = known.images - known.train
    if images.test_size != tests:
        return f"{images.test_size:,} test images instead of {tests:,}"
    assumed = images.model_copy(update={"train_size": known.train})
    return unlike_published(assumed, data)


def is_same(then: Images, now: Images) -> bool:
    """Whether both are the same images; what one of them has not recorded is not compared."""
    if then.encoded and now.encoded:  # says all, whatever the files are called and lie in
        return then.encoded == now.encoded
    return _agree(then.digest, now.digest) and _agree(then.content, now.content)


def _agree(one: object, other: object) -> bool:
    return one is None or other is None or one == other


def require_same_classes(trained: Images, now: Images, what: str) -> None:
    """Raise UsageError where weights were trained on other classes than the images are of.

    A network's outputs are classes by position, so names and their order must be equal. `what`
    names the weights.
    """
    same_names = _agree(trained.class_names or None, now.class_names or None)
    if same_names and _agree(trained.classes, now.classes):
        return
    raise UsageError(
        f"{what} was trained on other classes: {differences(trained, now)}\n"
        "evaluate it on images of the same classes, in folders of the same names"
    )


def differences(then: Images, now: Images, which: tuple[str, str] = ("then", "now")) -> str:
    """Say in which classes, numbers or files two records of images differ; `which` names them."""
    found = []
    first, second = which
    if then.class_names and now.class_names:
        for names, others, when in (
            (then.class_names, now.class_names, first),
            (now.class_names, then.class_names, second),
        ):
            if only := sorted(set(names) - set(others)):
                found.append(f"only {when}: {_classes(only)}")
    elif not _agree(then.classes, now.classes):
        found.append(f"{then.classes} classes {first}, {now.classes} {second}")
    if (then.train_size, then.test_size) != (now.train_size, now.test_size):
        found.append(
            f"{then.train_size} images to train on and {then.test_size} to test on {first}, "
            f"{now.train_size} and {now.test_size} {second}"
        )
    if not found and then.digest != now.digest:
        found.append("as many images in the same classes, but other ones")
    return "; ".join(found) or "files of the same names and sizes, but other contents"


def _classes(names: list[str]) -> str:
    listed = ", ".join(shown(name) for name in names[:MOST_NAMED])
    more = ", ..." if len(names) > MOST_NAMED else ""
    return f"{'class' if len(names) == 1 else f'{len(names)} classes:'} {listed}{more}"
