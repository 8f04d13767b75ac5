"""Resized crops, colour jitter and policies: equal to torchvision's classes given their draws."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from test_pipeline import by_image, data, source
from torchvision.transforms import v2

from lwbench.data import policies
from lwbench.data.augment import Augment
from lwbench.data.crops import ATTEMPTS, RandomCrops
from lwbench.data.loader import Data
from lwbench.errors import UsageError
from lwbench.registry import DATASETS, validated

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
MODERN = Augment(
    crop_scale=[0.2, 1.0], flip=True, brightness=0.4, hue=0.1, trivial_augment=True, erasing=0.5
)


def pictures(count: int, height: int, width: int) -> torch.Tensor:
    """Smooth pictures with noise, (N, 3, H, W) uint8: every operation changes them."""
    rng = torch.Generator().manual_seed(3)
    coarse = torch.rand(count, 3, 4, 4, generator=rng)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    noise = torch.rand(count, 3, height, width, generator=rng)
    return (40 + 150 * smooth + 30 * noise).to(torch.uint8)


class Drawn:
    """torch's random functions, giving numbers that were drawn before, in the order of use."""

    def __init__(self, monkeypatch, uniform=(), ints=(), rand=(), perm=None):
        uniforms, whole, units = iter(uniform), iter(ints), iter(rand)
        monkeypatch.setattr(
            torch.Tensor, "uniform_", lambda tensor, *_, **__: tensor.fill_(next(uniforms))
        )
        monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(next(units)))
        monkeypatch.setattr(torch, "randint", lambda *a, **k: torch.tensor(next(whole)(*a)))
        monkeypatch.setattr(torch, "randperm", lambda _: perm)


@pytest.mark.parametrize("size", [(37, 50), (50, 37), (32, 32), (20, 200), (200, 20)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.9, 1.0)])
def test_resized_crops_are_those_of_random_resized_crop(size, scale, monkeypatch):
    crops = RandomCrops(scale)
    draws = crops.draw(8, torch.Generator().manual_seed(1))
    images = pictures(8, *size)
    for image, draw in zip(images, draws, strict=True):
        ours = crops.cut(image, draw, 24)
        numbers = draw.tolist()
        pairs = zip(numbers[:ATTEMPTS], np.log(numbers[ATTEMPTS : 2 * ATTEMPTS]), strict=True)
        places = [
            lambda low, high, *_, share=share, **__: low + int(share * (high - low))
            for share in numbers[2 * ATTEMPTS :]
        ]
        with monkeypatch.context() as patch:
            Drawn(patch, uniform=itertools.chain(*pairs), ints=places)
            theirs = v2.RandomResizedCrop(24, scale=scale)(image)
        assert torch.equal(ours, theirs.permute(1, 2, 0))


def test_a_window_that_never_fits_is_the_largest_central_one():
    crops = RandomCrops((1.0, 1.0), (1.0, 1.0))
    draw = crops.draw(1, torch.Generator().manual_seed(0))[0]
    assert crops.box(draw, 20, 50) == (0, 15, 20, 20)
    assert crops.box(draw, 50, 20) == (15, 0, 20, 20)


def test_windows_reach_the_whole_image_and_keep_their_bounds():
    crops = RandomCrops((0.25, 0.5), (0.5, 2.0))
    draws = crops.draw(500, torch.Generator().manual_seed(0))
    boxes = np.array([crops.box(draw, 100, 100) for draw in draws])
    top, left, height, width = boxes.T
    area, ratio = height * width / 1e4, width / height
    assert 0.24 < area.min() < 0.27 and 0.48 < area.max() < 0.51
    assert 0.49 < ratio.min() < 0.55 and 1.8 < ratio.max() < 2.05
    assert top.min() == left.min() == 0
    assert (top + height).max() == (left + width).max() == 100


