"""Networks of Song et al. 2021 ("score_sde") as denoisers, in the notation of Karras et al. 2022 (table 1).

For networks that were trained with these parametrisations; the public EDM checkpoints are all EDM-preconditioned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from disback_cli.denoisers.preconditioned import PreconditionedDenoiser
from disback_cli.denoisers.preconditioning import Coefficients, ve_coefficients, vp_coefficients, vp_sigma


class VPDenoiser(PreconditionedDenoiser):
    """Variance preserving: the network predicts the noise and is conditioned on time.

    The noise rate is beta(t) = beta_min + beta_d t, t in [epsilon_t, 1]; see :func:`vp_coefficients`. The network's
    parameters are named ``model.*``.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        label_dim: int = 0,
        beta_d: float = 19.9,
        beta_min: float = 0.1,
        M: int = 1000,
        epsilon_t: float = 1e-5,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        sigma_data: float = 0.5,
        network_dtype: Literal["fp32", "fp16", "bf16"] = "fp32",
    ) -> None:
        """Wrap a network.

        Args:
            network: called as ``network(x [B, *shape], c_noise [B], labels [B, label_dim] or None) -> [B, *shape]``.
            shape: shape of one sample, (C, H, W) or (d,).
            label_dim: width of the one-hot labels, 0 = unconditional.
            beta_d: slope of the noise rate, > 0.
            beta_min: noise rate at t = 0, >= 0.
            M: number of time steps of the original training, >= 2.
            epsilon_t: smallest time, 0 < epsilon_t < 1.
            sigma_min: smallest noise level, > 0; None means the one at ``epsilon_t``.
            sigma_max: largest noise level; None means the one at t = 1.
            sigma_data: standard deviation of the data, > 0; weighs losses, the network does not depend on it.
            network_dtype: dtype of the activations inside the network; fp16 acts on CUDA only.

        Raises:
            ValueError: a number is outside its range, or network and wrapper disagree about labels or channels.
        """
        if beta_d <= 0 or beta_min < 0 or M < 2 or not 0 < epsilon_t < 1:
            raise ValueError(
                f"beta_d={beta_d}, beta_min={beta_min}, M={M}, epsilon_t={epsilon_t}: "
                "need beta_d > 0, beta_min >= 0, M >= 2 and 0 < epsilon_t < 1"
            )
        low = vp_sigma(epsilon_t, beta_d, beta_min) if sigma_min is None else sigma_min
        high = vp_sigma(1.0, beta_d, beta_min) if sigma_max is None else sigma_max
        super().__init__(network, shape, label_dim, low, high, sigma_data, network_dtype)
        self.beta_d, self.beta_min, self.M = float(beta_d), float(beta_min), int(M)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Variance-preserving coefficients, see :func:`vp_coefficients`."""
        return vp_coefficients(sigma, self.beta_d, self.beta_min, self.M)


class VEDenoiser(PreconditionedDenoiser):
    """Variance exploding: the network predicts minus the noise and is conditioned on ln(sigma / 2).

    The network's parameters are named ``model.*``.
    """

    def __init__(
        self,
        network: nn.Module,
        shape: Sequence[int],
        label_dim: int = 0,
        sigma_min: float = 0.02,
        sigma_max: float = 100.0,
        sigma_data: float = 0.5,
        network_dtype: Literal["fp32", "fp16", "bf16"] = "fp32",
    ) -> None:
        """Wrap a network.

        Args:
            network: called as ``network(x [B, *shape], c_noise [B], labels [B, label_dim] or None) -> [B, *shape]``.
            shape: shape of one sample, (C, H, W) or (d,).
            label_dim: width of the one-hot labels, 0 = unconditional.
            sigma_min: smallest noise level, > 0.
            sigma_max: largest noise level.
            sigma_data: standard deviation of the data, > 0; weighs losses, the network does not depend on it.
            network_dtype: dtype of the activations inside the network; fp16 acts on CUDA only.

        Raises:
            ValueError: a number is outside its range, or network and wrapper disagree about labels or channels.
        """
        super().__init__(network, shape, label_dim, sigma_min, sigma_max, sigma_data, network_dtype)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Variance-exploding coefficients, see :func:`ve_coefficients`."""
        return ve_coefficients(sigma)
