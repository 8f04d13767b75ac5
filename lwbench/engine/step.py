"""What is done with a batch: loss, gradients, optimizer step, moving average of the weights."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .accumulation import Cycles
from .averaging import WeightAverage
from .cuda_graph import Capture, CudaCapture, GraphedStep
from .distill import Teacher
from .distributed import Ranks
from .inputs import Settings
from .optimizers import eager_step
from .precision import autocast, compiled, resolved_precision


class TrainStep:
    """Trains `model` on one batch after another; the state that this changes lies here.

    `schedule`: from training progress (epochs, fractional within an epoch) to the learning rate;
    `cycles`: after which batches the optimizer takes a step; `teacher`: of a distillation;
    `ranks`: the processes that compute a part of each batch.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        schedule: Callable[[float], float],
        *,
        settings: Settings,
        cycles: Cycles,
        device: torch.device,
        teacher: Teacher | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.settings, self.cycles, self.teacher = settings, cycles, teacher
        self.ranks = ranks or Ranks()
        self.precision = resolved_precision(settings.precision, device)
        self.autocast = autocast(self.precision, device)
        # only fp16 has so small a range that gradients need scaling
        self.scaler = torch.GradScaler(device.type, enabled=self.precision == "fp16")
        self.forward = compiled(model) if settings.compile else model
        self.average = WeightAverage(model, settings.ema) if settings.ema else None
        self._eager_step = eager_step(optimizer)
        # one tensor a group: a replayed step reads its learning rate from there
        self._rates: list[Tensor] = []
        self.graph: GraphedStep | None = None
        if device.type == "cuda" and self._can_be_captured():
            self.use_graph(CudaCapture(device))

    def _can_be_captured(self) -> bool:
        """Whether a step is the same kernels each time, without a look at a result."""
        is_plain = not (self.scaler.is_enabled() or self.settings.compile or self.teacher)
        # exchanges with other ranks have not been tried in a graph
        is_plain = is_plain and self.ranks.size == 1
        # other optimizers count their steps on the CPU
        is_sgd = type(self.optimizer) is torch.optim.SGD
        return is_plain and is_sgd and self.settings.accumulate == 1

    def use_graph(self, capture: Capture) -> None:
        """Replay steps as graphs from now on; also those that are not read rates from tensors."""
        device = next(self.model.parameters()).device
        self._rates = [torch.zeros((), device=device) for _ in self.optimizer.param_groups]
        self.graph = GraphedStep(
            self._captured, capture, lambda: self.optimizer.zero_grad(set_to_none=True)
        )

    @property
    def delivered(self) -> nn.Module:
        """The network that is evaluated: with the averaged weights, where there are any."""
        return self.average.network if self.average else self.model

    def __call__(self, images: Tensor, labels: Tensor, epoch: int, batch: int) -> Tensor:
        """Train on a batch; return its summed loss and correct predictions, shape (2,).

        Given are this rank's images of the batch; the sums are of all ranks. The optimizer takes
        its step after the last batch of a cycle. `epoch`, `batch`: the position, from 0.
        """
        if self.graph is None:
            return self.ranks.add_up(self._computed(images, labels, epoch, batch))
        self._set_rates(epoch, batch)
        sums = self.graph(images, labels)
        if self.average:
            self.average.update(self.cycles.steps(epoch, batch))
        return sums

    def _captured(self, images: Tensor, labels: Tensor) -> Tensor:
        """The part of a step that is the same for every batch of a shape."""
        sums, loss = self._forward(images, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._clip_and_step()
        return sums

    def _computed(self, images: Tensor, labels: Tensor, epoch: int, batch: int) -> Tensor:
        sums, loss = self._forward(images, labels)
        if batch == self.cycles.first(batch):
            # freed rather than filled with zeros: the backward pass writes them anew
            self.optimizer.zero_grad(set_to_none=True)
        # so that gradients of all ranks and batches add up to that of the mean
        share = self.cycles.share(batch, len(images))
        self.scaler.scale(loss if share == 1 else loss * share).backward()
        if self.cycles.ends_with(batch):
            self.ranks.add_up_gradients(self.model.parameters())
            self._set_rates(epoch, batch)
            self._clip_and_step()
            if self.average:
                self.average.update(self.cycles.steps(epoch, batch))
        return sums

    def _forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums of a batch, shape (2,), and the loss to be minimised."""
        with self.autocast():
            logits = self.forward(images)
        # the loss in float32, whatever the network computes in
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.settings.label_smoothing)
        if self.teacher:
            loss = self.teacher.blended(loss, images, logits, self.autocast)
        with torch.no_grad():
            # of mixed labels (mixup, cutmix) the larger share counts
            truth = labels if labels.ndim == 1 else labels.argmax(1)
            correct = (logits.argmax(1) == truth).sum()
            return torch.stack([loss.detach() * len(images), correct]), loss

    def _set_rates(self, epoch: int, batch: int) -> None:
        # a function of the position: no scheduler has a state that a resume must restore
        rate = self.rate(epoch, batch)
        for number, group in enumerate(self.optimizer.param_groups):
            group["lr"] = rate * group["lr_factor"]
            if self._rates:
                group["lr"] = self._rates[number].fill_(group["lr"])

    def _clip_and_step(self) -> None:
        """Take an optimizer step with the gradients of a cycle."""
        if self.settings.clip_grad_norm is not None:
            # the norm that is clipped is that of the gradients proper
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_grad_norm)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)  # skipped where gradients overflowed
            self.scaler.update()
        else:
            self._eager_step()

    def rate(self, epoch: int, batch: int) -> float:
        """Return the learning rate of the cycle that a batch is in."""
        return self.schedule(epoch + self.cycles.first(batch) / self.cycles.batches)

    def gradients(self, batches_done: int) -> dict[str, Tensor]:
        """Return the gradients that wait for the rest of their cycle; none between two cycles."""
        if not self.cycles.is_within(batches_done):
            return {}
        parameters = self.model.named_parameters()
        return {name: p.grad for name, p in parameters if p.grad is not None}
