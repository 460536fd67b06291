"""What an objective is: a loss of every sample whose gradient moves the student."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from disback_cli.distillation.objectives.critic import Critic
    from disback_cli.distillation.objectives.regression import Regression


class Objective(ABC):
    """The generator's loss, from tensors alone.

    The stage calls the two denoisers and hands their outputs over. To add an objective, subclass this or
    :class:`DirectionObjective` in a file beside this one and write one YAML file under ``conf/objective``. Descending
    the loss moves the student's samples from where the fake score has them to where the target has them.

    Attributes:
        through_denoisers: whether the gradient flows through target and fake score into the sample, as in SiD; the
            target must be differentiable then.
        fake_updates: updates of the fake score for one of the generator, as published.
        critic: a discriminator beside the fake score; needs real data. None: no data are looked at.
        uses_ratio: whether the loss is weighted by the density ratio that the critic's logits estimate.
        regression: a term on the teacher's own samples; needs pairs. None: there is none.
    """

    through_denoisers: bool = False
    fake_updates: int = 1
    critic: Critic | None = None
    uses_ratio: bool = False
    regression: Regression | None = None

    @abstractmethod
    def loss(
        self, x: Tensor, noisy: Tensor, sigma: Tensor, fake: Tensor, target: Tensor, logits: Tensor | None = None
    ) -> Tensor:
        """Loss of each sample ``[B]``; the stage takes the mean.

        Args:
            x: the student's samples ``[B, ...]``, with their graph.
            noisy: x + sigma n; with its graph if ``through_denoisers``, else detached.
            sigma: noise levels ``[B, 1, ...]``, broadcast against ``x``.
            fake: D_fake(noisy; sigma); if ``through_denoisers`` with a graph towards ``x`` and none towards the
                network's parameters, else detached.
            target: D_target(noisy; sigma), likewise.
            logits: the critic's logit of ``noisy`` ``[B]``, detached, while the terms on real data act; large where
                the sample looks real. None before, and without a critic.
        """


class DirectionObjective(Objective):
    """An objective that prescribes the gradient with regard to the sample itself.

    The loss of a sample is the surrogate ``sum(x * direction)``: the gradient of its mean with regard to the student's
    weights is E[direction * dx/dtheta], summed over components (METHOD, eq. 8). Its value means nothing.
    """

    @abstractmethod
    def direction(self, x: Tensor, noisy: Tensor, sigma: Tensor, fake: Tensor, target: Tensor) -> Tensor:
        """Gradient with regard to ``x``, same shape; arguments as in :meth:`Objective.loss`."""

    def loss(
        self, x: Tensor, noisy: Tensor, sigma: Tensor, fake: Tensor, target: Tensor, logits: Tensor | None = None
    ) -> Tensor:
        """The surrogate of the prescribed direction."""
        return surrogate(x, self.direction(x.detach(), noisy, sigma, fake, target))


def surrogate(x: Tensor, direction: Tensor) -> Tensor:
    """Sum over components of x * direction ``[B]``, whose gradient with regard to ``x`` is the direction, held fixed.

    Args:
        x: samples ``[B, ...]``.
        direction: of the same shape; no gradient flows into it.
    """
    return (x * direction.detach()).flatten(1).sum(1)
