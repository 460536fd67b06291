"""Variational score distillation (Wang et al. 2023; SwiftBrush, Score GAN)."""

from __future__ import annotations

from torch import Tensor

from disback_cli.distillation.objectives.base import DirectionObjective


class VariationalScoreDistillation(DirectionObjective):
    """Integral KL in the noise-prediction parametrisation: w = sigma, summed over components."""

    def direction(self, x: Tensor, noisy: Tensor, sigma: Tensor, fake: Tensor, target: Tensor) -> Tensor:
        """sigma (score_fake - score_target) = (D_fake - D_target) / sigma, a difference of noise predictions."""
        return (fake - target) / sigma
