"""The moving average against its closed form."""

import pytest
import torch
from torch import nn

from disback_cli.runtime.ema import Ema


def network(value: float) -> nn.Module:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(value)
    return net


@pytest.mark.parametrize(("halflife", "batch"), [(1000.0, 10), (64.0, 64), (50.0, 200)])
def test_decay_halves_an_old_weight_after_the_half_life(halflife, batch):
    decay = Ema(network(0), halflife=halflife, rampup=0).decay(batch, 10**9)
    assert decay ** (halflife / batch) == pytest.approx(0.5)


def test_ramp_limits_the_half_life_to_a_share_of_the_images_seen():
    ema = Ema(network(0), halflife=1000.0, rampup=0.05)
    assert ema.decay(10, 2000) == pytest.approx(0.5 ** (10 / 100))
    assert ema.decay(10, 20_000) == pytest.approx(0.5 ** (10 / 1000))
    assert ema.decay(10, 10**6) == pytest.approx(0.5 ** (10 / 1000))
    decays = [ema.decay(10, seen) for seen in range(10, 30_000, 10)]
    assert decays == sorted(decays)
    assert ema.decay(10, 0) == 0.0


def test_no_half_life_means_no_memory():
    ema = Ema(network(0.0), halflife=0.0)
    ema.update(network(3.0), 10, 10)
    assert all(bool((p == 3).all()) for p in ema.network.parameters())


def test_average_of_a_jump_is_the_geometric_series():
    ema = Ema(network(0.0), halflife=40.0, rampup=0)
    jumped = network(1.0)
    for count in range(1, 6):
        ema.update(jumped, 10, 10 * count)
        expected = 1 - 0.5 ** (10 * count / 40)
        for parameter in ema.network.parameters():
            torch.testing.assert_close(parameter, torch.full_like(parameter, expected))


def test_buffers_are_copied_not_averaged():
    live = network(0.0)
    ema = Ema(live, halflife=1e6, rampup=0)
    live[1].running_mean.fill_(5.0)
    live[1].num_batches_tracked.fill_(7)
    ema.update(live, 1, 1)
    assert torch.equal(ema.network[1].running_mean, torch.full((2,), 5.0))
    assert int(ema.network[1].num_batches_tracked) == 7


def test_average_is_a_frozen_copy_that_stays_in_evaluation_mode():
    live = network(1.0)
    ema = Ema(live, halflife=10.0).train()
    assert not ema.network.training
    assert not any(p.requires_grad for p in ema.parameters())
    with torch.no_grad():
        live[0].weight.fill_(9.0)
    assert bool((ema.network[0].weight == 1).all())
    assert live[0].weight.requires_grad


@pytest.mark.parametrize("settings", [{"halflife": -1.0}, {"halflife": 1.0, "rampup": -0.1}])
def test_negative_settings_are_refused(settings):
    with pytest.raises(ValueError, match="must not be negative"):
        Ema(network(0), **settings)
