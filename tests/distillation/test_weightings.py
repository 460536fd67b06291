"""Weights by noise level, and the denoising loss with them."""

import pytest
import torch

from disback_cli.denoisers.preconditioning import edm_coefficients
from disback_cli.distillation.losses import denoising_loss
from disback_cli.distillation.weightings import EdmWeighting, FlatWeighting, SnrWeighting

SIGMA = torch.tensor([0.002, 0.3, 1.0, 80.0], dtype=torch.float64)


def test_edms_weight_is_one_over_c_out_squared_and_dmd2s_sum():
    weight = EdmWeighting()(SIGMA, 0.5)
    torch.testing.assert_close(weight, 1 / edm_coefficients(SIGMA, 0.5)[1].square())
    torch.testing.assert_close(weight, 1 / SIGMA**2 + 1 / 0.5**2)


def test_snr_weight_makes_the_loss_one_of_the_predicted_noise():
    clean, noise, wrong = torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noisy = clean + SIGMA[:, None] * noise
    denoised = noisy - SIGMA[:, None] * wrong
    loss = denoising_loss(denoised, clean, SIGMA, 0.5, weighting=SnrWeighting())
    torch.testing.assert_close(loss, (wrong - noise).square().mean())


@pytest.mark.parametrize("weighting", [EdmWeighting(), SnrWeighting(), FlatWeighting()], ids=lambda w: type(w).__name__)
@pytest.mark.parametrize("shape", [(4,), (4, 1, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_weights_have_the_shape_and_dtype_of_sigma(weighting, shape, dtype):
    weight = weighting(SIGMA.to(dtype).reshape(shape), 0.5)
    assert weight.shape == shape
    assert weight.dtype == dtype
    assert bool((weight > 0).all())


def test_loss_without_a_weighting_is_edms():
    clean, denoised = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plain = denoising_loss(denoised, clean, SIGMA, 0.5)
    assert torch.equal(plain, denoising_loss(denoised, clean, SIGMA, 0.5, weighting=EdmWeighting()))
    flat = denoising_loss(denoised, clean, SIGMA, 0.5, weighting=FlatWeighting())
    torch.testing.assert_close(flat, (denoised - clean).square().mean())
