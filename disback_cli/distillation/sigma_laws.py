"""Laws of the noise level sigma, each given by its quantile function (METHOD: Karras et al. 2022; Luo et al. 2023).

A law maps uniform values in [0, 1) to sigmas, so that it is a pure function and its density is known exactly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class SigmaLaw(ABC):
    """A distribution of noise levels."""

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """Noise levels (fp32) of uniform values ``u`` in [0, 1) (float64), increasing in sigma or decreasing."""


class LogNormal(SigmaLaw):
    """ln(sigma) is normal: EDM's training law, used by Diff-Instruct for both steps.

    Args:
        mean: mean of ln(sigma); EDM has -1.2.
        std: standard deviation of ln(sigma); EDM has 1.2.
    """

    def __init__(self, *, mean: float = -1.2, std: float = 1.2) -> None:
        if std <= 0:
            raise ValueError(f"the standard deviation of ln(sigma) must be positive, got {std}")
        self.mean = mean
        self.std = std

    def quantile(self, u: Tensor) -> Tensor:
        """exp(mean + std * ndtri(u)); u is kept off 0 and 1 by 1e-9 (six standard deviations)."""
        normal = torch.special.ndtri(u.double().clamp(1e-9, 1 - 1e-9))
        return torch.exp(self.mean + self.std * normal).float()


class KarrasUniform(SigmaLaw):
    """A uniform position on the Karras ramp: K(u) with u uniform in [u_min, u_max], K(0) = sigma_max.

    With [0.02, 0.98] this is the uniform time of VSD and DMD carried over to EDM's noise levels; with [0, 0.8]
    it is SiD's law.

    Args:
        u_min: smallest position, 0 is sigma_max.
        u_max: largest position, 1 is sigma_min.
        sigma_min: end of the ramp.
        sigma_max: start of the ramp.
        rho: exponent of the ramp.
    """

    def __init__(
        self,
        *,
        u_min: float = 0.02,
        u_max: float = 0.98,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        rho: float = 7.0,
    ) -> None:
        if not 0 <= u_min < u_max <= 1:
            raise ValueError(f"the Karras law needs 0 <= u_min < u_max <= 1, got {u_min} and {u_max}")
        if not 0 < sigma_min < sigma_max:
            raise ValueError(f"the Karras law needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
        self.u_min, self.u_max = u_min, u_max
        self.sigma_min, self.sigma_max, self.rho = sigma_min, sigma_max, rho

    def quantile(self, u: Tensor) -> Tensor:
        """K(u_min + (u_max - u_min) u)."""
        position = self.u_min + (self.u_max - self.u_min) * u.double()
        top, bottom = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        return ((top + position * (bottom - top)) ** self.rho).float()
