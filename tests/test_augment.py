"""Claims about augmentation: equal to torchvision's functions, and drawn by image alone."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from lwbench.data.augment import Augment, cut_boxes, erase_boxes, partners, soft_labels
from lwbench.data.draws import Draws, epoch_order, generator, held_out, stable_seed
from lwbench.data.geometry import LARGE, cosine_and_sine, gather_windows
from lwbench.errors import UsageError
from lwbench.registry import validated


def pictures(count: int, side: int, seed: int = 0) -> torch.Tensor:
    # no zeros, so that what is filled with black stands out
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (count, side, side, 3), generator=rng, dtype=torch.uint8)


def by_torchvision(image, top, left, flip, degrees, window, padding):
    x = F.pad(image.permute(2, 0, 1), (padding,) * 4)
    x = TF.crop(x, int(top), int(left), window, window)
    x = TF.hflip(x) if flip else x
    x = x if degrees is None else TF.rotate(x, float(degrees))
    return x.permute(1, 2, 0)


@settings(max_examples=40, deadline=None)
@given(
    side=st.integers(3, 40) | st.integers(LARGE, LARGE + 12),  # gathered, and copied
    padding=st.integers(0, 6),
    smaller=st.integers(0, 10),
    flips=st.booleans(),
    turns=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_geometry_equals_torchvision_pixel_by_pixel(side, padding, smaller, flips, turns, seed):
    rng = torch.Generator().manual_seed(seed)
    window = max(2, side - smaller)
    images = pictures(4, side, seed)
    top, left = torch.randint(side + 2 * padding - window + 1, (2, 4), generator=rng)
    flip = torch.randint(2, (4,), generator=rng) if flips else None
    degrees = (torch.rand(4, generator=rng, dtype=torch.float64) * 360 - 180) if turns else None
    found = gather_windows(
        images,
        top,
        left,
        window=window,
        padding=padding,
        flip=flip,
        rotation=None if degrees is None else cosine_and_sine(degrees),
    )
    for i in range(4):
        wanted = by_torchvision(
            images[i],
            top[i],
            left[i],
            flips and flip[i],
            None if degrees is None else degrees[i],
            window,
            padding,
        )
        differing = (found[i] != wanted).any(-1)
        if turns:  # a source exactly between two pixels may fall either way on another CPU
            differing &= ~ties(float(degrees[i]), window)
        assert not differing.any()


def ties(degrees: float, side: int) -> torch.Tensor:
    """Pixels whose source lies within rounding of the border between two pixels."""
    axis = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x = c * axis[None, :] - s * axis[:, None] + side / 2
    y = s * axis[None, :] + c * axis[:, None] + side / 2
    return ((x - x.round()).abs() < 1e-4) | ((y - y.round()).abs() < 1e-4)


@pytest.mark.parametrize("degrees", [0.0, 90.0, -90.0, 180.0])
def test_right_angles_move_pixels_exactly(degrees):
    images = pictures(1, 8)
    zero = torch.zeros(1, dtype=torch.int64)
    angle = cosine_and_sine(torch.tensor([degrees], dtype=torch.float64))
    found = gather_windows(images, zero, zero, window=8, rotation=angle)
    assert torch.equal(found[0], torch.rot90(images[0], round(degrees / 90), (0, 1)))


def test_erasing_equals_torchvision_erase():
    boxes = erase_boxes(200, 24, 0.6, torch.Generator().manual_seed(3))
    x = torch.randn(200, 3, 24, 24)
    draws = Draws(top=boxes[:, 0], left=boxes[:, 1], erase=boxes)
    found = Augment(erasing=0.6).finish(x.clone(), draws)
    for image, out, (top, left, bottom, right) in zip(x, found, boxes.tolist(), strict=True):
        wanted = TF.erase(image, top, left, bottom - top, right - left, torch.zeros(()))
        assert torch.equal(out, wanted)


def test_erased_rectangles_follow_random_erasing():
    boxes = erase_boxes(4000, 32, 0.25, torch.Generator().manual_seed(0))
    height, width = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    erased = height > 0
    assert 0.22 < erased.float().mean() < 0.28
    share = (height * width)[erased] / 32**2
    assert share.min() > 0.015 and share.max() < 0.36  # sides are rounded to pixels
    assert boxes.min() >= 0 and boxes.max() <= 32
    assert (boxes[erased, 0] == 0).any() and (boxes[erased, 2] == 32).any()


def test_mixup_is_torchvisions_formula_with_the_neighbour():
    x, labels = torch.rand(2, 3, 8, 8), torch.tensor([1, 2])
    share = torch.tensor([0.3, 0.3])
    none = torch.zeros(2, dtype=torch.int64)
    draws = Draws(
        top=none,
        left=none,
        mixing=share,
        blend=torch.tensor([True, True]),
        box=torch.zeros(2, 4, dtype=torch.int64),
    )
    operation = v2.MixUp(num_classes=4)
    params = {"labels": labels, "batch_size": 2, "lam": 0.3}
    wanted = operation.transform(x, params)
    assert torch.allclose(Augment(mixup=1.0).finish(x.clone(), draws), wanted, atol=1e-6)
    soft = operation._mixup_label(labels, lam=0.3)
    assert torch.allclose(soft_labels(labels, draws.mixing, 4), soft)


def test_cutmix_takes_the_rectangle_and_its_true_share():
    augment = Augment(cutmix=1.0)
    draws = augment.draw(6, stored=16, window=16, seed=0, epoch=0)
    x = torch.arange(6.0).view(6, 1, 1, 1).expand(-1, 3, 16, 16).contiguous()
    found = augment.finish(x.clone(), draws)
    for i in range(6):
        top, left, bottom, right = draws.box[i].tolist()
        wanted = x[i].clone()
        wanted[:, top:bottom, left:right] = x[i ^ 1][:, top:bottom, left:right]
        assert torch.equal(found[i], wanted)
        own = (found[i, 0] == i).float().mean()
        assert own == pytest.approx(draws.mixing[i].item(), abs=1e-6)
    assert torch.allclose(soft_labels(torch.arange(6), draws.mixing, 6).sum(1), torch.ones(6))


def test_cutmix_rectangles_follow_torchvisions_formula():
    share = torch.tensor([0.5, 0.0, 1.0], dtype=torch.float64)
    centre = torch.tensor([[3, 12], [5, 5], [8, 8]])
    for box, lam, (y, x) in zip(cut_boxes(share, centre, 16), share, centre.tolist(), strict=True):
        half = int(0.5 * math.sqrt(1 - lam) * 16)
        wanted = [max(y - half, 0), max(x - half, 0), min(y + half, 16), min(x + half, 16)]
        assert box.tolist() == wanted


def test_an_odd_last_image_is_its_own_partner():
    assert partners(5, torch.device("cpu")).tolist() == [1, 0, 3, 2, 4]


def test_one_more_step_changes_no_other_steps_draws():
    shape = {"stored": 32, "window": 32, "seed": 5, "epoch": 2}
    few = Augment(crop_padding=4, rotation=10.0).draw(50, **shape)
    many = Augment(crop_padding=4, flip=True, rotation=10.0, erasing=0.5, mixup=0.2, cutmix=1.0)
    many = many.draw(50, **shape)
    assert torch.equal(few.top, many.top) and torch.equal(few.left, many.left)
    assert torch.equal(few.rotation, many.rotation)


def test_draws_differ_between_epochs_and_seeds_and_reach_every_place():
    augment = Augment(crop_padding=2, flip=True)
    draw = [
        augment.draw(500, stored=32, window=32, seed=seed, epoch=epoch)
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert not torch.equal(draw[0].top, draw[1].top) and not torch.equal(draw[0].top, draw[2].top)
    assert set(draw[0].top.tolist()) == set(draw[0].left.tolist()) == set(range(5))
    assert 200 < draw[0].flip.sum() < 300
    assert not torch.equal(draw[0].top, draw[0].left)


def test_turns_stay_within_the_asked_degrees_and_reach_them():
    turned = Augment(rotation=15.0).draw(2000, stored=8, window=8, seed=0, epoch=0).rotation
    degrees = torch.atan2(turned[:, 1], turned[:, 0]) * 180 / math.pi
    assert degrees.abs().max() <= 15.001 and degrees.min() < -14 and degrees.max() > 14


def test_seeds_are_the_same_in_every_process():
    # written down from an independent computation of sha256("order/0/1")
    import hashlib

    wanted = int(hashlib.sha256(b"order/0/1").hexdigest()[:16], 16) >> 1
    assert stable_seed("order", 0, 1) == wanted
    assert torch.equal(epoch_order(9, 0, 1), torch.randperm(9, generator=generator("order", 0, 1)))


@given(count=st.integers(2, 100), one_in=st.integers(2, 10))
def test_held_out_is_one_in_n_and_at_least_one(count, one_in):
    assert held_out(count, one_in, "x").sum() == max(1, count // one_in)


@pytest.mark.parametrize(
    "wrong", [{"crop_padding": -1}, {"rotation": 200.0}, {"erasing": 1.5}, {"flips": True}]
)
def test_the_signature_refuses_what_makes_no_sense(wrong):
    with pytest.raises(UsageError, match=r"data\.augment\." + next(iter(wrong))):
        validated(Augment, wrong, "data.augment")
