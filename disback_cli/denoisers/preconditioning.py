"""Preconditioning and loss weight as pure functions (Karras et al. 2022, table 1 and appendix C).

Each parametrisation is four coefficients of ``D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)``, computed in the
dtype of ``sigma``, and whatever map lies between sigma and the time the network was trained with.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# (c_skip, c_out, c_in, c_noise), each of the shape of sigma.
Coefficients = tuple[Tensor, Tensor, Tensor, Tensor]


def edm_coefficients(sigma: Tensor, sigma_data: float) -> Coefficients:
    """Coefficients of EDM's own parametrisation (table 1, column "Ours").

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


def vp_sigma(time: float, beta_d: float, beta_min: float) -> float:
    """Noise level of the variance-preserving SDE at a time, sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1), t in [0, 1]."""
    return math.sqrt(math.expm1(0.5 * beta_d * time**2 + beta_min * time))


def vp_time(sigma: Tensor, beta_d: float, beta_min: float) -> Tensor:
    """The inverse of ``vp_sigma``, of the shape and dtype of ``sigma``.

    The positive root of beta_d t^2 / 2 + beta_min t = ln(1 + s^2), in the form that does not cancel at small sigma.
    """
    exponent = sigma.square().log1p()
    return 2 * exponent / ((beta_min**2 + 2 * beta_d * exponent).sqrt() + beta_min)


def vp_coefficients(sigma: Tensor, beta_d: float, beta_min: float, M: int) -> Coefficients:
    """Coefficients of Song et al. 2021, variance preserving: F predicts the noise, and sees time in steps of M.

    Args:
        sigma: noise levels, any shape, > 0.
        beta_d: slope of the noise rate, beta(t) = beta_min + beta_d t.
        beta_min: noise rate at t = 0.
        M: number of time steps of the original training.

    Returns:
        (1, -s, 1 / sqrt(s^2 + 1), (M - 1) t(s)).
    """
    c_in = (sigma.square() + 1).rsqrt()
    return torch.ones_like(sigma), -sigma, c_in, (M - 1) * vp_time(sigma, beta_d, beta_min)


def ve_coefficients(sigma: Tensor) -> Coefficients:
    """Coefficients of Song et al. 2021, variance exploding: F predicts minus the noise.

    Args:
        sigma: noise levels, any shape, > 0.

    Returns:
        (1, s, 1, ln(s / 2)).
    """
    one = torch.ones_like(sigma)
    return one, sigma, one, (0.5 * sigma).log()


def iddpm_noise_levels(M: int, C_1: float, C_2: float) -> list[float]:
    """Noise levels of the cosine schedule of Nichol & Dhariwal 2021 (Karras et al. 2022, table 1, column "iDDPM").

    u_M = 0 and u_{j-1} = sqrt((u_j^2 + 1) / max(a_{j-1} / a_j, C_1) - 1), a_j = sin(pi/2 * j / (M (C_2 + 1)))^2.

    Args:
        M: number of time steps of the original training.
        C_1: lower bound on the ratio of consecutive a, which bounds the largest noise level.
        C_2: offset of the cosine schedule.

    Returns:
        [u_0, ..., u_M], decreasing to 0.
    """

    def alpha_bar(step: int) -> float:
        return math.sin(0.5 * math.pi * step / (M * (C_2 + 1))) ** 2

    levels = [0.0]
    for step in range(M, 0, -1):
        ratio = max(alpha_bar(step - 1) / alpha_bar(step), C_1)
        levels.append(math.sqrt((levels[-1] ** 2 + 1) / ratio - 1))
    return levels[::-1]


def iddpm_coefficients(sigma: Tensor, levels: Tensor) -> Coefficients:
    """Coefficients of Nichol & Dhariwal 2021: F predicts the noise, and sees integer time steps.

    Args:
        sigma: noise levels, any shape, > 0. Those between two steps are told to F as the nearest step, while the other
            coefficients keep them as they are.
        levels: [u_0, ..., u_M] of ``iddpm_noise_levels``.

    Returns:
        (1, -s, 1 / sqrt(s^2 + 1), M - 1 - j) with u_j nearest to s; j = M, which stands for no noise, is left out.
    """
    steps = levels[:-1].to(sigma.dtype)
    nearest = (sigma.reshape(-1, 1) - steps).abs().argmin(dim=1).reshape(sigma.shape)
    c_noise = (len(steps) - 1 - nearest).to(sigma.dtype)
    return torch.ones_like(sigma), -sigma, (sigma.square() + 1).rsqrt(), c_noise
