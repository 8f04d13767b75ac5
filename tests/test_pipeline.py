"""Claims about batches: order, normalisation and augmentation are functions of the image alone."""

import gc
import os
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from lwbench.commands import _building
from lwbench.data import pack as packing
from lwbench.data import workers as threads
from lwbench.data.augment import Augment
from lwbench.data.draws import epoch_order
from lwbench.data.loader import Data
from lwbench.data.source import Source, Split, channel_statistics
from lwbench.errors import LwbenchError, UsageError
from lwbench.registry import DATASETS

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")
FULL = Augment(crop_padding=2, flip=True, rotation=20.0, erasing=0.5)


def source(train=50, test=21, side=16, window=None, classes=5) -> Source:
    rng = torch.Generator().manual_seed(1)
    splits = [
        Split(
            labels=torch.arange(count) % classes,
            images=torch.randint(256, (count, side, side, 3), generator=rng, dtype=torch.uint8),
        )
        for count in (train, test)
    ]
    mean, std = channel_statistics(splits[0].images)
    names = [str(n) for n in range(classes)]
    return Source("noise", names, *splits, side, window or side, mean, std, "0" * 64)


def data(of=None, **changes) -> Data:
    settings = {"image_size": 16, "batch_size": 8, "seed": 0, "device": "cpu", "augment": FULL}
    return Data(of or source(), **settings | changes)


def by_image(found: Data, epoch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An epoch's augmented images and labels, put back into canonical order."""
    images, labels = (torch.cat(part) for part in zip(*found.train_batches(epoch), strict=True))
    back = epoch_order(found.train_size, found.seed, epoch).argsort()
    return images[back], labels[back]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A tree of 23 photographs of several sizes in three classes."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(23):
        place = root / ("test" if i >= 18 else "train") / "abc"[i % 3]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (20 + i, 40 - i, 3), dtype=np.uint8)
        suffix = ("jpg", "png")[i % 2]
        Image.fromarray(pixels).save(place / f"{i:02d}.{suffix}")
    return root


def photo_source(photos, **arguments):
    return DATASETS.build({"builder": "folder", "root": str(photos), **arguments}).load(24)


def packed_source(photos, **arguments):
    """A set whose images were all used once, and so packed."""
    first = data(photo_source(photos, **arguments), image_size=24)
    for split in ("train", "test"):
        list(first.eval_batches(split))
    return photo_source(photos, **arguments)


def test_batches_are_normalised_floats_in_channels_last():
    found = data(augment=Augment())
    images = torch.cat([images for images, _ in found.train_batches(0)])
    assert images.shape == (50, 3, 16, 16) and images.dtype == torch.float32
    assert images.mean((0, 2, 3)).abs().max() < 1e-5
    assert (images.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    batch, labels = next(found.train_batches(0))
    assert batch.is_contiguous(memory_format=torch.channels_last) and labels.dtype == torch.int64


def test_evaluation_sees_every_image_once_in_canonical_order():
    found = data()
    for split, part in (("test", found.source.test), ("train", found.source.train)):
        images, labels = (torch.cat(p) for p in zip(*found.eval_batches(split), strict=True))
        assert torch.equal(labels, part.labels)
        x = part.images.permute(0, 3, 1, 2) / 255
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (found.mean, found.std))
        assert torch.allclose(images, (x - mean) / std, atol=1e-5)


def test_an_epoch_sees_every_image_once():
    small = source()
    for i, image in enumerate(small.train.images):
        image[:] = i  # an image that says which one it is
    found = data(small, augment=Augment())
    scale = torch.tensor(found.std)[0] * 255
    seen = torch.cat([x[:, 0, 0, 0] for x, _ in found.train_batches(3)])
    which = (seen * scale + found.mean[0] * 255).round().long()
    assert torch.equal(which.sort().values, torch.arange(50))
    labels = torch.cat([labels for _, labels in found.train_batches(3)])
    assert torch.equal(labels, which % 5)


