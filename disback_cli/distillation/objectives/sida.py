"""SiD with an adversarial term on real data (SiDA 2025)."""

from __future__ import annotations

from torch import Tensor

from disback_cli.distillation.objectives.critic import Critic
from disback_cli.distillation.objectives.sid import ScoreIdentity


class AdversarialScoreIdentity(ScoreIdentity):
    """Plain SiD until the critic acts; from then on ``weight`` times SiD plus the critic's generator loss.

    SiD is summed over components and multiplied by 100, as it stands in METHOD's table; the critic's loss is one number
    a sample. How the paper scales the two against each other could not be read: their weights are options.

    Args:
        critic: its ``generator_weight`` is the other half, 0.5.
        weight: of SiD while the critic acts.
        alpha: weight of SiD's explicit part.
        floor: smallest omega.

    Raises:
        ValueError: there is no critic, or a number is outside its range.
    """

    def __init__(self, *, critic: Critic, weight: float = 0.5, alpha: float = 1.0, floor: float = 1e-5) -> None:
        super().__init__(alpha=alpha, floor=floor)
        if critic is None:
            raise ValueError(f"objective.critic=null: without a critic this is SiD; type objective=sid alpha={alpha:g}")
        if weight < 0:
            raise ValueError(f"objective.weight={weight}: need 0 or more")
        self.critic, self.weight = critic, weight

    def loss(
        self, x: Tensor, noisy: Tensor, sigma: Tensor, fake: Tensor, target: Tensor, logits: Tensor | None = None
    ) -> Tensor:
        """Loss of each sample ``[B]``, without the critic's part, which is the critic's own."""
        each = super().loss(x, noisy, sigma, fake, target)
        return each if logits is None else self.weight * each