def test_jitter_is_color_jitter(monkeypatch):
    amounts = {"brightness": 0.4, "contrast": 0.3, "saturation": 0.5, "hue": 0.2}
    draws = policies.draw_jitter(12, torch.Generator().manual_seed(2), **amounts)
    for image, draw in zip(pictures(12, 20, 20), draws, strict=True):
        ours = policies.jittered(image, draw)
        with monkeypatch.context() as patch:
            Drawn(patch, uniform=draw[:4].tolist(), perm=draw[4:].argsort())
            theirs = v2.ColorJitter(**amounts)(image)
        assert torch.equal(ours, theirs) and not torch.equal(ours, image)
    low, high = draws[:, :4].min(0).values, draws[:, :4].max(0).values
    assert (low >= torch.tensor([0.6, 0.7, 0.5, -0.2])).all()
    assert (high <= torch.tensor([1.4, 1.3, 1.5, 0.2])).all()


def test_an_adjustment_that_is_off_does_nothing():
    draws = policies.draw_jitter(
        4, torch.Generator().manual_seed(2), brightness=0, contrast=0, saturation=0, hue=0.0
    )
    for image, draw in zip(pictures(4, 8, 8), draws, strict=True):
        assert policies.jittered(image, draw) is image


def every_operation(bins):
    rows = itertools.product(range(len(policies.OPERATIONS)), bins, (0, 1))
    return torch.tensor(list(rows))[:, None]


def test_operations_are_those_of_trivial_augment(monkeypatch):
    (image,) = pictures(1, 32, 32)
    theirs = v2.TrivialAugmentWide()
    for draw in every_operation((0, 1, 13, 30)):
        ours = policies.operated(image, draw, None)
        number, strength, is_reversed = draw[0].tolist()
        with monkeypatch.context() as patch:
            ints = [lambda *_, n=n, **__: n for n in (number, strength)]
            Drawn(patch, ints=ints, rand=[0.2 if is_reversed else 0.8])
            expected = theirs(image)
        assert torch.equal(ours, expected), policies.OPERATIONS[number]


@pytest.mark.parametrize("strength", [0, 9, 30])
def test_operations_are_those_of_rand_augment(strength, monkeypatch):
    (image,) = pictures(1, 24, 40)
    theirs = v2.RandAugment(num_ops=2, magnitude=strength)
    single = every_operation((0,))
    for first, second in zip(single, single.roll(5, 0), strict=True):
        draw = torch.cat((first, second))
        ours = policies.operated(image, draw, strength)
        with monkeypatch.context() as patch:
            ints = [lambda *_, n=n, **__: n for n in draw[:, 0].tolist()]
            signed = [
                row for row in draw.tolist() if policies.OPERATIONS[row[0]] in policies.SIGNED
            ]
            Drawn(patch, ints=ints, rand=[0.2 if row[2] else 0.8 for row in signed])
            expected = theirs(image)
        assert torch.equal(ours, expected)


def test_every_operation_and_strength_is_drawn():
    draws = policies.draw_operations(2000, 2, torch.Generator().manual_seed(0))
    assert [draws[..., k].unique().tolist() for k in range(3)] == [
        list(range(14)), list(range(31)), [0, 1],
    ]  # fmt: skip


# in the pipeline


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_batch_size_changes_no_image(batch_size):
    ours = by_image(data(augment=MODERN, batch_size=batch_size), 3)[0]
    assert torch.equal(ours, by_image(data(augment=MODERN), 3)[0])
    assert not torch.equal(ours, by_image(data(augment=MODERN), 4)[0])


def test_a_start_in_mid_epoch_gives_exactly_the_tail():
    whole = list(data(augment=MODERN).train_batches(2))
    tail = list(data(augment=MODERN).train_batches(2, start=4))
    assert len(tail) == len(whole) - 4
    for ours, theirs in zip(tail, whole[4:], strict=True):
        assert torch.equal(ours[0], theirs[0])