@pytest.mark.parametrize("batch_size", [1, 5, 7, 64])
def test_the_batch_size_changes_no_image(batch_size):
    wanted, labels = by_image(data(), 2)
    found, others = by_image(data(batch_size=batch_size), 2)
    assert torch.equal(found, wanted) and torch.equal(others, labels)


@pytest.mark.parametrize("batch_size", [2, 10, 50])
def test_the_batch_size_changes_no_mixture(batch_size):
    mix = Augment(flip=True, mixup=0.3, cutmix=1.0)
    wanted, labels = by_image(data(augment=mix), 1)
    found, others = by_image(data(augment=mix, batch_size=batch_size), 1)
    assert torch.equal(found, wanted) and torch.equal(others, labels)
    assert labels.shape == (50, 5) and torch.allclose(labels.sum(1), torch.ones(50))
    assert ((labels > 0).sum(1) == 2).any()


def test_an_odd_batch_size_cannot_mix_pairs():
    with pytest.raises(UsageError, match=r"batch_size=7: .* even"):
        data(augment=Augment(mixup=0.2), batch_size=7)


@pytest.mark.parametrize("start", [0, 1, 4, 6])
def test_a_start_in_mid_epoch_gives_exactly_the_tail(start):
    whole = list(data().train_batches(1))
    tail = list(data().train_batches(1, start))
    assert len(tail) == len(whole) - start
    for (images, labels), (wanted, others) in zip(tail, whole[start:], strict=True):
        assert torch.equal(images, wanted) and torch.equal(labels, others)


def test_a_start_in_mid_epoch_reads_nothing_before_it(photos, monkeypatch):
    found = data(photo_source(photos), image_size=24, batch_size=4)
    read = []
    decode = threads.decode
    monkeypatch.setattr(threads, "decode", lambda path: read.append(path) or decode(path))
    list(found.train_batches(0, found.steps_per_epoch - 1))
    assert len(read) == 2  # 18 images in batches of 4


def test_epochs_and_seeds_differ():
    first = next(data().train_batches(0))[0]
    assert not torch.equal(first, next(data().train_batches(1))[0])
    assert not torch.equal(first, next(data(seed=1).train_batches(0))[0])
    assert torch.equal(first, next(data().train_batches(0))[0])


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"),
    [
        (9, 8, [9]),
        (17, 8, [8, 9]),
        (18, 8, [8, 8, 2]),
        (16, 8, [8, 8]),
        (3, 8, [3]),
        (3, 1, [1, 2]),
    ],
)
def test_a_last_batch_of_one_joins_the_batch_before_it(count, batch_size, sizes):
    found = data(source(train=count), batch_size=batch_size)
    assert [len(images) for images, _ in found.train_batches(0)] == sizes
    assert found.steps_per_epoch == len(sizes)


def test_one_image_is_no_training_set():
    with pytest.raises(UsageError, match="at least two images"):
        data(source(train=1))


@pytest.mark.parametrize("size", [8, 24])
def test_images_are_resized_after_the_augmentation(size):
    plain, resized = data(), data(image_size=size)
    for (images, _), (found, _) in zip(
        plain.train_batches(0), resized.train_batches(0), strict=True
    ):
        wanted = F.interpolate(
            images, (size, size), mode="bilinear", align_corners=False, antialias=size < 16
        )
        assert torch.allclose(found, wanted, atol=1e-6)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_training_moves_the_window_and_evaluation_centres_it():
    small = source(side=20, window=16)
    found = data(small, augment=Augment())
    images, _ = by_image(found, 0)
    scale = torch.tensor(found.std).view(3, 1, 1) * 255
    pixels = images * scale + torch.tensor(found.mean).view(3, 1, 1) * 255
    draws = Augment().draw(50, stored=20, window=16, seed=0, epoch=0)
    assert len(set(draws.top.tolist())) == 5
    for i in range(50):
        top, left = draws.top[i], draws.left[i]
        wanted = small.train.images[i, top : top + 16, left : left + 16].permute(2, 0, 1)
        assert torch.equal(pixels[i].round().to(torch.uint8), wanted)
    centre = next(found.eval_batches("test"))[0][0] * scale
    centre += torch.tensor(found.mean).view(3, 1, 1) * 255
    wanted = small.test.images[0, 2:18, 2:18].permute(2, 0, 1)
    assert torch.equal(centre.round().to(torch.uint8), wanted)


