"""Diff-Instruct (Luo et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from disback_cli.distillation.objectives.base import DirectionObjective


class DiffInstruct(DirectionObjective):
    """Integral KL with weight w = sigma^2: the direction is D_fake - D_target, summed over components."""

    def direction(self, x: Tensor, noisy: Tensor, sigma: Tensor, fake: Tensor, target: Tensor) -> Tensor:
        """sigma^2 (score_fake - score_target) = D_fake - D_target."""
        return fake - target
