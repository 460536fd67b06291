"""Weights of a loss by noise level, as pure functions of sigma."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from disback_cli.denoisers.preconditioning import loss_weight


class Weighting(ABC):
    """How much a noise level counts in a loss."""

    @abstractmethod
    def __call__(self, sigma: Tensor, sigma_data: float) -> Tensor:
        """Weights, of the shape and dtype of ``sigma``.

        Args:
            sigma: noise levels, any shape, > 0.
            sigma_data: standard deviation of the data, > 0.
        """


class EdmWeighting(Weighting):
    """lam(s) = (s^2 + sd^2) / (s sd)^2 = 1 / s^2 + 1 / sd^2: an untrained network's loss is 1 at every level.

    The weight of EDM (Karras et al. 2022) and, written as the sum, of DMD2 (Yin et al. 2024).
    """

    def __call__(self, sigma: Tensor, sigma_data: float) -> Tensor:
        """lam(sigma)."""
        return loss_weight(sigma, sigma_data)


class SnrWeighting(Weighting):
    """1 / s^2, the signal-to-noise ratio of a signal of unit size: an error of the predicted noise (Ho et al. 2020).

    DMD2's weight, 1 / s^2 + 1 / sd^2, is :class:`EdmWeighting` written as a sum.
    """

    def __call__(self, sigma: Tensor, sigma_data: float) -> Tensor:
        """1 / sigma^2."""
        return sigma.square().reciprocal()


class FlatWeighting(Weighting):
    """Every noise level counts the same."""

    def __call__(self, sigma: Tensor, sigma_data: float) -> Tensor:
        """Ones."""
        return torch.ones_like(sigma)
