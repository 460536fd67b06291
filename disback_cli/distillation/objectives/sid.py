"""Score identity distillation (SiD 2024)."""

from __future__ import annotations

from torch import Tensor

from disback_cli.distillation.objectives.base import Objective

# SiD multiplies its sum over components by this; it matters where terms are added, not to Adam.
SCALE = 100.0


def identity_loss(x: Tensor, fake: Tensor, target: Tensor, alpha: float) -> Tensor:
    """Sum over components of (D_t - D_f) * ((D_t - x) - alpha (D_t - D_f)), ``[B]``.

    With the exact fake score of the samples' law p, and q the target's, its gradient through ``x`` and both denoisers
    is s^4 times the gradient of half the Fisher divergence E_p |score_p - score_q|^2 at alpha = 1/2. At alpha = 1 it is
    that part of it in which the score moves and the law of the noisy samples stays; 2 (1 - alpha) is the factor of
    the rest, which is negative at SiD's 1.2.

    Args:
        x: the student's samples ``[B, ...]``.
        fake: D_fake at their noisy forms.
        target: D_target there.
        alpha: weight of the explicit part.
    """
    apart = target - fake
    return (apart * ((target - x) - alpha * apart)).flatten(1).sum(1)


def omega(x: Tensor, target: Tensor, floor: float) -> Tensor:
    """Normaliser of each sample, max(mean |x - D_target|, floor), ``[B]``, held fixed."""
    return (x - target).detach().abs().flatten(1).mean(1).clamp_min(floor)


class ScoreIdentity(Objective):
    """SiD's loss: 100 times the identity's sum over components, over omega of the sample (METHOD's table).

    The gradient flows through the sample and through both denoisers. omega uses the current target.

    Args:
        alpha: weight of the explicit part; SiD has 1.2, SiDA 1.
        floor: smallest omega, so that a perfectly denoised sample does not divide by zero.

    Raises:
        ValueError: the floor is not positive.
    """

    through_denoisers = True

    def __init__(self, *, alpha: float = 1.2, floor: float = 1e-5) -> None:
        if floor <= 0:
            raise ValueError(f"objective.floor must be positive, got {floor}")
        self.alpha, self.floor = alpha, floor

    def loss(
        self, x: Tensor, noisy: Tensor, sigma: Tensor, fake: Tensor, target: Tensor, logits: Tensor | None = None
    ) -> Tensor:
        """Loss of each sample, ``[B]``."""
        return SCALE * identity_loss(x, fake, target, self.alpha) / omega(x, target, self.floor)
