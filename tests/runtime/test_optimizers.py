"""Optimisers and learning rates."""

import math

import pytest
import torch

from disback_cli.runtime.optimizers import AdamSettings, learning_rate


def test_constant_rate_is_constant():
    assert {learning_rate(0.3, i, 100, "constant") for i in range(100)} == {0.3}


@pytest.mark.parametrize("warmup", [0, 10])
def test_cosine_goes_from_the_peak_to_zero_symmetrically(warmup):
    rates = [learning_rate(2.0, i, 110, "cosine", warmup) for i in range(warmup, 111)]
    assert rates[0] == 2.0
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert rates == sorted(rates, reverse=True)
    middle = warmup + (110 - warmup) // 2
    assert learning_rate(2.0, middle, 110, "cosine", warmup) == pytest.approx(1.0)
    for early, late in zip(rates, rates[::-1], strict=True):
        assert early + late == pytest.approx(2.0)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_warm_up_is_linear_and_ends_at_the_peak(schedule):
    rates = [learning_rate(1.0, i, 100, schedule, 4) for i in range(5)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_warm_up_longer_than_the_run_is_no_division_by_zero():
    assert math.isfinite(learning_rate(1.0, 9, 10, "cosine", 10))
    assert math.isfinite(learning_rate(1.0, 10, 10, "cosine", 10))


@pytest.mark.parametrize("betas", [(0.9,), (0.0, 0.9, 0.99), (0.0, 1.0), (-0.1, 0.9), ()])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(ValueError, match=r"optimizer\.betas takes two values"):
        AdamSettings(betas=betas)


def test_settings_reach_the_optimiser():
    weight = torch.nn.Parameter(torch.ones(2))
    plain = AdamSettings(betas=[0.1, 0.9], eps=1e-6).build([weight], 0.5)
    assert type(plain) is torch.optim.Adam
    group = plain.param_groups[0]
    assert (group["lr"], group["betas"], group["eps"], group["fused"]) == (0.5, (0.1, 0.9), 1e-6, True)
    decayed = AdamSettings(weight_decay=0.1).build([weight], 0.5)
    assert type(decayed) is torch.optim.AdamW
    assert decayed.param_groups[0]["weight_decay"] == 0.1


def test_weight_decay_is_decoupled_from_the_gradient():
    weight = torch.nn.Parameter(torch.full((1,), 2.0))
    optimizer = AdamSettings(weight_decay=0.1).build([weight], 0.5)
    weight.grad = torch.zeros(1)
    optimizer.step()
    assert weight.item() == pytest.approx(2.0 * (1 - 0.5 * 0.1))
