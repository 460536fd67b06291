"""Measuring a sampler: n samples addressed by their global index, shared out over the processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from disback_cli.denoisers.protocol import Denoiser
from disback_cli.denoisers.sampling import heun, network_evaluations
from disback_cli.denoisers.teachers import Teacher
from disback_cli.errors import UserError
from disback_cli.evaluation.suite import EvaluationSuite
from disback_cli.runtime.processes import rank_and_world
from disback_cli.runtime.progress import tracked
from disback_cli.runtime.randomness import CounterRandom

# Samples ``first .. first+count-1`` of the evaluation set, float ``[count, *shape]``.
Sampler = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class Measured:
    """What one measurement gave.

    Attributes:
        metrics: the suite's numbers.
        samples_per_second: of the sampler alone, this process's share over its time.
    """

    metrics: dict[str, float]
    samples_per_second: float


class EvaluationNoise:
    """Latents and labels of the evaluation set: fixed by the seed, whatever the batch size or number of processes.

    Args:
        seed: seed of the set; the same one for teacher and student makes them comparable sample by sample.
        shape: shape of one sample.
        classes: number of classes, 0 for none; labels are drawn uniformly.
        device: where the draws are made.
        label: class of every sample instead of drawn ones.

    Raises:
        UserError: there is no class ``label``.
    """

    def __init__(
        self, seed: int, shape: tuple[int, ...], classes: int, device: torch.device, label: int | None = None
    ) -> None:
        if label is not None and not 0 <= label < classes:
            known = f"it has classes 0 to {classes - 1}" if classes else "it is unconditional; leave label=null"
            raise UserError(f"label={label}: the model has no such class, {known}")
        self._random = CounterRandom(seed)
        self._shape, self._classes, self._device, self._label = shape, classes, device, label

    def latents(self, first: int, count: int) -> Tensor:
        """Standard normal ``[count, *shape]``."""
        return self._random.normal("evaluation z", 0, first, count, self._shape, self._device)

    def labels(self, first: int, count: int) -> Tensor | None:
        """One-hot ``[count, classes]`` or None."""
        if self._label is not None:
            chosen = torch.full((count,), self._label, device=self._device)
            return torch.nn.functional.one_hot(chosen, self._classes).float()
        return self._random.one_hot_labels("evaluation labels", 0, first, count, self._classes, self._device)

    def churn(self, first: int, count: int) -> Callable[[int], Tensor]:
        """Noise of a stochastic sampler's steps."""
        return lambda step: self._random.normal("evaluation churn", step, first, count, self._shape, self._device)


def one_step_sampler(student: Callable[[Tensor, Tensor | None], Tensor], noise: EvaluationNoise) -> Sampler:
    """One network evaluation a sample."""
    return lambda first, count: student(noise.latents(first, count), noise.labels(first, count))


def heun_sampler(denoiser: Denoiser, settings: dict[str, float], noise: EvaluationNoise) -> Sampler:
    """EDM's sampler with the teacher's settings (steps, s_churn, ...)."""

    def sample(first: int, count: int) -> Tensor:
        latents, labels = noise.latents(first, count), noise.labels(first, count)
        return heun(denoiser, latents, labels, **settings, noise=noise.churn(first, count)).float()  # type: ignore[arg-type]

    return sample


def teacher_evaluations(teacher: Teacher) -> int:
    """Network evaluations a sample of the teacher costs."""
    return network_evaluations(int(teacher.sampler.get("steps", 18)))


@torch.no_grad()
def measure(sampler: Sampler, suite: EvaluationSuite, batch_size: int, what: str = "") -> Measured:
    """The suite's numbers for ``suite.n`` samples; every process must call it and gets the same numbers.

    Args:
        sampler: makes the samples.
        suite: its sums are reset first.
        batch_size: samples at a time on each process.
        what: shown with the progress; empty shows none.
    """
    rank, world = rank_and_world()
    begin, end = suite.n * rank // world, suite.n * (rank + 1) // world
    suite.reset()
    seconds = 0.0
    starts = range(begin, end, batch_size)
    for first in tracked(starts, what, end - begin, batch_size, quiet=not what or rank > 0):
        count = min(batch_size, end - first)
        began = time.perf_counter()
        x = sampler(first, count)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        seconds += time.perf_counter() - began
        suite.update(x, torch.arange(first, first + count))
    return Measured(suite.compute(), (end - begin) / max(seconds, 1e-9))
