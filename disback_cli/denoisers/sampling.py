"""Many-step sampling of a denoiser: Heun's method on the probability-flow ODE (Karras et al. 2022, algorithm 2)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from disback_cli.denoisers.protocol import Denoiser


def sigma_ramp(steps: int, sigma_min: float, sigma_max: float, rho: float = 7) -> Tensor:
    """Decreasing noise levels, evenly spaced in ``sigma^(1/rho)`` (Karras et al. 2022, eq. 5).

    Args:
        steps: number of levels above zero, >= 1; a single step starts at ``sigma_max``.
        sigma_min: the smallest level above zero, > 0.
        sigma_max: the largest level, > sigma_min.
        rho: exponent; larger values put more levels near ``sigma_min``.

    Returns:
        float64 [steps + 1], from ``sigma_max`` down to ``sigma_min`` and then 0.

    Raises:
        ValueError: a number is outside its range.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: need at least 1")
    if not 0 < sigma_min < sigma_max or rho <= 0:
        raise ValueError(f"sigma_min={sigma_min}, sigma_max={sigma_max}, rho={rho}: need 0 < min < max and rho > 0")
    u = torch.arange(steps, dtype=torch.float64) / max(steps - 1, 1)
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    levels = (top + u * (bottom - top)) ** rho
    return torch.cat([levels, levels.new_zeros(1)])


def network_evaluations(steps: int) -> int:
    """Denoiser calls of ``heun``: two a step, one in the last, whose second-order correction would divide by zero."""
    return 2 * steps - 1


@torch.no_grad()
def heun(
    denoiser: Denoiser,
    latents: Tensor,
    labels: Tensor | None = None,
    steps: int = 18,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    rho: float = 7,
    s_churn: float = 0,
    s_min: float = 0,
    s_max: float = math.inf,
    s_noise: float = 1,
    noise: Callable[[int], Tensor] | None = None,
) -> Tensor:
    """Sample with Heun's second-order method, deterministic or with churn (Karras et al. 2022, algorithm 2).

    The state is float64; the denoiser is called in the dtype of ``latents``, in whatever mode (train or eval) it is in.

    Args:
        denoiser: the denoiser D(x; sigma, labels).
        latents: unit-normal noise, [B, *shape].
        labels: one-hot float labels, [B, label_dim], or None.
        steps: number of steps N >= 1; costs ``network_evaluations(N)`` denoiser calls.
        sigma_min: smallest noise level above zero; None means the denoiser's.
        sigma_max: noise level of the start; None means the denoiser's.
        rho: exponent of the ramp.
        s_churn: how much noise is added over the whole trajectory, >= 0; 0 solves the ODE.
        s_min: no noise is added below this level.
        s_max: no noise is added above this level.
        s_noise: standard deviation of the added noise, slightly above 1 against loss of detail.
        noise: ``noise(step) -> [B, *shape]`` unit-normal noise of a step, called only for steps that add noise. Drawing
            it for each sample by its index keeps the images independent of the batch size.

    Returns:
        Samples, [B, *shape], float64.

    Raises:
        ValueError: a number is outside its range, or ``s_churn`` > 0 without ``noise``.
    """
    if s_churn < 0:
        raise ValueError(f"s_churn={s_churn}: need 0 (deterministic) or more")
    if s_churn > 0 and noise is None:
        raise ValueError("s_churn > 0 needs noise: a callable noise(step) that returns unit-normal noise like latents")
    ramp: list[float] = sigma_ramp(
        steps,
        denoiser.sigma_min if sigma_min is None else sigma_min,
        denoiser.sigma_max if sigma_max is None else sigma_max,
        rho,
    ).tolist()

    def slope(x: Tensor, sigma: float) -> Tensor:
        """dx / dsigma of the probability-flow ODE."""
        level = torch.full((x.shape[0],), sigma, dtype=latents.dtype, device=x.device)
        estimate: Tensor = denoiser(x.to(latents.dtype), level, labels)
        return (x - estimate.to(x.dtype)) / sigma

    # Churn raises a level by at most 41 %, which at most doubles the variance.
    gain = min(s_churn / steps, math.sqrt(2) - 1)
    x = latents.to(torch.float64) * ramp[0]
    for step, (sigma, sigma_next) in enumerate(zip(ramp[:-1], ramp[1:], strict=True)):
        if noise is not None and gain > 0 and s_min <= sigma <= s_max:
            raised = sigma * (1 + gain)
            x = x + math.sqrt(raised**2 - sigma**2) * s_noise * noise(step).to(x)
            sigma = raised
        first = slope(x, sigma)
        euler = x + (sigma_next - sigma) * first
        if sigma_next == 0:
            return euler
        x = x + (sigma_next - sigma) * (first + slope(euler, sigma_next)) / 2
    return x