def test_the_device_holds_the_set_once():
    found = data()
    pixels = (50 + 21) * 16 * 16 * 3
    assert found.nbytes == pixels + (50 + 21) * 8


@pytest.mark.parametrize("size", [8, 16, 24])
def test_half_precision_is_given_where_asked_for(size):
    found = data(dtype=torch.bfloat16, image_size=size)
    images, _ = next(found.train_batches(0))
    full, _ = next(data(image_size=size).train_batches(0))
    assert images.dtype == torch.bfloat16
    assert torch.allclose(images.float(), full, atol=0.05)


# --- streaming


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(photos, workers):
    of = photo_source(photos)
    alone = list(data(of, image_size=24, batch_size=4).train_batches(1))
    found = list(data(of, image_size=24, batch_size=4, workers=workers).train_batches(1))
    for (images, labels), (wanted, others) in zip(found, alone, strict=True):
        assert torch.equal(images, wanted) and torch.equal(labels, others)


def test_ranks_decode_their_own_images_alone_and_packs_with_the_threads_of_all(
    photos, tmp_path, monkeypatch
):
    asked = []

    def spied(batches, side, *, workers, **rest):
        asked.append(([path for paths in batches for path in paths], workers))
        return threads.decoded_batches(batches, side, workers=workers, **rest)

    monkeypatch.setattr("lwbench.data.loader.decoded_batches", spied)
    whole = data(photo_source(photos), image_size=24, workers=1)
    seen = [len(list(d.train_batches(0))) for d in (whole, whole.part(0, 2), whole.part(1, 2))]
    (every, _), (first, _), (second, _) = asked
    assert seen == [3, 3, 3] and sorted(first + second) == sorted(every) and len(every) == 18
    asked.clear()
    packed = data(photo_source(photos, cache=str(tmp_path)), image_size=24, workers=1)
    packed.part(0, 2).fill_packs(2)
    assert [(len(paths), workers) for paths, workers in asked] == [(18, 2), (5, 2)]


def test_a_packed_cache_gives_the_run_that_streaming_gives(photos, tmp_path):
    streamed, packed = photo_source(photos), packed_source(photos, cache=str(tmp_path))
    assert streamed.streaming and not packed.streaming
    assert (streamed.digest, streamed.mean, streamed.std) == (
        packed.digest,
        packed.mean,
        packed.std,
    )
    for split in ("train", "test"):
        one, other = (list(data(s, image_size=24).eval_batches(split)) for s in (streamed, packed))
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(one, other, strict=True))
    one, other = (list(data(s, image_size=24).train_batches(0)) for s in (streamed, packed))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(one, other, strict=True))


def test_a_pack_is_decoded_once_and_made_anew_where_damaged(photos, tmp_path, monkeypatch, caplog):
    decoded = []
    decode = threads.decode
    monkeypatch.setattr(threads, "decode", lambda path: decoded.append(path) or decode(path))
    first = data(photo_source(photos, cache=str(tmp_path)), image_size=24)
    decoded.clear()  # those of which mean and deviation were computed
    for epoch in range(3):
        list(first.train_batches(epoch))
    assert len(decoded) == 18
    path = next(tmp_path.glob("*-train-*.bin"))
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    second = data(photo_source(photos, cache=str(tmp_path)), image_size=24)
    decoded.clear()
    list(second.train_batches(0))
    assert len(decoded) == 18 and caplog.text.count("damaged") == 1


