"""What the networks and an iteration cost, in units F: one forward pass of the teacher's network on one sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from disback_cli.denoisers.protocol import Denoiser
from disback_cli.distillation.discriminator import BottleneckTap, in_evaluation, one_sample

if TYPE_CHECKING:
    from disback_cli.distillation.objectives.base import Objective
    from disback_cli.distillation.students import Student


@dataclass(frozen=True)
class NetworkCosts:
    """Costs of the networks of a run on one sample, in F; the defaults are those of copies of the teacher's network.

    A backward pass through a frozen network, towards its input alone, costs as much as its forward pass.

    Attributes:
        student: one evaluation of the student's network.
        encoder: the part of the fake score's network up to the critic's features; 1 is the whole network.
        fake_backward: a training backward pass of the fake score: 2 forward passes, or about 1 with LoRA.
        fake: forward pass of the fake score.
        student_backward: a training backward pass of the student's network.
    """

    student: float = 1.0
    encoder: float = 1.0
    fake_backward: float = 2.0
    fake: float = 1.0
    student_backward: float = 2.0


def measure_costs(
    teacher: Denoiser, student: Student, fake: Denoiser, tap: BottleneckTap | None = None
) -> NetworkCosts:
    """Count the floating-point operations of each network on one sample, without a trace in anything.

    Products of matrices and convolutions are counted; a teacher in closed form has none, and then every network counts
    as one. The training backward pass of a network is taken as twice its forward pass where all of it is trained, and
    counted where a part is frozen (LoRA).

    Args:
        teacher: the teacher, whose forward pass is the unit.
        student: the student.
        fake: the fake score, with ``requires_grad`` set as it will be trained.
        tap: where the critic's features come from, if there is a critic.
    """
    noisy = one_sample(teacher)

    def sample() -> Tensor:
        z, _, labels = one_sample(student)
        return student.training_sample(z, labels, lambda _: torch.zeros_like(z), 0)

    unit = _forward(teacher, lambda: teacher(*noisy))
    if not unit:
        return NetworkCosts()
    made = _forward(student, sample)
    followed = _forward(fake, lambda: fake(*noisy))
    encoded = _forward(fake, lambda: tap.encode(*noisy)) if tap is not None else unit
    return NetworkCosts(
        student=made / unit,
        encoder=encoded / unit,
        fake_backward=_backward(fake, lambda: fake(*noisy), followed) / unit,
        fake=followed / unit,
        student_backward=_backward(student, sample, made) / unit,
    )


def passes_of_iteration(
    objective: Objective,
    costs: NetworkCosts,
    *,
    fake_updates: int = 1,
    fresh: bool = False,
    share_draw: bool = False,
    critic_acts: bool = False,
    regression_acts: bool = False,
    earlier_evaluations: int = 0,
    earlier_evaluations_fresh: Sequence[int] = (),
) -> float:
    """Cost of one sample in one iteration of stage 2, in F.

    With the costs of copies of the teacher's network (s = f = 1, their training backward passes 2) and e the share of
    the encoder:

    ==============================  ==============================================================================
    part                            cost
    ==============================  ==============================================================================
    student's sample                s + 2 s, and s for each simulated evaluation before
    target                          1, and 1 if the gradient flows through it
    fake score, generator's loss    f, and f if the gradient flows through it, else e if a GAN loss does
    first update of the fake score  f + 2 f, or 2 f with a shared draw; with a critic that acts 3 e for real samples
    each further update             f + 2 f (and 3 e), and with fresh samples s for each evaluation of theirs
    regression                      s + 2 s
    ==============================  ==============================================================================

    Heads of critics and distances of regressions are not counted.

    Args:
        objective: decides where gradients flow.
        costs: of the networks.
        fake_updates: updates of the fake score.
        fresh: the further ones are on fresh samples of the student.
        share_draw: the first one shares the fake score's forward pass with the generator's loss.
        critic_acts: whether the critic is part of the iteration.
        regression_acts: whether the regression is.
        earlier_evaluations: of the student before the one that carries the gradient.
        earlier_evaluations_fresh: the same for each further update with fresh samples.
    """
    student = costs.student * (1 + earlier_evaluations) + costs.student_backward
    target = 2.0 if objective.through_denoisers else 1.0
    judged = costs.fake
    if objective.through_denoisers:
        judged += costs.fake
    elif critic_acts and objective.critic is not None and objective.critic.generator_weight > 0:
        judged += costs.encoder
    real = costs.encoder * (1 + costs.fake_backward / costs.fake) if critic_acts else 0.0
    followed = fake_updates * (costs.fake + costs.fake_backward + real) - (costs.fake if share_draw else 0.0)
    drawn = costs.student * sum(1 + earlier for earlier in earlier_evaluations_fresh) if fresh else 0.0
    regression = costs.student + costs.student_backward if regression_acts else 0.0
    return student + target + judged + followed + drawn + regression


def _forward(network: nn.Module, call: Callable[[], Tensor]) -> float:
    with in_evaluation(network), torch.no_grad():
        return _counted(call)


def _backward(network: nn.Module, call: Callable[[], Tensor], forward: float) -> float:
    """Operations of a training backward pass; of parameters that get no gradient (unused inputs) none is frozen."""
    unused = [module.unused_parameters() for module in network.modules() if isinstance(module, Denoiser)]
    prefixes = [name for name, module in network.named_modules() if isinstance(module, Denoiser)]
    skipped = {f"{prefix}.{name}".lstrip(".") for prefix, names in zip(prefixes, unused, strict=True) for name in names}
    trained = [p for p in network.parameters() if p.requires_grad]
    if all(p.requires_grad or name in skipped for name, p in network.named_parameters()):
        return 2 * forward
    with in_evaluation(network), torch.enable_grad():
        total = call().sum()
        return _counted(lambda: torch.autograd.grad(total, trained, allow_unused=True)) if trained else 0.0


def _counted(call: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())