def test_one_more_step_changes_no_other_steps_draws():
    def drawn(**more):
        augment = Augment(flip=True, erasing=0.5, **more)
        return augment.draw(20, stored=16, window=16, seed=0, epoch=1)

    plain = drawn()
    for more in ({"crop_scale": [0.1, 1.0]}, {"hue": 0.1}, {"rand_augment": 2}):
        other = drawn(**more)
        assert torch.equal(plain.flip, other.flip) and torch.equal(plain.erase, other.erase)


def test_evaluation_knows_nothing_of_it():
    found = [data(augment=augment).eval_batches() for augment in (MODERN, Augment())]
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours[0], theirs[0])


@pytest.fixture(scope="module")
def panoramas(tmp_path_factory):
    """Photographs three times as wide as high, white outside the central square."""
    root = tmp_path_factory.mktemp("panoramas")
    pixels = np.full((30, 90, 3), 255, dtype=np.uint8)
    pixels[:, 30:60] = 10
    for i in range(12):
        place = root / ("test" if i >= 8 else "train") / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels[0, 0, 0] = i  # equal images would be noted as such
        Image.fromarray(pixels).save(place / f"{i:02d}.png")
    return root


def streamed(panoramas, augment, workers=0, **arguments) -> Data:
    config = {"builder": "folder", "root": str(panoramas), **arguments}
    return Data(
        DATASETS.build(config).load(16), image_size=16, batch_size=3, seed=0, device="cpu",
        augment=augment, workers=workers,
    )  # fmt: skip


def test_streamed_crops_are_of_the_whole_image(panoramas):
    squares, _ = by_image(streamed(panoramas, Augment()), 0)
    assert squares.amax() < squares.amin() + 1  # the central squares are of one colour
    crops, _ = by_image(streamed(panoramas, Augment(crop_scale=[0.3, 1.0])), 0)
    assert (crops.amax((1, 2, 3)) > squares.amax() + 0.3).all()


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(panoramas, workers):
    ours = by_image(streamed(panoramas, MODERN, workers=workers), 1)[0]
    assert torch.equal(ours, by_image(streamed(panoramas, MODERN), 1)[0])


def test_a_packed_cache_changes_no_pixel_of_a_resized_crop(panoramas, tmp_path):
    plain = streamed(panoramas, MODERN)
    for _ in range(2):  # while the cache is made, and with it
        packed = streamed(panoramas, MODERN, cache=str(tmp_path))
        assert packed.streaming
        for epoch in (0, 1):
            assert torch.equal(by_image(packed, epoch)[0], by_image(plain, epoch)[0])
        for ours, theirs in zip(packed.eval_batches(), plain.eval_batches(), strict=True):
            assert torch.equal(ours[0], theirs[0])


def test_images_in_memory_are_cropped_as_image_files_are(panoramas):
    found = data(source(side=16, window=16), augment=Augment(crop_scale=[0.2, 0.5]))
    crops, draws = (
        found.augment.crops,
        found.augment.draw(50, stored=16, window=16, seed=0, epoch=0),
    )
    images = found.source.train.images
    cut = torch.stack(
        [
            crops.cut(image.permute(2, 0, 1), draw, 16)
            for image, draw in zip(images, draws.crop, strict=True)
        ]
    )
    assert torch.equal(by_image(found, 0)[0], found._normalised(cut))


@pytest.mark.parametrize(
    "wrong",
    [{"crop_scale": [1.0, 0.5]}, {"crop_scale": [0.0, 1.0]}, {"crop_scale": [0.5]}, {"hue": 0.6},
     {"crop_scale": 0.5}, {"crop_ratio": [2, 1]}, {"rand_magnitude": 31}, {"rand_augment": -1},
     {"brightness": -0.1}],
)  # fmt: skip
def test_the_signature_refuses_what_makes_no_sense(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        validated(Augment, wrong, "data.augment")


def test_steps_that_exclude_each_other_are_refused():
    with pytest.raises(UsageError, match="crop_padding"):
        Augment(crop_scale=[0.1, 1.0], crop_padding=4)
    with pytest.raises(UsageError, match="exclude each other"):
        Augment(trivial_augment=True, rand_augment=2)
