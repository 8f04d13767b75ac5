"""Compare training MobileNetV3-Small at 32 px with loops written as two well-known tools do.

Compared with: an epoch as in pytorch-cifar100 (DataLoader, torchvision's transforms with rotation,
a scalar read at every step), and one as in timm's train.py (timm's transforms, loader and
optimizer), each with its fastest number of workers, which is determined first. All use the same
network (torchvision's), batch size and images; only the training of the images is timed.

    python scripts/bench_epoch.py [--tiny] [--runs N] [--images N] [--data=<CIFAR-10 root>]
"""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as engine/threads.py sets it on an idle machine

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import timm.data
import timm.optim
import timm.utils
import torch
from interleaved import compare
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter
from torchvision import transforms
from torchvision.models import mobilenet_v3_small

from lwbench.data.augment import Augment
from lwbench.data.loader import Data
from lwbench.data.source import Source, Split
from lwbench.engine.inputs import Settings
from lwbench.engine.optimizers import sgd
from lwbench.engine.train import Training
from lwbench.layers.accelerated import accelerate
from lwbench.registry import DATASETS
from lwbench.runs.directory import Run

BATCH = 128
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Pictures(Dataset):
    """Images as the data sets of torchvision hand them out: PIL, transformed one by one."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable) -> None:
        self.images, self.labels, self.transform = images.numpy(), labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def network() -> nn.Module:
    torch.manual_seed(0)
    return mobilenet_v3_small(num_classes=10)


def cifar100_style(images: Tensor, labels: Tensor, workers: int, folder: str) -> Callable:
    """An epoch as weiaicunzai/pytorch-cifar100 trains it."""
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation(15),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    loader = DataLoader(
        Pictures(images, labels, transform), BATCH, shuffle=True, num_workers=workers
    )
    model, loss_function = network(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    writer = SummaryWriter(folder)

    def epoch() -> float:
        begin = time.perf_counter()
        model.train()
        for step, (batch, truth) in enumerate(loader):
            optimizer.zero_grad()
            loss = loss_function(model(batch), truth)
            loss.backward()
            optimizer.step()
            for name, parameter in list(model.named_parameters())[-2:]:
                writer.add_scalar(f"LastLayerGradients/{name}", parameter.grad.norm(), step)
            writer.add_scalar("Train/loss", loss.item(), step)
        return time.perf_counter() - begin

    return epoch


def timm_style(images: Tensor, labels: Tensor, workers: int) -> Callable:
    """An epoch as timm's train.py trains it."""
    transform = timm.data.create_transform(
        32, is_training=True, scale=(0.8, 1.0), color_jitter=None, mean=MEAN, std=STD
    )
    loader = DataLoader(
        Pictures(images, labels, transform),
        BATCH,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=workers > 0,
    )
    model, loss_function = network(), nn.CrossEntropyLoss()
    optimizer = timm.optim.create_optimizer_v2(
        model, opt="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4
    )
    losses = timm.utils.AverageMeter()

    def epoch() -> float:
        begin = time.perf_counter()
        model.train()
        for batch, truth in loader:
            loss = loss_function(model(batch), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.update(loss.item(), len(batch))
        return time.perf_counter() - begin

    return epoch


class Silent:
    def epoch_starts(self, epoch: int, images_done: int) -> None: ...

    def images_done(self, images: int) -> None: ...

    def epoch_ends(self, row: dict) -> None: ...


def ours(images: Tensor, labels: Tensor, rotation: float) -> Callable:
    """An epoch of this engine; the clock is its own, over the training of the images."""
    split = Split(labels, images)
    few = Split(labels[:16], images[:16])
    source = Source(
        name="bench",
        class_names=[str(i) for i in range(10)],
        train=split,
        test=few,
        stored=32,
        window=32,
        mean=MEAN,
        std=STD,
        digest="",
    )
    augment = Augment(crop_padding=4, flip=True, rotation=rotation)

    def epoch() -> float:
        data = Data(source, image_size=32, batch_size=BATCH, seed=0, device="cpu", augment=augment)
        model = accelerate(network()).to(memory_format=torch.channels_last)
        with tempfile.TemporaryDirectory() as folder:
            run = Run(Path(folder))
            run.checkpoints.mkdir()
            training = Training(
                model,
                data,
                sgd(model, lr=0.1, weight_decay=5e-4),
                lambda progress: 0.1,
                run=run,
                settings=Settings(epochs=1),
                device=torch.device("cpu"),
            )
            training(Silent())
            return float(run.metrics()[0]["seconds"])

    return epoch


def best_workers(make: Callable[[int], Callable]) -> tuple[Callable, int]:
    """The faster of no workers and two, after a warm-up epoch of each."""
    epochs = {workers: make(workers) for workers in (0, 2)}
    took = {}
    for workers, epoch in epochs.items():
        epoch()
        took[workers] = epoch()
    best = min(took, key=took.get)
    return epochs[best], best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--tiny", action="store_true", help="a few seconds, to test the script")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--data", help="root of CIFAR-10; without it: random pixels")
    options = parser.parse_args()
    count, runs = (BATCH, 1) if options.tiny else (options.images, options.runs)
    if options.data:
        train = DATASETS.build({"builder": "cifar10", "root": options.data}).load(32).train
        picked = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:count]
        images, labels = train.images[picked].clone(), train.labels[picked].clone()
    else:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
        labels = torch.randint(10, (count,), generator=generator)
    facts = {"images": count, "data": "CIFAR-10" if options.data else "random pixels"}
    warnings.filterwarnings("ignore", message=".*number of workers.*|.*worker processes.*")
    with tempfile.TemporaryDirectory() as folder:
        c100, workers = best_workers(lambda n: cifar100_style(images, labels, n, folder))
        compare(
            "epoch", "MobileNetV3-Small, 32 px, crop + flip + rotation", ours(images, labels, 15.0),
            {"as pytorch-cifar100": c100}, runs=runs, workers=workers, **facts,
        )  # fmt: skip
    peer, workers = best_workers(lambda n: timm_style(images, labels, n))
    compare(
        "epoch", "MobileNetV3-Small, 32 px, crop + flip", ours(images, labels, 0.0),
        {"as timm": peer}, runs=runs, workers=workers, **facts,
    )  # fmt: skip


if __name__ == "__main__":
    main()
