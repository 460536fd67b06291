"""The denoising loss and the mismatch in closed form (sign designs as in test_objectives: no sampling error)."""

import itertools

import pytest
import torch

from disback_cli.denoisers.preconditioning import edm_coefficients
from disback_cli.distillation.losses import denoising_loss, mismatch

MEAN, STD, DATA = 0.4, 0.7, 0.5
SIGNS = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=2)), dtype=torch.float64)
SIGMAS = [0.03, 0.5, 9.0]


def batch(level: float, std: float = STD, mean: float = MEAN):
    clean = mean + std * SIGNS[:, :1]
    return clean, clean + level * SIGNS[:, 1:], torch.full((len(SIGNS),), level, dtype=torch.float64)


@pytest.mark.parametrize("level", SIGMAS)
def test_denoising_loss_is_stationary_and_least_at_the_exact_denoiser(level):
    clean, noisy, sigma = batch(level)
    gain = STD**2 / (STD**2 + level**2)
    exact = torch.tensor([gain, MEAN * (1 - gain)], dtype=torch.float64, requires_grad=True)

    def loss(line: torch.Tensor) -> torch.Tensor:
        return denoising_loss(line[0] * noisy + line[1], clean, sigma, DATA)

    least = loss(exact)
    (gradient,) = torch.autograd.grad(least, exact)
    assert float(gradient.abs().max()) < 1e-9 * float(1 / edm_coefficients(sigma, DATA)[1][0] ** 2)
    for change in ((0.05, 0.0), (-0.05, 0.0), (0.0, 0.05), (0.0, -0.05)):
        assert loss(exact + torch.tensor(change)).item() > least.item()
    posterior_variance = STD**2 * level**2 / (STD**2 + level**2)
    weight = (level**2 + DATA**2) / (level * DATA) ** 2
    assert least.item() == pytest.approx(weight * posterior_variance, rel=1e-9)


def test_loss_of_the_exact_denoiser_is_one_at_every_level_for_data_of_standard_deviation_sigma_data():
    for level in SIGMAS:
        clean, noisy, sigma = batch(level, std=DATA, mean=0.0)
        skip = DATA**2 / (DATA**2 + level**2)
        assert float(denoising_loss(skip * noisy, clean, sigma, DATA)) == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("shape", [(3, 2), (3, 1, 4, 4)], ids=str)
def test_each_sample_is_weighted_by_one_over_c_out_squared(shape):
    sigma = torch.tensor(SIGMAS, dtype=torch.float64)
    clean = torch.zeros(shape, dtype=torch.float64)
    _, c_out, _, _ = edm_coefficients(sigma, DATA)
    per_sample = []
    for index in range(3):
        denoised = clean.clone()
        denoised[index] = 2.0
        per_sample.append(denoising_loss(denoised, clean, sigma, DATA))
    torch.testing.assert_close(torch.stack(per_sample), 4.0 / c_out.square() / 3)


def test_mismatch_of_equal_denoisers_is_zero_and_it_scales_with_the_difference():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 5, 3, generator=generator)
    sigma = torch.rand(5, generator=generator) + 0.1
    assert float(mismatch(first, first, sigma, DATA)) == 0.0
    once = float(mismatch(first, second, sigma, DATA))
    assert once > 0
    assert float(mismatch(second, first, sigma, DATA)) == pytest.approx(once)
    assert float(mismatch(first, first + 3 * (second - first), sigma, DATA)) == pytest.approx(3 * once, rel=1e-5)


@pytest.mark.parametrize("level", SIGMAS)
def test_mismatch_between_mean_and_truth_is_one(level):
    """The posterior mean of Gaussian data (a raw network that answers 0) against the clean samples."""
    clean, noisy, sigma = batch(level, std=DATA, mean=0.0)
    c_skip = edm_coefficients(sigma, DATA)[0]
    assert float(mismatch(c_skip[:, None] * noisy, clean, sigma, DATA)) == pytest.approx(1.0, rel=1e-9)


def test_mismatch_is_the_root_mean_square_difference_of_the_raw_networks_outputs():
    generator = torch.Generator().manual_seed(0)
    raw_1, raw_2, noisy = torch.randn(3, 6, 2, dtype=torch.float64, generator=generator)
    sigma = torch.tensor([*SIGMAS, *SIGMAS], dtype=torch.float64)
    c_skip, c_out, _, _ = (c[:, None] for c in edm_coefficients(sigma, DATA))
    got = mismatch(c_skip * noisy + c_out * raw_1, c_skip * noisy + c_out * raw_2, sigma, DATA)
    assert float(got) == pytest.approx(float((raw_1 - raw_2).square().mean().sqrt()), rel=1e-9)


def test_mismatch_carries_no_gradient():
    answer = torch.ones(2, 2, requires_grad=True)
    assert not mismatch(answer, torch.zeros(2, 2), torch.ones(2), DATA).requires_grad