def test_epochs_that_begin_in_their_middle_pack_the_images_that_are_left(photos, tmp_path):
    plain = data(photo_source(photos), image_size=24, batch_size=4)
    packed = data(photo_source(photos, cache=str(tmp_path)), image_size=24, batch_size=4)
    for epoch, start in ((3, 3), (4, 2), (5, 0), (6, 0)):
        assert bool(list(tmp_path.glob("*-train-*.bin"))) == (epoch == 6)
        pairs = zip(
            plain.train_batches(epoch, start), packed.train_batches(epoch, start), strict=True
        )
        assert all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in pairs)


def test_an_unfinished_pack_is_removed_and_never_looks_finished(photos, tmp_path):
    found = data(photo_source(photos, cache=str(tmp_path)), image_size=24, batch_size=4)
    next(found.train_batches(0))
    assert list(tmp_path.glob(".*.part")) and not list(tmp_path.glob("*.bin"))
    del found
    gc.collect()
    assert not [p for p in tmp_path.iterdir() if p.suffix != ".lock"]


def test_a_pack_that_cannot_be_written_on_streams_the_same_images(photos, tmp_path, monkeypatch):
    wanted = [images for images, _ in data(photo_source(photos), image_size=24).train_batches(1)]
    found = data(photo_source(photos, cache=str(tmp_path)), image_size=24)
    next(found.train_batches(0))  # some images are packed, and read from there
    monkeypatch.setattr(packing.os, "pwrite", lambda *a: (_ for _ in ()).throw(OSError(28, "full")))
    got = [images for images, _ in found.train_batches(1)]
    assert all(torch.equal(a, b) for a, b in zip(wanted, got, strict=True))
    assert not [p for p in tmp_path.iterdir() if p.suffix != ".lock"]


def free_space(monkeypatch, nbytes):
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda p: type("U", (), {"free": nbytes})())


