"""The student of a few evaluations: a denoiser that is asked at falling noise levels, re-noised in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from disback_cli.configuration.levels import require_count, require_falling, typed
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.distillation.students.base import StepNoise, Student


class FewStepStudent(Student):
    """x = D(s_1 z; s_1), then x <- D(x + s_k n_k; s_k) for every further level (Yin et al. 2024, DMD2).

    Trained by backward simulation: the input of an evaluation is what the student itself has made by the evaluations
    before it, so training sees the inputs that sampling will give. No gradient flows through those.

    Args:
        denoiser: the network, a copy of the teacher's.
        sigmas: the noise levels s_1 > s_2 > ..., 2 to 4 of them, inside the network's; a network of discrete time is
            asked at the nearest levels it was trained at.
        spec: the network's description where it is not the teacher's.

    Raises:
        ValueError: too few or too many levels, not strictly decreasing ones, or one that the network does not have.
    """

    kind: ClassVar[str] = "few_step"
    denoiser: Denoiser

    def __init__(self, denoiser: Denoiser, *, sigmas: Sequence[float], spec: Mapping[str, Any] | None = None) -> None:
        super().__init__(denoiser, denoiser.shape, denoiser.label_dim, spec)
        self.sigmas = checked_levels(sigmas, denoiser)
        self.steps = self.network_evaluations = len(self.sigmas)

    def forward(self, z: Tensor, labels: Tensor | None = None, noise: StepNoise | None = None) -> Tensor:
        """Samples ``[B, *shape]`` after the last level; arguments as for :class:`Student`."""
        return self._evaluated(z, labels, noise, 0, self.steps)

    def training_sample(self, z: Tensor, labels: Tensor | None, noise: StepNoise | None, step: int) -> Tensor:
        """What evaluation ``step`` makes of the student's own chain; the chain before it carries no gradient."""
        if not 0 <= step < self.steps:
            raise ValueError(f"step={step}: this student has the steps 0 to {self.steps - 1}")
        with torch.no_grad():
            x = self._evaluated(z, labels, noise, 0, step)
        return self._evaluated(x, labels, noise, step, step + 1)

    def settings(self) -> dict[str, Any]:
        """The kind and the noise levels."""
        return {"kind": self.kind, "sigmas": list(self.sigmas)}

    def _evaluated(self, x: Tensor, labels: Tensor | None, noise: StepNoise | None, first: int, stop: int) -> Tensor:
        """The evaluations ``first .. stop - 1``; ``x`` is the latent where ``first`` is 0."""
        for step in range(first, stop):
            level = self.sigmas[step]
            sigma = torch.full((x.shape[0],), level, device=x.device)
            x = self.denoiser(level * x if step == 0 else x + level * _drawn(noise, step), sigma, labels)
        return x


def checked_levels(sigmas: Sequence[float], denoiser: Denoiser) -> tuple[float, ...]:
    """The levels at which a network can be asked, the nearest trained ones for a network of discrete time.

    Raises:
        ValueError: as for :class:`FewStepStudent`; the message says what to type.
    """
    levels = [float(sigma) for sigma in sigmas]
    require_count(levels)
    low, high = denoiser.sigma_min, denoiser.sigma_max
    outside = [level for level in levels if not low <= level <= high]
    if outside:
        raise ValueError(
            f"{typed(levels)}: {', '.join(f'{level:g}' for level in outside)} is outside the network's noise levels, "
            f"{low:g} to {high:g}; type levels between them"
        )
    nearest = [float(denoiser.nearest_sigma(level)) for level in levels]
    require_falling(levels, nearest)
    return tuple(nearest)


def _drawn(noise: StepNoise | None, step: int) -> Tensor:
    if noise is None:
        raise ValueError("a few-step student needs the noise of its later evaluations: pass noise")
    return noise(step)
