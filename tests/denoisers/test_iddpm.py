"""iDDPM against a network that is exact for Gaussian data on the original's own discrete steps."""

import math

import pytest
import torch
from torch import Tensor, nn

from disback_cli.denoisers.iddpm import IDDPMDenoiser
from disback_cli.denoisers.preconditioning import iddpm_coefficients

STD = 0.7


def cosine_products(steps: int) -> Tensor:
    """alpha-bar after step 0, 1, ... of the cosine schedule of Nichol & Dhariwal 2021, betas bounded by 0.999."""

    def f(step: int) -> float:
        return math.cos((step / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = torch.tensor([min(1 - f(i + 1) / f(i), 0.999) for i in range(steps)], dtype=torch.float64)
    return (1 - betas).cumprod(dim=0)


class NoiseAndVariance(nn.Module):
    """E[n | x_t] for x_t = sqrt(ab_t) x0 + sqrt(1 - ab_t) n with x0 ~ N(0, STD^2), and channels without meaning."""

    def __init__(self, steps: int = 1000) -> None:
        super().__init__()
        self.alpha_bar = cosine_products(steps)
        self.told: list[Tensor] = []

    def forward(self, x: Tensor, step: Tensor, labels: Tensor | None) -> Tensor:
        self.told.append(step)
        alpha_bar = self.alpha_bar[step.long()][:, None]
        noise = (1 - alpha_bar).sqrt() * x.double() / (alpha_bar * STD**2 + 1 - alpha_bar)
        return torch.cat([noise.float(), torch.full_like(x, torch.nan)], dim=1)


@pytest.mark.parametrize("steps", [1000, 50])
def test_exact_for_a_gaussian_at_every_step(steps):
    denoiser = IDDPMDenoiser(NoiseAndVariance(steps), (2,), M=steps)
    sigma = denoiser.u[:-1]
    x = torch.randn(steps, 2, generator=torch.Generator().manual_seed(0)) * (STD**2 + sigma[:, None] ** 2).sqrt()
    exact = x * STD**2 / (STD**2 + sigma[:, None] ** 2)
    assert bool(((denoiser(x, sigma) - exact).abs() <= 1e-6 * (1 + x.abs())).all())
    assert torch.equal(denoiser.model.told[0], torch.arange(steps - 1, -1, -1).float())


def test_noise_levels_between_steps():
    """The network hears the nearest step, the coefficients keep the level itself, and no noise is never a step."""
    denoiser = IDDPMDenoiser(NoiseAndVariance(), (2,))
    low, high = denoiser.u[500], denoiser.u[499]
    sigma = torch.stack([0.6 * low + 0.4 * high, 0.4 * low + 0.6 * high, denoiser.u[-2] / 100, denoiser.u[0] * 2])
    c_skip, c_out, c_in, c_noise = iddpm_coefficients(sigma[:, None], denoiser.u)
    assert c_noise.flatten().tolist() == [499, 500, 0, 999]
    assert torch.equal(c_out, -sigma[:, None]) and torch.equal(c_skip, torch.ones(4, 1))
    torch.testing.assert_close(c_in.flatten(), 1 / (sigma**2 + 1).sqrt())
    assert denoiser.nearest_sigma(float(sigma[0])) == float(low)
    assert denoiser.nearest_sigma(0.0) == float(denoiser.u[-2])


def test_noise_range_and_state_dict():
    denoiser = IDDPMDenoiser(NoiseAndVariance(), (2,))
    u = denoiser.state_dict()["u"]
    assert u.shape == (1001,) and bool((u.diff() < 0).all()) and u[-1] == 0
    assert (denoiser.sigma_min, denoiser.sigma_max) == (pytest.approx(float(u[-2])), pytest.approx(float(u[0])))


@pytest.mark.parametrize("options", [{"C_1": 0.0}, {"C_2": 0.0}, {"M": 1}])
def test_refuses_values_outside_their_range(options):
    with pytest.raises(ValueError, match="need 0 < C_1 < 1"):
        IDDPMDenoiser(NoiseAndVariance(), (2,), **options)
