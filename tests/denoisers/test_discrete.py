"""Networks of discrete time: exact for Gaussian data, for every prediction and schedule, at and between steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gaussian_networks import ExactNetwork, exact_denoiser

from disback_cli.denoisers.discrete import DiscreteDenoiser, noise_levels

LINEAR = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
SCHEDULES = {
    "linear": LINEAR,
    "scaled_linear": LINEAR | {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": LINEAR | {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": LINEAR | {"beta_schedule": "sigmoid"},
    "trained": {"trained_betas": [0.001 * 1.01**step for step in range(300)]},
    "zero_snr": LINEAR | {"rescale_betas_zero_snr": True},
}
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def levels_from_definition(name: str) -> list[float]:
    """The noise levels of a schedule, from its definition, in float64."""
    steps = np.arange(1000)
    if name == "linear" or name == "zero_snr":
        betas = np.linspace(1e-4, 0.02, 1000)
    elif name == "scaled_linear":
        betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    elif name == "cosine":
        alpha = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - alpha[1:] / alpha[:-1], 0.999)
    elif name == "sigmoid":
        betas = 1e-4 + (0.02 - 1e-4) / (1 + np.exp(6 - 12 * steps / 999))
    else:
        betas = np.array(SCHEDULES["trained"]["trained_betas"])
    root = np.cumprod(1 - betas) ** 0.5
    if name == "zero_snr":
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    with np.errstate(divide="ignore"):
        return list(np.sqrt(1 - root**2) / root)


def wrapped(schedule: str, prediction: str) -> DiscreteDenoiser:
    """A denoiser around a network that knows the noise level from the step alone, by an interpolation of its own."""
    levels = [level for level in noise_levels(SCHEDULES[schedule]) if math.isfinite(level)]

    def sigma_of(t):
        return torch.from_numpy(np.exp(np.interp(t.numpy(), np.arange(len(levels)), np.log(levels))))

    return DiscreteDenoiser(ExactNetwork(prediction, sigma_of), [1, 4, 4], SCHEDULES[schedule], prediction)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_noise_levels_are_those_of_the_definition(schedule):
    # The first steps of a schedule lose digits in diffusers' fp32, in which the networks were trained too.
    assert noise_levels(SCHEDULES[schedule]) == pytest.approx(levels_from_definition(schedule), rel=3e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_exact_network_gives_the_exact_denoiser(schedule, prediction):
    denoiser = wrapped(schedule, prediction)
    trained = torch.tensor(denoiser.levels[:: len(denoiser.levels) // 13])
    trained = trained[trained <= denoiser.sigma_max]
    between = (trained[:-1] * trained[1:]).sqrt()
    sigma = torch.cat([trained, between, torch.tensor([denoiser.sigma_min, denoiser.sigma_max])])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(sigma), 1, 4, 4, generator=generator) * (1 + sigma**2).sqrt().reshape(-1, 1, 1, 1)
    found = denoiser(x, sigma)
    error = (found - exact_denoiser(x, sigma)).abs().amax(dim=(1, 2, 3))
    # A prediction of noise is subtracted from x, so fp32's rounding grows with sigma; the others have no such term.
    scale = 1 + sigma if prediction == "epsilon" else torch.ones_like(sigma)
    assert found.dtype == torch.float32 and bool((error < 2e-5 * scale).all())


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_trained_levels_are_whole_steps(schedule):
    """A trained level in fp32 gives exactly the step it was trained at, whatever the shape of sigma."""
    denoiser = wrapped(schedule, "sample")
    steps = torch.arange(len(denoiser.levels), dtype=torch.float32)
    sigma = torch.tensor(denoiser.levels)
    assert torch.equal(denoiser.step(sigma), steps)
    assert torch.equal(denoiser.step(sigma.reshape(-1, 1, 1, 1)).flatten(), steps)
    halfway = (sigma[:-1].double() * sigma[1:].double()).sqrt().float()
    torch.testing.assert_close(denoiser.step(halfway), steps[:-1] + 0.5, rtol=0, atol=2e-3)


def test_outside_the_schedule_the_step_is_clamped_and_the_level_is_not():
    denoiser = wrapped("linear", "epsilon")
    x = torch.ones(2, 1, 4, 4)
    sigma = torch.tensor([denoiser.levels[0] / 4, denoiser.levels[-1] * 2])
    told = denoiser.model.told
    found = denoiser(x, sigma)
    assert told == [0.0, 999.0]
    # With the first step's network, whose prediction is linear in x_t, at the true level.
    x_t = x[:1] / (1 + sigma[0] ** 2).sqrt()
    noise = denoiser.model(x_t, torch.zeros(1))
    torch.testing.assert_close(found[:1], x[:1] - sigma[0] * noise)


def test_range_of_noise_levels():
    linear = noise_levels(LINEAR)
    assert (wrapped("linear", "sample").sigma_min, wrapped("linear", "sample").sigma_max) == (linear[0], linear[-1])
    cosine = wrapped("cosine", "v_prediction")
    assert cosine.levels[-1] > 2e4 and cosine.sigma_max == cosine.levels[-2] == pytest.approx(641.7, rel=1e-3)
    zero = noise_levels(SCHEDULES["zero_snr"])
    assert math.isinf(zero[-1]) and len(wrapped("zero_snr", "v_prediction").levels) == 999
    assert math.isfinite(wrapped("zero_snr", "v_prediction").sigma_max)


def test_nearest_sigma_is_a_trained_level():
    denoiser = wrapped("cosine", "epsilon")
    low, high = denoiser.levels[500], denoiser.levels[501]
    middle = math.sqrt(low * high)
    assert denoiser.nearest_sigma(low) == low
    assert denoiser.nearest_sigma(middle * 0.9999) == low and denoiser.nearest_sigma(middle * 1.0001) == high
    assert denoiser.nearest_sigma(1e-9) == denoiser.sigma_min and denoiser.nearest_sigma(1e9) == denoiser.sigma_max
    with pytest.raises(ValueError, match="above zero"):
        denoiser.nearest_sigma(0.0)


def test_state_dict_holds_the_network_only():
    assert list(wrapped("linear", "epsilon").state_dict()) == []


def test_conversions_leave_the_step_alone():
    """What loading a model folder does to a denoiser must not move its steps."""
    denoiser = wrapped("linear", "epsilon")
    sigma = torch.tensor([0.5, 30.0])
    assert torch.equal(denoiser.step(sigma), denoiser.float().step(sigma))


@pytest.mark.parametrize(
    ("schedule", "prediction", "message"),
    [
        (LINEAR, "noise", "prediction='noise'"),
        (LINEAR | {"beta_schedule": "quadratic"}, "epsilon", "beta_schedule='quadratic'"),
        (LINEAR | {"steps": 3}, "epsilon", "unknown entries steps"),
        ({"trained_betas": [0.0, 0.1]}, "epsilon", "must increase"),
        ({"trained_betas": [0.1, 0.0]}, "epsilon", "must increase"),
        ({"trained_betas": [0.1]}, "epsilon", "must increase"),
        ({"trained_betas": [0.1, -0.1, 0.2]}, "epsilon", "must increase"),
        ({"trained_betas": [0.1, 0.9999999]}, "epsilon", "fewer than two"),
    ],
)
def test_mistakes(schedule, prediction, message):
    with pytest.raises(ValueError, match=message):
        DiscreteDenoiser(ExactNetwork("sample", torch.exp), [1, 4, 4], schedule, prediction)
