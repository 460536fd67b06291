"""Sigma laws against their distribution functions."""

import math

import pytest
import torch

from disback_cli.distillation.sigma_laws import KarrasUniform, LogNormal

MIDPOINTS = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000


def karras(u: float, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> float:
    return (sigma_max ** (1 / rho) + u * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho


@pytest.mark.parametrize(("mean", "std"), [(-1.2, 1.2), (-2.5, 0.7), (0.0, 2.0)])
def test_log_normal_quantile_inverts_the_distribution_function(mean, std):
    sigma = LogNormal(mean=mean, std=std).quantile(MIDPOINTS)
    cdf = 0.5 * (1 + torch.erf((sigma.double().log() - mean) / (std * math.sqrt(2))))
    torch.testing.assert_close(cdf, MIDPOINTS, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("mean", "std"), [(-1.2, 1.2), (-2.5, 0.7)])
def test_log_normal_moments_and_median(mean, std):
    law = LogNormal(mean=mean, std=std)
    logs = law.quantile(MIDPOINTS).double().log()
    assert float(logs.mean()) == pytest.approx(mean, abs=1e-6)
    assert float(logs.std()) == pytest.approx(std, rel=1e-3)
    assert float((logs - mean).pow(3).mean()) == pytest.approx(0, abs=1e-5)
    assert float(law.quantile(torch.tensor([0.5]))) == pytest.approx(math.exp(mean), rel=1e-6)


def test_log_normal_is_finite_and_positive_at_the_ends_of_the_uniform_law():
    ends = LogNormal().quantile(torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)).double()
    assert torch.isfinite(ends).all()
    sixth = math.exp(1.2 * 5.9978)  # ndtri(1 - 1e-9) = 5.9978
    assert float(ends[0]) == pytest.approx(math.exp(-1.2) / sixth, rel=1e-3)
    assert float(ends[1]) == pytest.approx(math.exp(-1.2) * sixth, rel=1e-3)


@pytest.mark.parametrize("law", [LogNormal(), KarrasUniform()], ids=lambda law: type(law).__name__)
def test_quantiles_are_monotonic_single_precision_and_keep_the_shape(law):
    sigma = law.quantile(MIDPOINTS.reshape(2, -1))
    assert sigma.dtype == torch.float32
    assert sigma.shape == (2, 50_000)
    steps = law.quantile(MIDPOINTS[::100]).diff()
    assert bool((steps > 0).all()) or bool((steps < 0).all())


@pytest.mark.parametrize(("u_min", "u_max"), [(0.0, 1.0), (0.02, 0.98), (0.0, 0.8)])
def test_karras_law_covers_exactly_its_part_of_the_ramp(u_min, u_max):
    law = KarrasUniform(u_min=u_min, u_max=u_max)
    first, middle, last = law.quantile(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)).tolist()
    assert first == pytest.approx(karras(u_min), rel=1e-6)
    assert middle == pytest.approx(karras((u_min + u_max) / 2), rel=1e-6)
    assert last == pytest.approx(karras(u_max), rel=1e-6)


def test_the_whole_karras_ramp_ends_at_its_two_noise_levels():
    law = KarrasUniform(u_min=0, u_max=1, sigma_min=0.01, sigma_max=50.0, rho=5.0)
    assert law.quantile(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([50.0, 0.01], rel=1e-6)


def test_position_on_the_karras_ramp_is_uniform():
    law = KarrasUniform(u_min=0.1, u_max=0.7)
    roots = law.quantile(MIDPOINTS).double() ** (1 / 7)
    position = (80 ** (1 / 7) - roots) / (80 ** (1 / 7) - 0.002 ** (1 / 7))
    torch.testing.assert_close((position - 0.1) / 0.6, MIDPOINTS, rtol=0, atol=1e-6)


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_log_normal_refuses_a_width_that_is_not_positive(std):
    with pytest.raises(ValueError, match="must be positive"):
        LogNormal(std=std)


@pytest.mark.parametrize("bounds", [(-0.1, 0.5), (0.5, 0.5), (0.7, 0.3), (0.2, 1.1)])
def test_karras_law_refuses_positions_off_the_ramp(bounds):
    with pytest.raises(ValueError, match="0 <= u_min < u_max <= 1"):
        KarrasUniform(u_min=bounds[0], u_max=bounds[1])


@pytest.mark.parametrize("levels", [(0.0, 80.0), (-1.0, 80.0), (80.0, 80.0), (2.0, 1.0)])
def test_karras_law_refuses_noise_levels_out_of_order(levels):
    with pytest.raises(ValueError, match="0 < sigma_min < sigma_max"):
        KarrasUniform(sigma_min=levels[0], sigma_max=levels[1])
