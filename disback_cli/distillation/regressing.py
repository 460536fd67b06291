"""Plain regression of a student on its teacher's pairs: a start for students that do not begin as the teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from disback_cli.distillation.costs import NetworkCosts
from disback_cli.distillation.objectives.regression import per_sample
from disback_cli.distillation.pairs import Pairs
from disback_cli.distillation.students import Student
from disback_cli.runtime.ema import Ema
from disback_cli.runtime.stage import Stage


class Regressing(Stage):
    """The student's sample of a latent moves to the teacher's of the same latent and label.

    A student of several evaluations is trained on its first, which sees pure noise. An iteration costs a sample one
    forward and one backward pass of the student; the pairs were paid for when they were made.

    Args:
        student: the generator that is trained.
        pairs: the teacher's latents and samples.
        distance: ``distance(made, wanted) -> [B]``, see :mod:`disback_cli.distillation.distances`.
        ema_halflife: half-life of the student's average, in images.
        ema_rampup: see :class:`disback_cli.runtime.ema.Ema`.
        costs: what the networks cost, in forward passes of the teacher.
        settings: see :class:`Stage`; ``lr`` has the key ``student``.
    """

    def __init__(
        self,
        *,
        student: Student,
        pairs: Pairs,
        distance: Callable[[Tensor, Tensor], Tensor],
        ema_halflife: float,
        ema_rampup: float,
        costs: NetworkCosts | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.student = student
        self.ema = Ema(student, halflife=ema_halflife, rampup=ema_rampup)
        self.pairs, self.distance = pairs, distance
        self.costs = costs or NetworkCosts()

    @property
    def passes_per_sample(self) -> float:
        """Cost of one sample, in forward passes of the teacher."""
        return self.costs.student + self.costs.student_backward

    def trained(self) -> dict[str, nn.Module]:
        """The student."""
        return {"student": self.student}

    def losses(self, iteration: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The mean distance on this iteration's pairs."""
        first, count = self.share
        z, labels, wanted = self.pairs.batch(self.random.seed, iteration * self.batch_size + first, count, self.device)
        made = self.student.training_sample(z, labels, None, 0)
        loss = per_sample(self.distance, made, wanted).mean()
        return {"regression_loss": loss}, {"sample_std": made.detach().std()}

    def after_step(self) -> None:
        """Average the student."""
        self.ema.update(self.student, self.batch_size, self.images_seen)
