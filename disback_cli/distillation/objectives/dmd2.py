"""Improved distribution matching distillation (DMD2, Yin et al. 2024)."""

from __future__ import annotations

from disback_cli.distillation.objectives.critic import Critic
from disback_cli.distillation.objectives.dmd import DistributionMatching


class ImprovedDistributionMatching(DistributionMatching):
    """DMD's direction, a mean over components, with five updates of the fake score for one of the generator.

    The regression on teacher pairs is gone; a critic on the fake score's bottleneck may stand beside the direction.

    Args:
        critic: None does without, and needs no real data.
        floor: smallest normaliser of DMD's direction.
    """

    fake_updates = 5

    def __init__(self, *, critic: Critic | None = None, floor: float = 1e-5) -> None:
        super().__init__(floor=floor)
        self.critic = critic
