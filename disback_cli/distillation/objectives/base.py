"""What an objective is: a scalar loss whose gradient moves the student."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Objective(ABC):
    """The generator's loss, from tensors alone.

    The stage calls the two denoisers and hands their outputs over. To add an objective, subclass this or
    :class:`DirectionObjective` in a file beside this one and write one YAML file under ``conf/objective``.
    """

    @abstractmethod
    def loss(self, x: Tensor, noisy: Tensor, sigma: Tensor, fake: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of a batch, a mean over samples.

        Args:
            x: the student's samples ``[B, ...]``, with their graph.
            noisy: x + sigma n, detached.
            sigma: noise levels ``[B, 1, ...]``, broadcast against ``x``.
            fake: D_fake(noisy; sigma), detached.
            target: D_target(noisy; sigma), detached.
        """


class DirectionObjective(Objective):
    """An objective that prescribes the gradient with regard to the sample itself.

    The loss is the surrogate ``sum(x * direction)``, averaged over the batch: its gradient with regard to the
    student's weights is E[direction * dx/dtheta], summed over components (METHOD, eq. 8). Its value means nothing.
    """

    @abstractmethod
    def direction(self, x: Tensor, noisy: Tensor, sigma: Tensor, fake: Tensor, target: Tensor) -> Tensor:
        """Gradient with regard to ``x``, same shape; arguments as in :meth:`Objective.loss`."""

    def loss(self, x: Tensor, noisy: Tensor, sigma: Tensor, fake: Tensor, target: Tensor) -> Tensor:
        """The surrogate of the prescribed direction."""
        direction = self.direction(x.detach(), noisy, sigma, fake, target).detach()
        return (x * direction).sum() / x.shape[0]