def test_by_default_images_are_packed_in_a_quarter_of_the_free_space(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    need = 23 * (27 * 27 * 3 + packing.TAG_BYTES)
    for free, is_packed in ((4 * need - 1, False), (4 * need + 1, True), (0, True)):
        free_space(monkeypatch, free)
        of = photo_source(photos, cache="auto")
        assert (of.train.pack is not None) == is_packed
        if is_packed:
            list(data(of, image_size=24).eval_batches("train"))
            list(data(of, image_size=24).eval_batches("test"))
        assert bool(list((tmp_path / "lwbench").glob("*px-*.bin"))) == is_packed
    assert "in every epoch" in of.packing and str(tmp_path / "lwbench") in of.packing
    for off in (None, "false"):
        assert photo_source(photos, cache=off).train.pack is None


def test_new_packs_remove_those_that_were_not_used_for_the_longest_time(
    photos, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "lwbench"
    folder.mkdir()
    for name, age in (("old-8px-a", 3), ("used-8px-b", 1), ("middle-8px-c", 2)):
        (folder / f"{name}-v1.bin").write_bytes(bytes(20_000))
        os.utime(folder / f"{name}-v1.bin", (10**9 - age, 10**9 - age))
    monkeypatch.setattr(packing, "MOST_BYTES", 80_000)  # 50,485 of them for the photographs
    assert packed_source(photos, cache="auto").train.images is not None
    assert [path.name for path in folder.glob("*-8px-*.bin")] == ["used-8px-b-v1.bin"]


def test_a_named_folder_without_room_streams_and_says_so(photos, tmp_path, monkeypatch):
    free_space(monkeypatch, 10)
    found = photo_source(photos, cache=str(tmp_path))
    assert found.train.pack is None and "decoded in every epoch" in found.packing


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_named_in_mid_epoch(photos, tmp_path, workers):
    import shutil

    tree = tmp_path / "tree"
    shutil.copytree(photos, tree)
    of = photo_source(tree)
    bad = of.train.paths[7]
    bad.write_bytes(bad.read_bytes()[:40])
    with pytest.raises(UsageError, match=f"{bad.name}: not a readable image"):
        list(data(of, image_size=24, batch_size=4, workers=workers).train_batches(0))


def test_an_image_that_vanishes_is_named(photos, tmp_path):
    import shutil

    tree = tmp_path / "tree"
    shutil.copytree(photos, tree)
    of = photo_source(tree)
    of.test.paths[0].unlink()
    with pytest.raises(UsageError, match=of.test.paths[0].name):
        list(data(of, image_size=24, workers=1).eval_batches("test"))


def test_a_read_that_hangs_is_a_named_error(photos, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(threads, "decode", lambda path: release.wait(30))
    paths = sorted(photos.glob("train/*/*"))[:3]
    try:
        with pytest.raises(LwbenchError, match=r"no image decoded for 0\.2 s: .*hangs"):
            list(threads.decoded_batches([paths], 8, workers=1, patience_s=0.2))
    finally:
        release.set()


def test_a_process_that_was_suspended_goes_on_waiting(monkeypatch):
    batch = threads._Batch(["a.jpg"], lambda paths: ("read", lambda row: None))
    waits = []

    def wait(seconds):
        waits.append(seconds)  # the first ends late, when the process runs again
        if len(waits) > 1:
            batch.fill(0)
        return len(waits) > 1

    monkeypatch.setattr(batch._changed, "wait", wait)
    assert batch.wait(120) == "read" and sum(waits) < 60


@pytest.mark.slow
def test_threads_end_when_an_epoch_is_left_early(photos):
    before = threading.active_count()
    batches = data(photo_source(photos), image_size=24, batch_size=2, workers=3).train_batches(0)
    next(batches)
    threads = [t for t in threading.enumerate() if t.daemon]
    batches.close()
    for thread in threads:
        thread.join(5)
    assert threading.active_count() <= before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_batches_of_the_cpu():
    mix = Augment(crop_padding=2, flip=True, rotation=20.0, erasing=0.5, mixup=0.2, cutmix=1.0)
    here, there = (data(source(200), augment=mix, device=d) for d in ("cpu", "cuda"))
    for (images, labels), (found, others) in zip(
        here.train_batches(0), there.train_batches(0), strict=True
    ):
        # a turned pixel whose source lies between two may fall either way
        same = torch.isclose(found.cpu(), images, atol=1e-5).all(1).float().mean()
        assert same > 0.999
        assert torch.allclose(others.cpu(), labels)


# --- evaluation on training images


def test_a_sample_is_drawn_by_the_seed_and_is_part_of_a_larger_one():
    def drawn(most, seed=0):
        batches = data(augment=Augment(), seed=seed).eval_batches("train", most)
        return [image.sum().item() for images, _ in batches for image in images]

    assert drawn(12) == drawn(12) and len(drawn(12)) == 12
    assert drawn(12, seed=1) != drawn(12)
    assert set(drawn(12)) < set(drawn(20)) < set(drawn(None))
    assert drawn(50) == drawn(1000) == drawn(None)
    # canonical order, as whole evaluations have
    assert [value for value in drawn(None) if value in set(drawn(12))] == drawn(12)


def test_auto_evaluates_all_images_in_memory_and_a_sample_of_files(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(_building, "EVALUATION_SAMPLE", 7)
    resident, streamed = data(), data(photo_source(photos), image_size=24)
    packed = data(photo_source(photos, cache=str(tmp_path)), image_size=24)
    count = _building.train_images_to_evaluate
    assert [count("auto", of) for of in (resident, streamed, packed)] == [50, 7, 7]
    assert [count(choice, streamed) for choice in (True, "sample", False)] == [18, 7, 0]
    assert count("sample", resident) == 7
