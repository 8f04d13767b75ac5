"""Learning-rate schedules: pure functions of training progress, so that resuming needs no state.

A builder takes the base learning rate and the number of epochs and returns a function from progress
(epochs, fractional within an epoch) to the learning rate. With `interval="epoch"` the rate changes
between epochs only, with "step" at every optimizer step. The tests compare with torch's schedulers.
"""

import math
from collections.abc import Callable
from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ..errors import UsageError
from ..registry import SCHEDULERS

Schedule = Callable[[float], float]
Interval = Literal["epoch", "step"]


def _with_warmup(
    schedule: Schedule, lr: float, warmup_epochs: float, interval: Interval
) -> Schedule:
    def at(progress: float) -> float:
        # linear, at every step; from 1 / 100, since a first step at a rate of 0 would be wasted
        if progress < warmup_epochs:
            return lr * (0.01 + 0.99 * progress / warmup_epochs)
        # the warm-up replaces the beginning of the schedule and does not delay the rest
        return schedule(math.floor(progress) if interval == "epoch" else progress)

    return at


@SCHEDULERS.register
def cosine_restarts(
    lr: float,
    epochs: int,
    *,
    restart_epochs: PositiveInt,
    restart_factor: PositiveInt = 1,
    eta_min: NonNegativeFloat = 0.0,
    interval: Interval = "step",
    warmup_epochs: NonNegativeFloat = 0.0,
) -> Schedule:
    """Cosine annealing with warm restarts (Loshchilov & Hutter, ICLR 2017), ldc eq. 11.

    eta = eta_min + (lr - eta_min) (1 + cos(pi T_cur / T_i)) / 2; T_i is `restart_epochs` and grows
    by `restart_factor` at each restart; `eta_min` in units of the learning rate.
    """

    def at(progress: float) -> float:
        # by repeated subtraction: the lengths of growing periods have no closed form that is exact
        length, since = float(restart_epochs), progress
        while since >= length:
            since -= length
            length *= restart_factor
        return eta_min + (lr - eta_min) * (1 + math.cos(math.pi * since / length)) / 2

    return _with_warmup(at, lr, warmup_epochs, interval)


@SCHEDULERS.register
def cosine(
    lr: float,
    epochs: int,
    *,
    eta_min: NonNegativeFloat = 0.0,
    interval: Interval = "step",
    warmup_epochs: NonNegativeFloat = 0.0,
) -> Schedule:
    """One half cosine from `lr` at the end of the warm-up to `eta_min` at the end of training.

    Raises UsageError where the warm-up takes all epochs.
    """
    if warmup_epochs >= epochs:
        raise UsageError(f"scheduler.warmup_epochs={warmup_epochs} leaves none of {epochs} epochs")
    length = epochs - warmup_epochs

    def at(progress: float) -> float:
        # rounding must not lead past the end, where the cosine rises again
        done = min((progress - warmup_epochs) / length, 1.0)
        return eta_min + (lr - eta_min) * (1 + math.cos(math.pi * done)) / 2

    return _with_warmup(at, lr, warmup_epochs, interval)


@SCHEDULERS.register
def multistep(
    lr: float,
    epochs: int,
    *,
    milestones: list[NonNegativeInt],
    gamma: PositiveFloat = 0.1,
    warmup_epochs: NonNegativeFloat = 0.0,
) -> Schedule:
    """The rate is multiplied by `gamma` at each of the epochs in `milestones`."""

    def at(progress: float) -> float:
        # a milestone that is listed twice counts twice, as in torch
        return lr * gamma ** sum(progress >= milestone for milestone in milestones)

    return _with_warmup(at, lr, warmup_epochs, "epoch")


@SCHEDULERS.register
def exponential(
    lr: float,
    epochs: int,
    *,
    gamma: PositiveFloat,
    interval: Interval = "epoch",
    warmup_epochs: NonNegativeFloat = 0.0,
) -> Schedule:
    """The rate is multiplied by `gamma` every epoch."""
    return _with_warmup(lambda progress: lr * gamma**progress, lr, warmup_epochs, interval)


@SCHEDULERS.register
def constant(lr: float, epochs: int, *, warmup_epochs: NonNegativeFloat = 0.0) -> Schedule:
    """The same rate throughout."""
    return _with_warmup(lambda progress: lr, lr, warmup_epochs, "step")
