"""The training loop: a network, data, an optimizer and a schedule become a run's records."""

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import NonFiniteError, plural
from ..runs.directory import Run
from ..runs.provenance import changes_since_last_start
from ..runs.schema import Row
from . import checkpoint, state
from .accumulation import Cycles
from .distill import Teacher
from .distributed import Ranks
from .evaluate import Evaluation, evaluate
from .freezing import train_mode
from .inputs import Batches, Progress, Settings, Split
from .load import LoadWatch
from .offsets import is_deformable, offset_arrays, offset_statistics, warn_if_lost
from .recorder import NoRecorder, Recorder
from .result import figures, final_arrays, held_out_figures
from .signals import Interrupted, Signals
from .state import Position
from .step import TrainStep

log = logging.getLogger("lwbench")

FINITE_EVERY = 50  # steps between two looks at the loss within an epoch, on CPUs
STATISTICS_IMAGES, EXAMPLE_IMAGES = 128, 8  # test images for offsets: per epoch, and at the end


class Training:
    """Trains `model` on `data` and records it in `run`, from its last checkpoint on.

    `schedule`: from training progress (epochs, fractional within an epoch) to the learning rate;
    `save_every`: seconds between two checkpoints within an epoch; `teacher`: of a distillation;
    `ranks`: the processes that train together, of which each calls this with the whole `data`.
    """

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
        teacher: Teacher | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.ranks = ranks = ranks or Ranks()
        self.model, self.data, self._whole = model, data, data
        if ranks.size > 1:
            self.data = data.part(ranks.rank, ranks.size)
            ranks.equalise(model.state_dict().values())
        self.run, self.settings, self.device = run, settings, device
        self.step = TrainStep(
            model,
            optimizer,
            schedule,
            settings=settings,
            cycles=Cycles(
                length=settings.accumulate,
                batches=data.steps_per_epoch,
                images=data.train_size,
                batch_size=data.batch_size,
            ),
            device=device,
            teacher=teacher,
            ranks=ranks,
        )
        self.is_deformable = is_deformable(model)
        self.at = Position()
        self._recorder = Recorder(run) if ranks.leads else NoRecorder()
        self._load = LoadWatch()
        self._signals = Signals()
        self._save_every, self._saved = save_every, time.monotonic()  # seconds
        self._began = 0, 0  # finished epochs, and steps of the whole run, when this start began

    def __call__(self, progress: Progress) -> dict[str, Any]:
        """Train to the last epoch and return the result's figures.

        Raises NonFiniteError where the loss is no longer finite, Interrupted after SIGTERM, SIGINT
        or SIGUSR1, with the state saved if a step was finished, and LwbenchError where the records
        cannot be completed.
        """
        log.info("%s", state.guarantee(self.device, self.is_deformable, self.ranks))
        self._resume()
        with self._signals, self.ranks.one_message():
            try:
                while self.at.epoch < self.settings.epochs:
                    row = self._epoch(progress)
                    # recorded before it is reported: what was seen on the screen is never lost
                    self._record(row)
                    progress.epoch_ends(row)
                return self._finish()
            except Interrupted as interruption:
                # within a step weights and optimizer do not belong together
                if interruption.step_finished:
                    interruption.saved = self._save()
                    self.ranks.agreed(0)  # none ends before rank 0 has written
                raise

    # an epoch

    def _epoch(self, progress: Progress) -> Row:
        """Train the rest of the current epoch, and evaluate."""
        at, data = self.at, self.data
        progress.epoch_starts(at.epoch + 1, at.images)
        # of an epoch that was interrupted, earlier starts have trained `before` seconds
        begin, before = time.monotonic(), at.train_seconds
        if at.sums is None:
            at.sums = torch.zeros(2, device=self.device, dtype=torch.float64)
        train_mode(self.model)
        for images, labels in data.train_batches(at.epoch, at.step):
            at.sums += self.step(images, labels, at.epoch, at.step)
            at.step += 1
            at.images += self.step.cycles.size(at.step - 1)
            at.train_seconds = before + time.monotonic() - begin
            progress.images_done(at.images)
            # reading a value waits for the device, which costs nothing on CPUs only
            if self.device.type == "cpu" and at.step % FINITE_EVERY == 0:
                self._check_finite(float(at.sums[0]), "training loss")
            self._between_steps()
        loss, correct = at.sums.tolist()  # the only wait for the device in the epoch
        at.train_seconds = before + time.monotonic() - begin
        self._check_finite(loss, "training loss")
        row: Row = {
            "epoch": at.epoch + 1,
            "lr": self.step.rate(at.epoch, data.steps_per_epoch - 1),
            "train_loss": loss / at.images,
            "train_top1": 100 * correct / at.images,
            "images_per_s": at.images / at.train_seconds,
            "seconds": at.train_seconds,
        }
        self._add_test_figures(row)
        at.seconds += before + time.monotonic() - begin
        return row

    def _add_test_figures(self, row: Row) -> None:
        # the last epoch is always evaluated: its figures are the result
        if row["epoch"] % self.settings.eval_every and row["epoch"] < self.settings.epochs:
            weights = [parameter.detach() for parameter in self.model.parameters()]
            norm = nn.utils.get_total_norm(weights)
            self._check_finite(float(norm), "norm of the weights")
            return
        test = self._evaluate("test")
        # the last step may have made weights infinite after its loss was computed
        self._check_finite(test.loss, "test loss")
        row |= {"test_loss": test.loss, "test_top1": test.top1, "test_top5": test.top5}
        if self.data.validation_size:
            held = self._evaluate("validation")
            row |= {"validation_loss": held.loss, "validation_top1": held.top1}
        if self.step.average:
            raw = self._evaluate("test", model=self.model)
            self._check_finite(raw.loss, "test loss")
            row |= {"raw_test_loss": raw.loss, "raw_test_top1": raw.top1, "raw_test_top5": raw.top5}
        if self.is_deformable:
            images = self._test_images(STATISTICS_IMAGES)
            mean, largest = offset_statistics(self.step.delivered, images, self.step.autocast)
            before = self.at.rows[-1].get("offset_mean", 0.0) if self.at.rows else 0.0
            warn_if_lost(mean, before, images.shape[-1])
            row |= {"offset_mean": mean, "offset_max": largest}

    def _between_steps(self) -> None:
        is_due = time.monotonic() - self._saved >= self._save_every
        # all ranks stop, or save, after the same step
        signum, is_due_now = self.ranks.agreed(self._signals.received, is_due)
        # raised here alone, where weights, optimizer and position belong together
        self._signals.raise_if_received(signum)
        if is_due_now:
            self._save()

    def _evaluate(
        self, split: Split, most: int | None = None, model: nn.Module | None = None
    ) -> Evaluation:
        model = model or self.step.delivered
        self.ranks.equalise(model.buffers())  # local batch norm has other statistics in each rank
        return evaluate(
            # not compiled: compiling for evaluation would take longer than it saves
            model,
            self.data.eval_batches(split, most),
            self.data.num_classes,
            autocast=self.step.autocast,
            after_batch=self._between_steps,
            ranks=self.ranks,
        )

    def _test_images(self, count: int) -> Tensor:
        return next(iter(self._whole.eval_batches("test")))[0][:count]  # whole in every rank

    # records

    def _record(self, row: Row) -> None:
        """Record a finished epoch and go on to the next one."""
        at = self.at
        at.rows.append(row)
        self._recorder.epoch(at.rows)
        self._load.epoch(row["epoch"], row["images_per_s"])
        # of equally good epochs the first; its figures are reported beside those of the last one,
        # since it was chosen on the test images
        if row.get("test_top1", -1.0) > at.best.get("test_top1", -1.0):
            at.best = figures(row)
            self._recorder.best({"model": self.step.delivered.state_dict()} | at.best)
        # sums and times of the epoch begin again
        self.at = Position(epoch=at.epoch + 1, seconds=at.seconds, best=at.best, rows=at.rows)
        self._save()

    def _finish(self) -> dict[str, Any]:
        # interrupted here, a run resumes behind its last epoch and evaluates again
        begin = time.monotonic()
        test = self._evaluate("test")
        most, size = self.settings.train_evaluated, self.data.train_size
        train_evaluated = size if most is None else min(most, size)
        train = self._evaluate("train", train_evaluated) if train_evaluated else None
        arrays = final_arrays(test, train, self.data.class_names)
        if self.is_deformable:
            images = self._test_images(EXAMPLE_IMAGES)
            arrays["offsets"] = offset_arrays(self.step.delivered, images, self.step.autocast)
        rows = self.at.rows
        self._recorder.finish(rows, arrays)
        # seconds of rows are of training alone; evaluations are in the run's `seconds`
        images_trained = self.data.train_size * len(rows)
        raw = {"raw": figures(rows[-1], "raw_")} if self.step.average else {}
        return {
            "epochs": self.settings.epochs,
            "precision": self.step.precision,
            "seconds": self.at.seconds + time.monotonic() - begin,
            "images_per_s": images_trained / sum(row["seconds"] for row in rows),
            "final": figures(rows[-1]),
            "best": self.at.best,
            "train_evaluated": train_evaluated,
            **raw,
            **held_out_figures(rows),
        }

    def _check_finite(self, value: float, which: str) -> None:
        if math.isfinite(value):
            return
        hint = "lower optimizer.lr or set clip_grad_norm=1"
        if self.is_deformable:
            hint = "lower optimizer.offset_lr_factor (0.1 is stable), " + hint
        where = f"epoch {self.at.epoch + 1}, step {self.at.step}"
        raise NonFiniteError(f"the {which} became {value} in {where}; {hint}")

    # saving and resuming

    def _save(self) -> bool:
        """Write a checkpoint; return whether that worked."""
        # a state that has diverged must not replace a good one
        if self.at.sums is not None:
            self._check_finite(float(self.at.sums[0]), "training loss")
        self._saved = time.monotonic()
        epochs, steps = self._done()
        content = state.captured(self.step, self.at, self.device)
        return self._recorder.checkpoint(
            content,
            epochs=epochs - self._began[0],
            steps=steps - self._began[1],
            cuda_graph=self.step.graph.is_used if self.step.graph else None,
        )

    def _done(self) -> tuple[int, int]:
        """Finished epochs, and optimizer steps of the whole run."""
        return self.at.epoch, self.step.cycles.steps(self.at.epoch, self.at.step)

    def _resume(self) -> None:
        """Continue from the last checkpoint, if there is one."""
        path = self.run.checkpoints / "last.pt"
        previous = path.with_name("previous.pt")
        content = self.ranks.told(lambda: checkpoint.load_newest(path, previous))
        if content is None:
            return
        self.at = state.restored(content, path, self.step, self.device)
        self._began = self._done()
        at = self.at
        within = f" and {plural(at.step, 'step')} of epoch {at.epoch + 1}" if at.step else ""
        log.info("resuming after %s%s", plural(at.epoch, "epoch"), within)
        # a bit-exact resume presumes the code, libraries and device of before
        if found := changes_since_last_start(self.run.environment().starts):
            log.warning(
                "%s was trained so far with %s: the result may differ from that of a run without "
                "interruption",
                self.run.path,
                ", ".join(found),
            )
