"""Moving average of a network's weights, as `ema=` configures it."""

import copy
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """Exponential moving average of the weights of `model`, updated after every optimizer step.

    `network`: a copy of the model that holds the average, in eval mode. Floating-point buffers, the
    running statistics of batch norm, are averaged as weights are; others, such as its counter of
    batches, are copied.

    The decay is min(`decay`, (1 + n) / (10 + n)) after n earlier updates, as in TensorFlow's
    ExponentialMovingAverage: with a constant decay the random initial weights would be part of the
    average for long. torch.optim.swa_utils.AveragedModel has no such warm-up, sorts its tensors at
    each update, and reads its counter from the device; without warm-up a test compares the two.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        # the tensors themselves: loading weights changes them in place
        given = model.state_dict()
        pairs = [(own, given[name]) for name, own in self.network.state_dict().items()]
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        self._averages = [own for own, _ in floating]
        self._weights = [weight for _, weight in floating]
        self._copies = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take the model's weights into the average; `steps`: optimizer steps before this one."""
        decay = min(self.decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        for own, weight in self._copies:
            own.copy_(weight)


def delivered(state: dict[str, Any]) -> dict[str, Any]:
    """Return the weights that a checkpoint's run is judged by: the averaged ones, if it has any."""
    return {"model": state["ema"]} if "ema" in state else state
