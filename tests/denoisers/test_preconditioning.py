"""The preconditioning against the properties that define it, and the denoiser protocol's checks."""

import pytest
import torch

from disback_cli.denoisers.preconditioning import edm_coefficients, loss_weight
from disback_cli.denoisers.protocol import Denoiser, expand_sigma

SIGMA_DATA = 0.5
SIGMAS = torch.tensor([0.002, 0.1, 0.5, 3.0, 80.0], dtype=torch.float64)


def test_values_at_sigma_data():
    c_skip, c_out, c_in, c_noise = edm_coefficients(torch.tensor(0.5, dtype=torch.float64), SIGMA_DATA)
    expected = [0.5, 0.5 / 2**0.5, 2**0.5, -0.17328679513998632]
    assert [float(c) for c in (c_skip, c_out, c_in, c_noise)] == pytest.approx(expected, rel=1e-12)


def test_network_input_and_target_have_unit_variance():
    """Karras et al. 2022, appendix B.6, eqs. 114 and 123, for data of variance sigma_data^2."""
    c_skip, c_out, c_in, _ = edm_coefficients(SIGMAS, SIGMA_DATA)
    torch.testing.assert_close(c_in**2 * (SIGMAS**2 + SIGMA_DATA**2), torch.ones_like(SIGMAS))
    target_variance = ((1 - c_skip) ** 2 * SIGMA_DATA**2 + c_skip**2 * SIGMAS**2) / c_out**2
    torch.testing.assert_close(target_variance, torch.ones_like(SIGMAS))


def test_loss_weight_is_inverse_square_of_c_out():
    _, c_out, _, _ = edm_coefficients(SIGMAS, SIGMA_DATA)
    torch.testing.assert_close(loss_weight(SIGMAS, SIGMA_DATA), c_out**-2)


@pytest.mark.parametrize("sigma", [2.0, torch.tensor(2.0), torch.full((3,), 2.0), torch.full((3, 1, 1, 1), 2.0)])
def test_expand_sigma_takes_every_layout(sigma):
    level = expand_sigma(sigma, torch.zeros(3, 1, 4, 4))
    assert level.shape == (3, 1, 1, 1) and level.dtype == torch.float32 and bool((level == 2).all())


def test_expand_sigma_keeps_the_order_and_float64_and_lifts_half():
    x = torch.zeros(3, 2, dtype=torch.float64)
    level = expand_sigma(torch.tensor([1.0, 2.0, 3.0]), x)
    assert level.tolist() == [[1.0], [2.0], [3.0]] and level.dtype == torch.float64
    assert expand_sigma(1.0, x.half()).dtype == torch.float32


def test_expand_sigma_refuses_another_batch_size():
    with pytest.raises(ValueError, match="2 values for a batch of 3"):
        expand_sigma(torch.ones(2), torch.zeros(3, 2))


@pytest.mark.parametrize(
    "arguments",
    [
        {"shape": ()},
        {"shape": (0, 4)},
        {"shape": (2,), "label_dim": -1},
        {"shape": (2,), "sigma_min": 0.0},
        {"shape": (2,), "sigma_min": 3.0, "sigma_max": 2.0},
        {"shape": (2,), "sigma_data": 0.0},
    ],
)
def test_denoiser_refuses_values_outside_their_range(arguments):
    with pytest.raises(ValueError, match="need"):
        Denoiser(**arguments)


def test_check_labels():
    unconditional, conditional = Denoiser((2,)), Denoiser((2,), label_dim=3)
    assert unconditional.check_labels(None, 4) is None
    assert unconditional.check_labels(torch.zeros(4, 0), 4) is None
    checked = conditional.check_labels(torch.zeros(4, 3, dtype=torch.int64), 4)
    assert checked is not None and checked.dtype == torch.float32
    with pytest.raises(ValueError, match="unconditional"):
        unconditional.check_labels(torch.zeros(4, 3), 4)
    with pytest.raises(ValueError, match="missing"):
        conditional.check_labels(None, 4)
    for wrong in (torch.zeros(4, 2), torch.zeros(3, 3), torch.zeros(4)):
        with pytest.raises(ValueError, match=r"needs one-hot labels \[4, 3\]"):
            conditional.check_labels(wrong, 4)
