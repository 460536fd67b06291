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
from disback_cli.distillation.students import Student
from disback_cli.errors import UserError
from disback_cli.evaluation.comparable import is_spread, smaller_is_better
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
        samples_per_second: of the sampler alone, this process's share over its time; the first batch, which pays for
            warming up, counts only where there is no other.
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

    def renoise(self, first: int, count: int) -> Callable[[int], Tensor]:
        """Noise of a student's evaluations after the first."""
        return lambda step: self._random.normal("evaluation renoise", step, first, count, self._shape, self._device)


def student_sampler(student: Student, noise: EvaluationNoise) -> Sampler:
    """A student's own way to samples, in as many network evaluations as it takes."""

    def sample(first: int, count: int) -> Tensor:
        samples: Tensor = student(noise.latents(first, count), noise.labels(first, count), noise.renoise(first, count))
        return samples

    return sample


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
def collect(sampler: Sampler, count: int, at_once: int = 16) -> Tensor:
    """The first ``count`` samples for a picture, few at a time: a picture must not need more memory than training."""
    return torch.cat([sampler(first, min(at_once, count - first)) for first in range(0, count, at_once)])


@torch.no_grad()
def measure(sampler: Sampler, suite: EvaluationSuite, batch_size: int, what: str = "", *, first: int = 0) -> Measured:
    """The suite's numbers for ``suite.n`` samples; every process must call it and gets the same numbers.

    Args:
        sampler: makes the samples.
        suite: its sums are reset first.
        batch_size: samples at a time on each process.
        what: shown with the progress; empty shows none.
        first: the samples ``first .. first + n - 1`` of the sampler are measured.
    """
    rank, world = rank_and_world()
    suite.reset()
    made: list[tuple[int, float]] = []
    # The batches are the same for any number of processes: a network's last digits depend on its batch.
    starts = range(rank * batch_size, suite.n, batch_size * world)
    for start in tracked(starts, what, suite.n, batch_size * world, quiet=not what or rank > 0):
        count = min(batch_size, suite.n - start)
        began = time.perf_counter()
        x = sampler(first + start, count)
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        made.append((count, time.perf_counter() - began))
        suite.update(x, torch.arange(start, start + count))
    samples, seconds = (sum(column) for column in zip(*(made[1:] or made), strict=True)) if made else (0, 0.0)
    return Measured(suite.compute(what), samples / max(seconds, 1e-9))


def measure_ranges(
    sampler: Sampler, suite: EvaluationSuite, batch_size: int, ranges: int, what: str = ""
) -> list[Measured]:
    """One measurement each of the samples 0..n-1, n..2n-1 and so on, ``ranges`` of them."""
    numbered = (f"{what} {index + 1} of {ranges}" if ranges > 1 else what for index in range(ranges))
    return [measure(sampler, suite, batch_size, shown, first=index * suite.n) for index, shown in enumerate(numbered)]


def over_ranges(parts: list[Measured]) -> dict[str, float]:
    """The numbers of several ranges in one table: the mean, and the best as the literature quotes it.

    One range keeps its names. Of more, ``fid_50k`` becomes ``fid_50k_min`` and ``fid_50k_mean``; where larger is
    better (``is_50k``, precision, recall) the best is ``is_50k_max``; a spread within a range has a mean only.
    """
    if len(parts) == 1:
        return dict(parts[0].metrics)
    numbers: dict[str, float] = {}
    for name in parts[0].metrics:
        values = [part.metrics[name] for part in parts]
        if not is_spread(name):
            best, word = (min(values), "min") if smaller_is_better(name) else (max(values), "max")
            numbers[f"{name}_{word}"] = best
        numbers[f"{name}_mean"] = sum(values) / len(values)
    return numbers
