"""The fixed draw on which denoisers are compared: whatever is measured on it differs by the networks alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from disback_cli.denoisers.protocol import Denoiser, expand_sigma
from disback_cli.denoisers.sampling import heun
from disback_cli.distillation.losses import denoising_loss, mismatch
from disback_cli.distillation.sigma_laws import SigmaLaw
from disback_cli.distillation.students import Student, samples_of_all_steps
from disback_cli.runtime.randomness import CounterRandom


class ProbeSet:
    """Latents, labels, noise levels and noise of some samples, a function of the seed; training draws none of them.

    Args:
        random: the run's draws.
        law: of the noise levels.
        teacher: gives the shape of a sample, the classes, and the scale of the data.
        samples: size of the set.
        device: where everything lies.
        at_once: most samples a network is asked for at a time; None asks for all.
    """

    def __init__(
        self,
        random: CounterRandom,
        law: SigmaLaw,
        teacher: Denoiser,
        samples: int,
        device: torch.device,
        at_once: int | None = None,
    ) -> None:
        self.samples, self._at_once = samples, at_once or samples
        self._random, self._shape, self._device = random, teacher.shape, device
        self.sigma_data = teacher.sigma_data
        self.labels = random.one_hot_labels("probe labels", 0, 0, samples, teacher.label_dim, device)
        self.sigma = law.quantile(random.uniform("probe sigma", 0, 0, samples, device))

    @torch.no_grad()
    def of_student(self, student: Student) -> Tensor:
        """The student's samples ``[samples, *shape]``; one of several evaluations gives samples of each in turn."""
        z = self._normal("probe z")
        return samples_of_all_steps(
            student, z, self.labels, lambda step: self._normal(f"probe student noise {step}"), self._at_once
        )

    @torch.no_grad()
    def of_teacher(self, teacher: Denoiser, settings: dict[str, float]) -> Tensor:
        """The many-step sampler's samples from the same latents ``[samples, *shape]``.

        Args:
            teacher: the denoiser.
            settings: of :func:`disback_cli.denoisers.sampling.heun`.
        """
        z = self._normal("probe z")

        def drawn(part: slice) -> Tensor:
            count = len(z[part])
            return heun(
                teacher,
                z[part],
                self._labels(part),
                **settings,  # type: ignore[arg-type]
                noise=lambda step: self._normal("probe churn", step, part.start, count),
            ).float()

        return self._in_parts(drawn)

    def noisy(self, x: Tensor) -> Tensor:
        """The samples with the set's noise: x + sigma n."""
        return x + expand_sigma(self.sigma, x) * self._normal("probe noise")

    @torch.no_grad()
    def ask(self, network: Denoiser, noisy: Tensor) -> Tensor:
        """D(noisy; sigma)."""
        return self._in_parts(lambda part: network(noisy[part], self.sigma[part], self._labels(part)))

    def apart(self, first: Tensor, second: Tensor) -> float:
        """The mismatch of two answers; see :func:`disback_cli.distillation.losses.mismatch`."""
        return float(mismatch(first, second, self.sigma, self.sigma_data))

    def loss(self, answer: Tensor, x: Tensor) -> float:
        """The denoising loss of an answer on samples, with EDM's weight, as the mismatch has it."""
        return float(denoising_loss(answer, x, self.sigma, self.sigma_data))

    def _normal(self, purpose: str, iteration: int = 0, first: int = 0, count: int | None = None) -> Tensor:
        return self._random.normal(purpose, iteration, first, count or self.samples, self._shape, self._device)

    def _labels(self, part: slice) -> Tensor | None:
        return None if self.labels is None else self.labels[part]

    def _in_parts(self, of: Callable[[slice], Tensor]) -> Tensor:
        """The set must not need more memory at a time than the training does."""
        starts = range(0, self.samples, self._at_once)
        return torch.cat([of(slice(start, start + self._at_once)) for start in starts])
