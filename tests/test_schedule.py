"""Schedules against torch's own schedulers, and their errors."""

import math

import pytest
import torch

from lwbench.errors import UsageError
from lwbench.registry import SCHEDULERS


def build(lr=0.1, epochs=10, **config):
    return SCHEDULERS.build(config, lr, epochs)


def torch_rates(make, epochs, lr=0.1):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)
    scheduler = make(optimizer)
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


ORACLES = {
    "cosine_restarts": (
        {"restart_epochs": 5, "interval": "epoch"},
        lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 5),
    ),
    "cosine_restarts growing": (
        {"restart_epochs": 3, "restart_factor": 2, "eta_min": 0.01},
        lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2, eta_min=0.01),
    ),
    "cosine": (
        {"eta_min": 0.001},
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20, 0.001),
    ),
    "multistep": (
        {"milestones": [3, 7, 8], "gamma": 0.2},
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 7, 8], 0.2),
    ),
    "exponential": ({"gamma": 0.9}, lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)),
    "constant": ({}, lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
}


@pytest.mark.parametrize("case", ORACLES)
def test_rates_at_epochs_equal_torchs_scheduler(case):
    config, make = ORACLES[case]
    schedule = build(builder=case.split()[0], epochs=20, **config)
    ours = [schedule(epoch) for epoch in range(20)]
    assert ours == pytest.approx(torch_rates(make, 20), abs=1e-9)


def test_restarts_follow_equation_11_within_an_epoch():
    schedule = build(builder="cosine_restarts", lr=0.05, epochs=100, restart_epochs=5)
    for progress in (0.0, 0.3, 4.99, 5.0, 7.5, 99.9):
        since = progress % 5
        assert schedule(progress) == pytest.approx(0.025 * (1 + math.cos(math.pi * since / 5)))


def test_interval_epoch_holds_the_rate_within_an_epoch():
    held = build(builder="cosine_restarts", restart_epochs=5, interval="epoch")
    moving = build(builder="cosine_restarts", restart_epochs=5, interval="step")
    assert held(2.7) == held(2.0)
    assert moving(2.7) < moving(2.0)


def test_warmup_rises_linearly_to_the_full_rate():
    schedule = build(builder="constant", warmup_epochs=2.0)
    assert schedule(0) == pytest.approx(0.001)
    assert schedule(1) == pytest.approx(0.1 * 0.505)
    assert schedule(2) == schedule(9) == pytest.approx(0.1)


def test_cosine_starts_at_the_full_rate_after_the_warmup_and_ends_at_eta_min():
    schedule = build(builder="cosine", epochs=10, warmup_epochs=2.0, eta_min=0.01)
    assert schedule(2.0) == pytest.approx(0.1)
    assert schedule(10.0) == pytest.approx(0.01)


def test_a_warmup_that_takes_all_epochs_is_refused():
    with pytest.raises(UsageError, match="leaves none of 5 epochs"):
        build(builder="cosine", epochs=5, warmup_epochs=5.0)
