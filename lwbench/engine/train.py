"""The training loop: from a network, data, an optimizer and a schedule to a run directory's
records.
"""

import atexit
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import NonFiniteError, UsageError
from ..runs.directory import METRICS, OFFSET_METRICS, Run
from ..runs.provenance import differences
from ..runs.runconfig import Precision
from ..runs.schema import Start
from . import checkpoint
from .evaluate import Evaluation, evaluate
from .offsets import deformable_layers, sample_offsets
from .optimizers import eager_step
from .recorder import Recorder
from .settings import Settings
from .signals import Interrupted, Signals

log = logging.getLogger("lwbench")


class Batches(Protocol):
    """What the engine needs of a data set; see `data.loader.Data`."""

    num_classes: int
    batch_size: int
    train_size: int
    steps_per_epoch: int

    @property
    def class_names(self) -> Sequence[str]: ...

    def train_batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]: ...

    def eval_batches(self, split: Literal["test", "train"]) -> Iterator[tuple[Tensor, Tensor]]: ...


class Progress(Protocol):
    """What the engine tells whoever watches."""

    def epoch_starts(self, epoch: int, images_done: int) -> None: ...

    def images_done(self, images: int) -> None: ...

    def epoch_ends(self, row: dict[str, Any]) -> None: ...


def resolved_precision(precision: Precision, device: torch.device) -> str:
    """What `precision` means on `device`. Raises UsageError where the device cannot do it."""
    if precision == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return "bf16" if has_bf16 else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("precision=fp16 needs a GPU; on a CPU choose fp32 or bf16")
    return precision


