"""Heun's sampler against the closed-form solution for a Gaussian, and its independence of the batch size."""

import math

import pytest
import torch

from disback_cli.denoisers.gaussian_mixture import MixtureDenoiser
from disback_cli.denoisers.protocol import Denoiser, expand_sigma
from disback_cli.denoisers.sampling import heun, network_evaluations, sigma_ramp


class Gaussian(Denoiser):
    """Exact denoiser of N(0, std^2 I); counts its calls and records the noise levels and dtypes."""

    def __init__(self, std: float = 0.5, label_dim: int = 0) -> None:
        super().__init__((2,), label_dim=label_dim)
        self.std = std
        self.sigmas: list[float] = []
        self.dtypes: set[torch.dtype] = set()

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        self.check_labels(labels, len(x))
        self.sigmas.append(float(sigma[0]))
        self.dtypes.add(x.dtype)
        return x * self.std**2 / (self.std**2 + expand_sigma(sigma, x) ** 2)


def latents(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Unit-normal latents, [n, 2]."""
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_ramp_is_the_published_one():
    ramp = sigma_ramp(18, 0.002, 80.0)
    assert ramp.dtype == torch.float64 and ramp.shape == (19,) and ramp[-1] == 0
    assert ramp[0].item() == pytest.approx(80) and ramp[17].item() == pytest.approx(0.002)
    # Karras et al. 2022, eq. 5 at i = 9 of 18, by hand.
    middle = (80 ** (1 / 7) + 9 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert ramp[9].item() == pytest.approx(middle, rel=1e-12)
    assert bool((ramp.diff() < 0).all())
    assert sigma_ramp(1, 0.002, 80.0).tolist() == pytest.approx([80.0, 0.0])


@pytest.mark.parametrize("arguments", [(0, 0.002, 80.0), (5, 0.0, 80.0), (5, 2.0, 1.0), (5, 0.002, 80.0, 0.0)])
def test_ramp_refuses_values_outside_their_range(arguments):
    with pytest.raises(ValueError, match="need"):
        sigma_ramp(*arguments)


def test_heun_is_second_order():
    """dx/ds = s x / (std^2 + s^2) has the solution x(0) = x(s) std / sqrt(std^2 + s^2)."""
    z = latents(4)
    exact = z * 80.0 * 0.5 / math.sqrt(0.25 + 80.0**2)
    # The final Euler step to zero errs by sigma_min^2 alone; a tiny sigma_min keeps it out of the measurement.
    errors = [
        (heun(Gaussian(), z, steps=steps, sigma_min=1e-6) - exact).abs().max().item() for steps in (64, 128, 256, 512)
    ]
    for coarse, fine in zip(errors[:-1], errors[1:], strict=True):
        assert coarse / fine == pytest.approx(4, rel=0.08)
    assert errors[-1] < 1e-4


def test_number_of_network_evaluations():
    for steps in (1, 2, 18):
        denoiser = Gaussian()
        heun(denoiser, latents(3), steps=steps)
        assert len(denoiser.sigmas) == network_evaluations(steps) == 2 * steps - 1


def test_levels_default_to_the_denoiser_s_and_can_be_given():
    default, given = Gaussian(), Gaussian()
    heun(default, latents(1), steps=4)
    heun(given, latents(1), steps=4, sigma_min=0.1, sigma_max=3.0)
    assert (default.sigmas[0], default.sigmas[-1]) == pytest.approx((80.0, 0.002))
    assert (given.sigmas[0], given.sigmas[-1]) == pytest.approx((3.0, 0.1))


def test_state_is_float64_and_the_denoiser_sees_the_latents_dtype():
    denoiser = Gaussian()
    out = heun(denoiser, latents(3, dtype=torch.float32), steps=4)
    assert out.dtype == torch.float64 and denoiser.dtypes == {torch.float32} and not out.requires_grad


def noise_table(n: int, steps: int) -> torch.Tensor:
    """Noise of every step and sample, [steps, n, 2]."""
    return torch.randn(steps, n, 2, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


@pytest.mark.parametrize("churn", [0.0, 10.0])
@pytest.mark.parametrize("batch", [1, 3, 7])
def test_samples_do_not_depend_on_the_batch_size(batch, churn):
    denoiser, z, table = MixtureDenoiser(), latents(21), noise_table(21, 12)
    whole = heun(denoiser, z, steps=12, s_churn=churn, noise=lambda step: table[step])
    parts = []
    for start in range(0, 21, batch):
        piece = table[:, start : start + batch]
        parts.append(heun(denoiser, z[start : start + batch], None, 12, s_churn=churn, noise=piece.__getitem__))
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)


def test_samples_of_the_mixture_lie_on_its_modes():
    mixture = MixtureDenoiser().mixture
    samples = heun(MixtureDenoiser(), latents(512), steps=32)
    distance, nearest = torch.cdist(samples, mixture.means.double()).min(dim=1)
    assert distance.max() < 6 * 0.05
    assert torch.bincount(nearest, minlength=8).min() > 512 / 8 / 2


def test_stochastic_sampling_keeps_the_distribution():
    """Churn adds noise and removes it again: the spread stays that of the data, the samples change."""
    z, table = latents(20_000), noise_table(20_000, 160)
    plain = heun(Gaussian(), z, steps=160)
    churned = heun(Gaussian(), z, steps=160, s_churn=20, noise=lambda step: table[step])
    assert churned.std().item() == pytest.approx(0.5, rel=0.02)
    assert (churned - plain).std() > 0.3


def test_noise_is_added_only_between_s_min_and_s_max():
    called: list[int] = []

    def noise(step: int) -> torch.Tensor:
        called.append(step)
        return latents(2, seed=step)

    ramp = sigma_ramp(10, 0.002, 80.0)
    denoiser = Gaussian()
    heun(denoiser, latents(2), steps=10, s_churn=2, s_min=0.1, s_max=20.0, noise=noise)
    assert called == [i for i in range(10) if 0.1 <= ramp[i] <= 20.0] and 0 < len(called) < 9
    # A churned step starts at sigma (1 + s_churn / steps).
    assert denoiser.sigmas[2 * called[0]] == pytest.approx(1.2 * ramp[called[0]].item())


def test_s_noise_scales_the_added_noise():
    z, table = latents(20_000), noise_table(20_000, 20)
    loud = heun(Gaussian(), z, steps=20, s_churn=10, s_noise=1.1, noise=lambda step: table[step])
    assert loud.std() > 0.5 * 1.03


def test_refuses_churn_without_noise():
    with pytest.raises(ValueError, match="needs noise"):
        heun(Gaussian(), latents(2), s_churn=1)
    with pytest.raises(ValueError, match="s_churn=-1"):
        heun(Gaussian(), latents(2), s_churn=-1)


def test_labels_reach_the_denoiser():
    with pytest.raises(ValueError, match="labels are missing"):
        heun(Gaussian(label_dim=2), latents(2))
    assert heun(Gaussian(label_dim=2), latents(2), torch.eye(2), steps=2).shape == (2, 2)
