"""Stage 1: degradation recording (DisBack, eq. 7 and Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from disback_cli.denoisers.protocol import Denoiser, expand_sigma
from disback_cli.distillation.losses import denoising_loss, mismatch
from disback_cli.distillation.sigma_laws import SigmaLaw
from disback_cli.distillation.students import OneStepStudent
from disback_cli.runtime.stage import Stage


class Recording(Stage):
    """Trains a copy of the teacher towards the untrained student's own samples.

    An iteration costs 4 F (F: one forward pass of the teacher): one pass of the student without gradients, and
    forward and backward of the copy. No real data is touched.

    Args:
        student: the untrained student G0; frozen here.
        fake: the copy of the teacher that is trained (the paper's auxiliary network).
        law: noise levels of the denoising loss.
        settings: see :class:`Stage`.
    """

    loss_names: Sequence[str] = ("fake_loss",)
    passes_per_sample = 4

    def __init__(self, *, student: OneStepStudent, fake: Denoiser, law: SigmaLaw, **settings: Any) -> None:
        super().__init__(**settings)
        self.student = student.requires_grad_(False)
        self.fake = fake
        self.law = law

    def trained(self) -> dict[str, nn.Module]:
        """The copy alone."""
        return {"fake": self.fake}

    def losses(self, iteration: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Denoising score matching of the copy on fresh samples of G0."""
        labels = self.one_hot_labels("labels", self.fake.label_dim)
        with torch.no_grad():
            x = self.student(self.normal("z", self.fake.shape), labels)
        sigma = self.law.quantile(self.uniform("sigma_fake"))
        noisy = x + expand_sigma(sigma, x) * self.normal("noise_fake", self.fake.shape)
        loss = denoising_loss(self.fake(noisy, sigma, labels), x, sigma, self.fake.sigma_data)
        return {"fake_loss": loss}, {"sample_mean": x.mean(), "sample_std": x.std()}


class MismatchProbe:
    """Mismatch to the teacher on a fixed set of the untrained student's noisy samples.

    The set and the teacher's answers are made once, so a measurement costs one forward pass of the network and
    differences between measurements are the network's alone.

    Args:
        stage: the recording whose student, law and seed are used.
        teacher: node 0.
        samples: size of the set.
        at_once: most samples a network is asked for at a time; None asks for all.
    """

    def __init__(self, stage: Recording, teacher: Denoiser, samples: int, at_once: int | None = None) -> None:
        device = stage.device
        draw = (0, 0, samples)
        self.samples, self._at_once = samples, at_once or samples
        with torch.no_grad():
            self.labels = stage.random.one_hot_labels("probe labels", *draw, teacher.label_dim, device)
            z = stage.random.normal("probe z", *draw, teacher.shape, device)
            x = self._in_parts(lambda part: stage.student(z[part], self._labels(part)))
            self.sigma = stage.law.quantile(stage.random.uniform("probe sigma", *draw, device))
            noise = stage.random.normal("probe noise", *draw, teacher.shape, device)
            self.noisy = x + expand_sigma(self.sigma, x) * noise
            self.answer = self._ask(teacher)
        self.sigma_data = teacher.sigma_data

    @torch.no_grad()
    def measure(self, network: Denoiser) -> float:
        """sqrt(mean lam(sigma) (D - D_teacher)^2); see :func:`disback_cli.distillation.losses.mismatch`."""
        return float(mismatch(self._ask(network), self.answer, self.sigma, self.sigma_data))

    def _ask(self, network: Denoiser) -> Tensor:
        return self._in_parts(lambda part: network(self.noisy[part], self.sigma[part], self._labels(part)))

    def _labels(self, part: slice) -> Tensor | None:
        return None if self.labels is None else self.labels[part]

    def _in_parts(self, of: Callable[[slice], Tensor]) -> Tensor:
        """The set must not need more memory at a time than the training does."""
        starts = range(0, self.samples, self._at_once)
        return torch.cat([of(slice(start, start + self._at_once)) for start in starts])