def autocast(precision: str, device: torch.device) -> Callable[[], Any]:
    """A context manager's maker: autocast to bf16 or fp16, or nothing for fp32."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return partial(torch.autocast, device.type, dtype or torch.bfloat16, enabled=dtype is not None)


@dataclass
class Position:
    """Where a training stands; all of it travels through the checkpoint."""

    epoch: int = 0  # finished epochs
    step: int = 0  # finished optimizer steps of the epoch under way
    images: int = 0  # of that epoch
    sums: Tensor | None = None  # loss and correct predictions over those images, on the device
    train_seconds: float = 0.0  # of that epoch
    seconds: float = 0.0  # of the whole run
    best: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)  # of metrics.csv


class Training:
    """One training of `model` on `data`, recorded in `run`, from wherever its checkpoint stands."""

    def __init__(
        self,
        model: nn.Module,
        data: Batches,
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[float], float],
        *,
        run: Run,
        settings: Settings,
        device: torch.device,
        save_every: float = 300.0,
    ) -> None:
        self.model, self.data, self.optimizer, self.schedule = model, data, optimizer, schedule
        self.run, self.settings, self.device = run, settings, device
        self.precision = resolved_precision(settings.precision, device)
        self.autocast = autocast(self.precision, device)
        self.scaler = torch.GradScaler(device.type, enabled=self.precision == "fp16")
        self.forward = _compiled(model) if settings.compile else model
        self.deformable = deformable_layers(model)
        self._eager_step = eager_step(optimizer)
        self.at = Position()
        self._began = 0, 0  # finished epochs, and steps of the whole run, when this start began
        self._signals = Signals()
        self._save_every, self._saved = save_every, time.monotonic()  # seconds

    # the loop

    def __call__(self, progress: Progress) -> dict[str, Any]:
        """Train to the last epoch; return the result's figures.

        The state is saved after each epoch and every `save_every` seconds. Raises NonFiniteError
        where the loss is no longer finite, Interrupted after SIGTERM, SIGINT or SIGUSR1, with the
        state saved if a step has ended, and LwbenchError where the records cannot be completed.
        """
        log.info("%s", self._promise())
        self._resume()
        self._recorder = Recorder(self.run)
        with self._signals:
            try:
                while self.at.epoch < self.settings.epochs:
                    row = self._epoch(progress)
                    self._record(row)
                    progress.epoch_ends(row)
                return self._finish()
            except Interrupted as interruption:
                if interruption.step_finished:
                    interruption.saved = self._save()
                raise

    def _epoch(self, progress: Progress) -> dict[str, Any]:
        at, data = self.at, self.data
        progress.epoch_starts(at.epoch + 1, at.images)
        if at.sums is None:
            at.sums = torch.zeros(2, device=self.device, dtype=torch.float64)
        begin, before = time.monotonic(), at.train_seconds
        self.model.train()
        for images, labels in data.train_batches(at.epoch, at.step):
            rate = self._step(images, labels)
            at.step += 1
            at.images += len(images)
            at.train_seconds = before + time.monotonic() - begin
            progress.images_done(at.images)
            # reading a value waits for the device, which costs nothing on a CPU only
            if self.device.type == "cpu" and at.step % 50 == 0:
                self._check_finite(float(at.sums[0]), "training")
            self._between_steps()
        if at.step == data.steps_per_epoch:
            rate = self._rate(at.step - 1)
        loss, correct = at.sums.tolist()  # the epoch's one wait for the device
        at.train_seconds = before + time.monotonic() - begin
        self._check_finite(loss, "training")
        test = self._evaluate("test")
        self._check_finite(test.loss, "test")
        at.seconds += before + time.monotonic() - begin
        return (
            dict(
                zip(
                    METRICS,
                    (
                        at.epoch + 1,
                        rate,
                        loss / at.images,
                        100 * correct / at.images,
                        test.loss,
                        test.top1,
                        test.top5,
                        at.images / at.train_seconds,
                        at.train_seconds,
                    ),
                    strict=True,
                )
            )
            | self._offset_metrics()
        )

    def _between_steps(self) -> None:
        self._signals.raise_if_received()
        if time.monotonic() - self._saved >= self._save_every:
            self._save()

    def _rate(self, step: int) -> float:
        return self.schedule(self.at.epoch + step / self.data.steps_per_epoch)

    def _step(self, images: Tensor, labels: Tensor) -> float:
        rate = self._rate(self.at.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        with self.autocast():
            logits = self.forward(images)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.settings.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if self.settings.clip_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_grad_norm)
        self._optimizer_step()
        with torch.no_grad():
            truth = labels if labels.ndim == 1 else labels.argmax(1)
            correct = (logits.argmax(1) == truth).sum()
            self.at.sums += torch.stack([loss.detach() * len(images), correct])
        return rate

    def _optimizer_step(self) -> None:
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # skipped where gradients overflowed
            self.scaler.update()
        else:
            self._eager_step()

    def _evaluate(self, split: str) -> Evaluation:
        return evaluate(
            self.model,
            self.data.eval_batches(split),
            self.data.num_classes,
            autocast=self.autocast,
            after_batch=self._between_steps,
        )

    # records

    def _record(self, row: dict[str, Any]) -> None:
        at = self.at
        at.rows.append(row)
        self._recorder.epoch(at.rows)
        if row["test_top1"] > at.best.get("test_top1", -1.0):
            at.best = _figures(row)
            self._recorder.best({"model": self.model.state_dict()} | at.best)
        self.at = Position(epoch=at.epoch + 1, seconds=at.seconds, best=at.best, rows=at.rows)
        self._save()

    def _finish(self) -> dict[str, Any]:
        begin = time.monotonic()
        matrices = {split: self._evaluate(split).confusion for split in ("train", "test")}
        names = np.array(self.data.class_names, dtype=np.str_)
        arrays = {"confusion": matrices | {"class_names": names}}
        if self.deformable:
            arrays["offsets"] = self._sampled_offsets()
        rows = self.at.rows
        self._recorder.finish(rows, arrays)
        images = self.data.train_size * len(rows)
        return {
            "epochs": self.settings.epochs,
            "precision": self.precision,
            "seconds": self.at.seconds + time.monotonic() - begin,
            "images_per_s": images / sum(row["seconds"] for row in rows),
            "final": _figures(rows[-1]),
            "best": self.at.best,
        }

    def _save(self) -> bool:
        if self.at.sums is not None:  # a state that has diverged replaces no good one
            self._check_finite(float(self.at.sums[0]), "training")
        self._saved = time.monotonic()
        done = self.at.epoch * self.data.steps_per_epoch + self.at.step
        epochs, steps = self.at.epoch - self._began[0], done - self._began[1]
        return self._recorder.checkpoint(self._state(), epochs=epochs, steps=steps)

    def _state(self) -> dict[str, Any]:
        at = self.at
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "threads": torch.get_num_threads(),
            "position": vars(at) | {"sums": None if at.sums is None else at.sums.cpu()},
        }

    def _resume(self) -> None:
        path = self.run.checkpoints / "last.pt"
        state = checkpoint.load_newest(path, path.with_name("previous.pt"))
        if state is None:
            return
        checkpoint.load_weights(self.model, state, path)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["rng"])
        if self.device.type == "cuda" and len(state["cuda_rng"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        torch.set_num_threads(state["threads"])  # how sums are split decides their last digits
        position = state["position"]
        if "rows" not in position:  # the first checkpoints of version 0.1
            position["rows"] = self._rows_on_disk(position["epoch"])
        self.at = Position(**position)
        if self.at.sums is not None:
            self.at.sums = self.at.sums.to(self.device)
        self._began = self.at.epoch, self.at.epoch * self.data.steps_per_epoch + self.at.step
        log.info("going on after %d epochs and %d steps", self.at.epoch, self.at.step)
        self._warn_where_this_start_differs()

    def _warn_where_this_start_differs(self) -> None:
        """Bit-exactness presumes the same code, libraries and device as before."""
        *before, now = self.run.environment().starts or (Start(),)
        trained = [start for start in before if start.has_trained]
        if trained and (found := differences(trained[-1], now)):
            log.warning(
                "%s was trained so far with %s: the result may differ from that of a run without "
                "interruption",
                self.run.path,
                ", ".join(found),
            )

    def _promise(self) -> str:
        """What resuming keeps. On GPUs, sums by atomic additions have no order of their own."""
        is_exact = torch.backends.cudnn.deterministic and not self.deformable
        if self.device.type == "cpu" or is_exact:
            return "resumed, this run equals an uninterrupted one to the last bit"
        return (
            "resumed, this run has the same order of data, random numbers and learning rates as "
            "an uninterrupted one; its sums may differ in their last digits"
        )

    def _rows_on_disk(self, epochs: int) -> list[dict[str, Any]]:
        rows = [{k: float(v) for k, v in row.items()} for row in self.run.metrics()[:epochs]]
        return [row | {"epoch": int(row["epoch"])} for row in rows]

    # safety

    def _check_finite(self, loss: float, which: str) -> None:
        if math.isfinite(loss):
            return
        hint = "lower optimizer.lr or set clip_grad_norm=1"
        if self.deformable:
            hint = "lower optimizer.offset_lr_factor (0.1 is stable), " + hint
        where = f"epoch {self.at.epoch + 1}, step {self.at.step}"
        raise NonFiniteError(f"the {which} loss became {loss} in {where}; {hint}")

    # deformable layers

    def _test_images(self, count: int) -> Tensor:
        return next(iter(self.data.eval_batches("test")))[0][:count]

    def _offset_metrics(self) -> dict[str, float]:
        """Mean and largest |offset| in pixels over all deformable layers, on 128 test images."""
        if not self.deformable:
            return {}
        seen = sample_offsets(self.model, self._test_images(128), self.autocast)
        offsets = torch.cat([offset.abs().flatten() for offset, _ in seen.values()])
        return dict(zip(OFFSET_METRICS, (offsets.mean().item(), offsets.max().item()), strict=True))

    def _sampled_offsets(self) -> dict[str, np.ndarray]:
        """Normalised images, `<layer>.offset` in pixels, `<layer>.mask`."""
        images = self._test_images(8)
        arrays = {"images": images.float().cpu().numpy()}
        for name, (offset, mask) in sample_offsets(self.model, images, self.autocast).items():
            arrays |= {f"{name}.offset": offset.cpu().numpy(), f"{name}.mask": mask.cpu().numpy()}
        return arrays


def _figures(row: dict[str, Any]) -> dict[str, Any]:
    return {k: row[k] for k in ("epoch", "test_loss", "test_top1", "test_top5", "train_top1")}


def _compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    import torch._dynamo

    # a process killed while it compiles leaves empty libraries behind, on which every later one
    # that shares the cache would fail: so a cache of our own, that ends with the process
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="lwbench-inductor-")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    torch._dynamo.config.suppress_errors = True  # no compiler, no loss: eager execution goes on
    return torch.compile(model)
