"""VP and VE against networks that are exact for Gaussian data in the originals' own variables (Song et al. 2021)."""

import pytest
import torch
from torch import Tensor, nn

from disback_cli.denoisers.score_sde import VEDenoiser, VPDenoiser

STD = 0.7
BETA_D, BETA_MIN = 19.9, 0.1


class VPNoisePrediction(nn.Module):
    """E[n | x_t] for x_t = a(t) x0 + sqrt(1 - a(t)^2) n with x0 ~ N(0, STD^2); told 999 t."""

    def __init__(self, M: int = 1000, beta_d: float = BETA_D, beta_min: float = BETA_MIN) -> None:
        super().__init__()
        self.M, self.beta_d, self.beta_min = M, beta_d, beta_min

    def forward(self, x: Tensor, steps: Tensor, labels: Tensor | None) -> Tensor:
        time = steps.double()[:, None] / (self.M - 1)
        a_squared = torch.exp(-0.5 * self.beta_d * time**2 - self.beta_min * time)
        noise_variance = 1 - a_squared
        return (noise_variance.sqrt() * x / (a_squared * STD**2 + noise_variance)).float()


class VENoisePrediction(nn.Module):
    """-E[n | x] for x = x0 + sigma n with x0 ~ N(0, STD^2); told ln(sigma / 2)."""

    def forward(self, x: Tensor, log_half_sigma: Tensor, labels: Tensor | None) -> Tensor:
        sigma = 2 * log_half_sigma.exp()[:, None]
        return -x * sigma / (STD**2 + sigma**2)


def assert_exact(denoiser: nn.Module, sigma: Tensor) -> None:
    """Compare with the Gaussian's denoiser; the difference x - D of large numbers carries their rounding."""
    x = torch.randn(len(sigma), 2, generator=torch.Generator().manual_seed(0)) * (STD**2 + sigma[:, None] ** 2).sqrt()
    exact = x * STD**2 / (STD**2 + sigma[:, None] ** 2)
    error = (denoiser(x, sigma) - exact).abs()
    assert bool((error <= 1e-6 * (1 + x.abs())).all())


@pytest.mark.parametrize("options", [{}, {"M": 500, "beta_d": 10.0, "beta_min": 0.5}])
def test_vp_is_exact_for_a_gaussian(options):
    denoiser = VPDenoiser(VPNoisePrediction(**options), (2,), **options)
    assert_exact(denoiser, torch.logspace(-2.8, 1.8, 40))


def test_vp_tells_the_network_the_time():
    """sigma(t) of the paper, t on a grid up to the ends of the range, where single precision is tightest."""
    told: list[Tensor] = []

    class Recorder(nn.Module):
        def forward(self, x: Tensor, steps: Tensor, labels: Tensor | None) -> Tensor:
            told.append(steps)
            return x

    time = torch.cat([torch.tensor([1e-5, 1e-4, 1e-3]), torch.linspace(0.01, 1, 100)]).double()
    sigma = torch.expm1(0.5 * BETA_D * time**2 + BETA_MIN * time).sqrt().float()
    VPDenoiser(Recorder(), (2,))(torch.zeros(len(time), 2), sigma)
    torch.testing.assert_close(told[0].double() / 999, time, rtol=1e-5, atol=0)


def test_vp_noise_range():
    denoiser = VPDenoiser(VPNoisePrediction(), (2,))
    assert denoiser.sigma_min == pytest.approx(1.0005e-3, rel=1e-4)
    assert denoiser.sigma_max == pytest.approx(152.17, rel=1e-4)
    given = VPDenoiser(VPNoisePrediction(), (2,), sigma_min=0.01, sigma_max=50.0)
    assert (given.sigma_min, given.sigma_max) == (0.01, 50.0)


@pytest.mark.parametrize("options", [{"beta_d": 0.0}, {"beta_min": -0.1}, {"M": 1}, {"epsilon_t": 0.0}])
def test_vp_refuses_values_outside_their_range(options):
    with pytest.raises(ValueError, match="need beta_d > 0"):
        VPDenoiser(VPNoisePrediction(), (2,), **options)


def test_ve_is_exact_for_a_gaussian():
    denoiser = VEDenoiser(VENoisePrediction(), (2,))
    assert (denoiser.sigma_min, denoiser.sigma_max) == (0.02, 100.0)
    assert_exact(denoiser, torch.logspace(-1.7, 2, 40))
