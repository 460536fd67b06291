"""Diff-Instruct and SiD under one f-divergence (Uni-Instruct 2025)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from disback_cli.distillation.objectives.base import surrogate
from disback_cli.distillation.objectives.critic import Critic
from disback_cli.distillation.objectives.density_ratio import check_divergence, ratio_weights
from disback_cli.distillation.objectives.sid import ScoreIdentity


class UniInstruct(ScoreIdentity):
    """h(r) * (``diff_instruct`` * Diff-Instruct's surrogate + ``sid`` * SiD's loss), both summed over components.

    This is our reading of "an f-divergence-weighted sum of the Diff-Instruct and SiD gradients": the paper itself could
    not be read, so weights, normalisation and the choice of f are ours. h is that of f-distill, 1 before the critic
    acts. With ``rkl`` and ``diff_instruct=0`` it is SiD.

    Args:
        critic: estimates the density ratio; only ``rkl`` can do without.
        divergence: as for f-distill.
        diff_instruct: weight of Diff-Instruct's part.
        sid: weight of SiD's part.
        alpha: weight of SiD's explicit part.
        floor: smallest omega.

    Raises:
        ValueError: the divergence is unknown or needs a critic, or a weight is outside its range.
    """

    def __init__(
        self,
        *,
        critic: Critic | None,
        divergence: Literal["rkl", "kl", "js", "sf", "neyman", "hellinger", "jeffreys"] = "js",
        diff_instruct: float = 1.0,
        sid: float = 1.0,
        alpha: float = 1.2,
        floor: float = 1e-5,
    ) -> None:
        super().__init__(alpha=alpha, floor=floor)
        check_divergence(divergence, critic is not None)
        if min(diff_instruct, sid) < 0 or diff_instruct + sid <= 0:
            raise ValueError(
                f"objective.diff_instruct={diff_instruct}, objective.sid={sid}: need two numbers of 0 or more, not "
                "both 0"
            )
        self.critic = critic
        self.divergence, self.uses_ratio = divergence, divergence != "rkl"
        self.diff_instruct, self.sid = diff_instruct, sid

    def loss(
        self, x: Tensor, noisy: Tensor, sigma: Tensor, fake: Tensor, target: Tensor, logits: Tensor | None = None
    ) -> Tensor:
        """The weighted sum of each sample, ``[B]``."""
        each = self.sid * super().loss(x, noisy, sigma, fake, target)
        each = each + self.diff_instruct * surrogate(x, fake - target)
        return each if logits is None else ratio_weights(logits, sigma, self.divergence) * each
