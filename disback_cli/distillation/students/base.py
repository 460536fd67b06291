"""What every student is: a generator of samples from unit normal noise, with one network inside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from disback_cli.denoisers.folder import weights_hash
from disback_cli.runtime.randomness import CounterRandom

# Standard normal [B, *shape] of a student's evaluation k >= 1; the first evaluation's noise is the latent itself.
StepNoise = Callable[[int], Tensor]


class Student(nn.Module, ABC):
    """A generator G(z, c) that is distilled.

    Attributes:
        kind: what its folder calls it.
        denoiser: the network inside, whatever it is; the only place of weights.
        shape: shape of one sample, (C, H, W) or (d,); that of one latent, too.
        label_dim: width of the one-hot labels; 0 means unconditional.
        spec: nested dict with ``_target_`` from which the network is built; None: it is the teacher's network.
        steps: ways in which a training sample can be drawn, one for each evaluation that may carry the gradient.
        network_evaluations: evaluations of the network that a sample costs.
    """

    kind: ClassVar[str]
    steps: int = 1
    network_evaluations: int = 1

    def __init__(
        self, network: nn.Module, shape: tuple[int, ...], label_dim: int, spec: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__()
        self.denoiser = network
        self.shape, self.label_dim = tuple(shape), label_dim
        self.spec = None if spec is None else dict(spec)

    @abstractmethod
    def forward(self, z: Tensor, labels: Tensor | None = None, noise: StepNoise | None = None) -> Tensor:
        """Samples in the model's range.

        Args:
            z: standard normal, [B, *shape].
            labels: one-hot float labels, [B, label_dim]; None for an unconditional student.
            noise: the noise of the evaluations after the first; students of one evaluation do not ask for it.

        Returns:
            [B, *shape].
        """

    def training_sample(self, z: Tensor, labels: Tensor | None, noise: StepNoise | None, step: int) -> Tensor:
        """Samples as an iteration trains on them: the gradient flows through evaluation ``step`` alone, the last made.

        Args:
            z: as for :meth:`forward`.
            labels: as for :meth:`forward`.
            noise: as for :meth:`forward`.
            step: 0 .. steps - 1; the student is asked ``step + 1`` times, see :func:`evaluations_of`.

        Returns:
            [B, *shape].

        Raises:
            ValueError: there is no such step.
        """
        if step != 0:
            raise ValueError(f"step={step}: a student of one evaluation has step 0 only")
        return self(z, labels, noise)

    def settings(self) -> dict[str, Any]:
        """What an exported folder must say to rebuild this student around its network; plain JSON values."""
        return {"kind": self.kind}

    def export_weights(self) -> dict[str, Tensor]:
        """The network's weights under the names that its description gives them."""
        return self.denoiser.state_dict()


def fingerprint(student: Student) -> str:
    """Identity of a student's weights as they are now: see :func:`disback_cli.denoisers.folder.weights_hash`."""
    return weights_hash(student.export_weights())


def step_of(student: Student, random: CounterRandom, update: int) -> int:
    """The step that an update trains: uniform over ``student.steps``, the same on every process.

    Args:
        student: the student.
        random: the run's draws.
        update: its number, counted over all iterations.
    """
    if student.steps == 1:
        return 0
    drawn = random.uniform("student step", update, 0, 1, torch.device("cpu"))
    return int(drawn * student.steps)


def evaluations_of(step: int) -> int:
    """Evaluations of the student's network behind a training sample of this step: the last has the gradient."""
    return step + 1


@torch.no_grad()
def samples_of_all_steps(
    student: Student, z: Tensor, labels: Tensor | None, noise: StepNoise, at_once: int | None = None
) -> Tensor:
    """Samples as training sees them over many iterations: sample i is one of step ``i mod steps``.

    Args:
        student: the student.
        z: standard normal, [B, *shape].
        labels: one-hot float labels, [B, label_dim], or None.
        noise: the noise of the evaluations after the first, for all of ``z``.
        at_once: most samples the student is asked for at a time; None asks for all.

    Returns:
        [B, *shape].
    """
    x = torch.empty_like(z)
    for step in range(student.steps):
        own = torch.arange(step, len(z), student.steps, device=z.device)
        for part in own.split(at_once or max(len(z), 1)):
            given = None if labels is None else labels[part]
            x[part] = student.training_sample(z[part], given, partial(_chosen, noise, part), step)
    return x


def evaluations_of_all_steps(student: Student, samples: int) -> int:
    """Evaluations of the student's network behind :func:`samples_of_all_steps`, in samples."""
    return sum(evaluations_of(index % student.steps) for index in range(samples))


def _chosen(noise: StepNoise, part: Tensor, step: int) -> Tensor:
    return noise(step)[part]
