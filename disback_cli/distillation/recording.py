"""Stage 1: degradation recording (DisBack, eq. 7 and Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from disback_cli.denoisers.protocol import Denoiser, expand_sigma
from disback_cli.distillation.costs import NetworkCosts
from disback_cli.distillation.losses import denoising_loss
from disback_cli.distillation.probe_set import ProbeSet
from disback_cli.distillation.sigma_laws import SigmaLaw
from disback_cli.distillation.students import Student, evaluations_of, step_of
from disback_cli.distillation.weightings import Weighting
from disback_cli.runtime.randomness import CounterRandom
from disback_cli.runtime.stage import Stage


class Recording(Stage):
    """Trains a copy of the teacher towards the untrained student's own samples.

    An iteration costs 4 F (F: one forward pass of the teacher) where student and copy have the teacher's network: one
    pass of the student without gradients, and forward and backward of the copy. The samples of a student of several
    evaluations are those of all of them, an evaluation an iteration, as its distillation will train them. No real data
    is touched.

    Args:
        student: the untrained student G0; frozen here.
        fake: the copy of the teacher that is trained (the paper's auxiliary network).
        law: noise levels of the denoising loss.
        weighting: factor of the denoising loss at each noise level; None is EDM's.
        costs: what the networks cost, in forward passes of the teacher.
        settings: see :class:`Stage`.
    """

    def __init__(
        self,
        *,
        student: Student,
        fake: Denoiser,
        law: SigmaLaw,
        weighting: Weighting | None = None,
        costs: NetworkCosts | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.student = student.requires_grad_(False)
        self.fake = fake
        self.law, self.weighting = law, weighting
        self.costs = costs or NetworkCosts()

    @property
    def passes_per_sample(self) -> float:
        """Cost of one sample of the present iteration, in forward passes of the teacher."""
        evaluations = evaluations_of(step_of(self.student, self.random, self.iteration))
        return self.costs.student * evaluations + self.costs.fake + self.costs.fake_backward

    def trained(self) -> dict[str, nn.Module]:
        """The copy alone."""
        return {"fake": self.fake}

    def losses(self, iteration: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Denoising score matching of the copy on fresh samples of G0."""
        step = step_of(self.student, self.random, iteration)
        loss, x = recording_loss(self.student, self.fake, self.law, self.weighting, self, step)
        return {"fake_loss": loss}, {"sample_mean": x.mean(), "sample_std": x.std()}


class Draws(Protocol):
    """Who draws for a recording: a part of a batch, by purpose."""

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Standard normal ``[B, *shape]``."""

    def uniform(self, purpose: str) -> Tensor:
        """Uniform ``[B]``."""

    def one_hot_labels(self, purpose: str, classes: int) -> Tensor | None:
        """Labels ``[B, classes]``, None without classes."""


def recording_loss(
    student: Student, fake: Denoiser, law: SigmaLaw, weighting: Weighting | None, draws: Draws, step: int
) -> tuple[Tensor, Tensor]:
    """Denoising score matching on fresh samples of a frozen student (eq. 7).

    Args:
        student: not changed.
        fake: the denoiser that is trained.
        law: of the noise levels.
        weighting: factor of the loss at each noise level; None is EDM's.
        draws: this process's part of the batch.
        step: which of the student's evaluations the samples are of.

    Returns:
        The loss, a scalar; the samples, ``[B, *shape]``.
    """
    shape, labels = fake.shape, draws.one_hot_labels("labels", fake.label_dim)
    with torch.no_grad():
        x = student.training_sample(
            draws.normal("z", shape), labels, lambda later: draws.normal(f"student noise {later}", shape), step
        )
    sigma = law.quantile(draws.uniform("sigma_fake"))
    noisy = x + expand_sigma(sigma, x) * draws.normal("noise_fake", shape)
    return denoising_loss(fake(noisy, sigma, labels), x, sigma, fake.sigma_data, weighting=weighting), x


@dataclass(frozen=True)
class Subject:
    """What a probe's noisy samples are made of where there is no recording.

    Attributes:
        student: whose samples they are.
        law: of the noise levels.
        random: the draws.
        device: where everything lies.
    """

    student: Student
    law: SigmaLaw
    random: CounterRandom
    device: torch.device


class MismatchProbe:
    """Mismatch to the teacher on a fixed set of the untrained student's noisy samples.

    The set and the teacher's answers are made once, so a measurement costs one forward pass of the network and
    differences between measurements are the network's alone. Of a student of several evaluations the set holds samples
    of each in turn.

    Attributes:
        newest: answers of the network measured last, the teacher's at first.
        moved: mismatch between the two networks measured last, the teacher counting as the first.

    Args:
        stage: the recording whose student, law, seed and device are used.
        teacher: node 0.
        samples: size of the set.
        at_once: most samples a network is asked for at a time; None asks for all.
    """

    def __init__(self, stage: Recording | Subject, teacher: Denoiser, samples: int, at_once: int | None = None) -> None:
        self.samples = samples
        self._set = ProbeSet(stage.random, stage.law, teacher, samples, stage.device, at_once)
        self.sigma = self._set.sigma
        self.noisy = self._set.noisy(self._set.of_student(stage.student))
        self.answer = self._set.ask(teacher, self.noisy)
        self.newest, self.moved = self.answer, 0.0

    def measure(self, network: Denoiser) -> float:
        """sqrt(mean lam(sigma) (D - D_teacher)^2); see :func:`disback_cli.distillation.losses.mismatch`."""
        before, self.newest = self.newest, self._set.ask(network, self.noisy)
        self.moved = self._set.apart(self.newest, before)
        return self._set.apart(self.newest, self.answer)
