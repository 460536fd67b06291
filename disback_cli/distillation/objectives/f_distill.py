"""f-divergence distribution matching (f-distill 2025)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from disback_cli.distillation.objectives.critic import Critic
from disback_cli.distillation.objectives.density_ratio import check_divergence, ratio_weights
from disback_cli.distillation.objectives.dmd2 import ImprovedDistributionMatching


class FDistill(ImprovedDistributionMatching):
    """DMD's direction, a mean over components, times h(r) = r^2 f''(r) of an f-divergence of the density ratio r.

    r is the target's density over the student's at the noisy sample, from the critic's logit; before the critic acts
    h is 1, which is DMD2's direction, and so it is with ``rkl`` for good. Five updates of the fake score for one of
    the generator, as DMD2.

    Args:
        critic: estimates r; its ``generator_weight`` may be 0. Only ``rkl`` can do without.
        divergence: f: reverse KL, KL, Jensen-Shannon, softened reverse KL, Neyman's chi squared, squared Hellinger or
            Jeffreys.
        floor: smallest normaliser of DMD's direction.

    Raises:
        ValueError: the divergence is unknown, or needs a critic that is not there.
    """

    def __init__(
        self,
        *,
        critic: Critic | None,
        divergence: Literal["rkl", "kl", "js", "sf", "neyman", "hellinger", "jeffreys"] = "js",
        floor: float = 1e-5,
    ) -> None:
        super().__init__(critic=critic, floor=floor)
        check_divergence(divergence, critic is not None)
        self.divergence, self.uses_ratio = divergence, divergence != "rkl"

    def loss(
        self, x: Tensor, noisy: Tensor, sigma: Tensor, fake: Tensor, target: Tensor, logits: Tensor | None = None
    ) -> Tensor:
        """h(r) times the surrogate of DMD's direction, ``[B]``."""
        each = super().loss(x, noisy, sigma, fake, target)
        return each if logits is None else ratio_weights(logits, sigma, self.divergence) * each
