"""Flow networks as denoisers: exact for Gaussian data, in both directions of time."""

from __future__ import annotations

import pytest
import torch
from gaussian_networks import ExactNetwork, exact_denoiser

from disback_cli.denoisers.flow import FlowDenoiser


def wrapped(direction: str, scale: float) -> FlowDenoiser:
    """A denoiser around a network that finds the noise level in the time it is told."""

    def sigma_of(told):
        noise = told / scale if direction == "noise_at_1" else 1 - told / scale
        return noise / (1 - noise)

    return FlowDenoiser(ExactNetwork(direction, sigma_of), [1, 4, 4], direction=direction, time_scale=scale)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
@pytest.mark.parametrize("direction", ["noise_at_1", "data_at_1"])
def test_exact_network_gives_the_exact_denoiser(direction, scale):
    denoiser = wrapped(direction, scale)
    sigma = torch.logspace(-2, 1.9, 20)
    x = torch.randn(20, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * (1 + sigma).reshape(-1, 1, 1, 1)
    # Time in fp32 near 1 tells small noise levels, and those near its other end, to 1e-5.
    torch.testing.assert_close(denoiser(x, sigma), exact_denoiser(x, sigma).float(), rtol=1e-4, atol=1e-4)


def test_time_runs_as_said():
    """Half noise, half data is sigma 1; time is counted from the data or from the noise."""
    for direction, scale, told in (("noise_at_1", 1000.0, [500.0, 750.0]), ("data_at_1", 1.0, [0.5, 0.25])):
        denoiser = wrapped(direction, scale)
        denoiser(torch.zeros(2, 1, 4, 4), torch.tensor([1.0, 3.0]))
        assert denoiser.model.told == pytest.approx(told)


def test_defaults_and_mistakes():
    denoiser = wrapped("noise_at_1", 1000.0)
    assert (denoiser.sigma_min, denoiser.sigma_max, denoiser.nearest_sigma(1.234)) == (0.002, 80.0, 1.234)
    network = ExactNetwork("noise_at_1", torch.exp)
    for wrong in ({"direction": "backwards"}, {"time_scale": 0.0}, {"sigma_max": float("inf")}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            FlowDenoiser(network, [1, 4, 4], **wrong)
