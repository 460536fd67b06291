"""EDM preconditioning and loss weight as pure functions (Karras et al. 2022, table 1, column "Ours")."""

from __future__ import annotations

from torch import Tensor


def edm_coefficients(sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coefficients of ``D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)``.

    With data of standard deviation ``sigma_data``, the input of F has unit variance at every sigma, and so has its
    training target (Karras et al. 2022, appendix B.6).

    Args:
        sigma: noise levels, any shape, > 0.
        sigma_data: standard deviation of the data, > 0.

    Returns:
        (c_skip, c_out, c_in, c_noise), each of the shape and dtype of ``sigma``: sd^2 / (s^2 + sd^2),
        s sd / sqrt(s^2 + sd^2), 1 / sqrt(s^2 + sd^2) and ln(s) / 4.
    """
    total = sigma.square() + sigma_data**2
    c_in = total.rsqrt()
    return sigma_data**2 / total, sigma * sigma_data * c_in, c_in, sigma.log() / 4


def loss_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """Weight of the denoising loss, ``lambda(s) = (s^2 + sd^2) / (s sd)^2 = 1 / c_out^2``.

    It makes the loss of an untrained network equal at every noise level (Karras et al. 2022, table 1).

    Args:
        sigma: noise levels, any shape, > 0.
        sigma_data: standard deviation of the data, > 0.

    Returns:
        lambda, of the shape and dtype of ``sigma``.
    """
    return (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()
