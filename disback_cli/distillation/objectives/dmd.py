"""Distribution matching distillation (Yin et al. 2024)."""

from __future__ import annotations

from torch import Tensor

from disback_cli.distillation.objectives.base import DirectionObjective
from disback_cli.distillation.objectives.regression import Regression


class DistributionMatching(DirectionObjective):
    """The direction of Diff-Instruct, normalised a sample by how far the target would move it.

    Args:
        floor: smallest normaliser, so that a perfectly denoised sample does not divide by zero.
        regression: the term on the teacher's pairs, 0.25 LPIPS as published; None or a weight of 0 does without.
    """

    def __init__(self, *, floor: float = 1e-5, regression: Regression | None = None) -> None:
        if floor <= 0:
            raise ValueError(f"objective.floor must be positive, got {floor}")
        self.floor = floor
        self.regression = regression if regression is not None and regression.weight > 0 else None

    def direction(self, x: Tensor, noisy: Tensor, sigma: Tensor, fake: Tensor, target: Tensor) -> Tensor:
        """(D_fake - D_target) / mean_chw |x - D_target|, averaged over components as DMD2 does."""
        components = tuple(range(1, x.dim()))
        normaliser = (x - target).abs().mean(dim=components, keepdim=True).clamp_min(self.floor)
        return (fake - target) / normaliser / x[0].numel()
