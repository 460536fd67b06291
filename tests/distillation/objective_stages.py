"""Stage 2 with every objective, on small networks: built alike in tests and in the processes that tests start."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from disback_cli.data.dataset import Dataset
from disback_cli.data.points import ring
from disback_cli.denoisers.gaussian_mixture import MixtureDenoiser
from disback_cli.denoisers.protocol import Denoiser
from disback_cli.distillation.backtracking import Backtracking, Judge
from disback_cli.distillation.costs import measure_costs
from disback_cli.distillation.discriminator import BottleneckTap, Discriminator
from disback_cli.distillation.objectives.base import Objective
from disback_cli.distillation.objectives.critic import Critic
from disback_cli.distillation.objectives.diff_instruct import DiffInstruct
from disback_cli.distillation.objectives.dmd import DistributionMatching
from disback_cli.distillation.objectives.dmd2 import ImprovedDistributionMatching
from disback_cli.distillation.objectives.f_distill import FDistill
from disback_cli.distillation.objectives.sid import ScoreIdentity
from disback_cli.distillation.objectives.sida import AdversarialScoreIdentity
from disback_cli.distillation.objectives.uni_instruct import UniInstruct
from disback_cli.distillation.objectives.vsd import VariationalScoreDistillation
from disback_cli.distillation.real_data import RealSamples
from disback_cli.distillation.schedules import EndpointSchedule, PathSchedule
from disback_cli.distillation.sigma_laws import LogNormal
from disback_cli.distillation.students import OneStepStudent, Student
from disback_cli.runtime.optimizers import AdamSettings

# by the names of conf/objective, with the options' values there
OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "diff_instruct": lambda **_: DiffInstruct(),
    "vsd": lambda **_: VariationalScoreDistillation(),
    "dmd": lambda **_: DistributionMatching(),
    "dmd2": lambda **critic: ImprovedDistributionMatching(critic=Critic(**critic)),
    "sid": lambda **_: ScoreIdentity(),
    "sida": lambda **critic: AdversarialScoreIdentity(critic=Critic(**{"generator_weight": 0.5} | critic)),
    "f_distill": lambda **critic: FDistill(critic=Critic(**{"generator_weight": 0.0} | critic)),
    "uni_instruct": lambda **critic: UniInstruct(critic=Critic(**{"generator_weight": 0.0} | critic)),
}
WITH_CRITIC = ("dmd2", "sida", "f_distill", "uni_instruct")
SCHEDULES = {"endpoint": EndpointSchedule, "path": lambda: PathSchedule(interval=1)}
LAST = 3


def points() -> MixtureDenoiser:
    """The exact denoiser of a ring with a small correction."""
    return MixtureDenoiser("ring", hidden=16, depth=2)


def node(index: int) -> dict[str, torch.Tensor]:
    """Weights of a node of a path: node 0 is the teacher."""
    network, generator = points(), torch.Generator().manual_seed(index)
    if index:
        with torch.no_grad():
            for parameter in network.correction.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.state_dict()


def backtracking(
    objective: Objective,
    *,
    schedule: str = "endpoint",
    teacher: Denoiser | None = None,
    node_weights: Callable[[float], dict[str, torch.Tensor]] = lambda position: node(int(position)),
    dataset: Dataset | None = None,
    student: Student | None = None,
    fake: Denoiser | None = None,
    **settings: Any,
) -> Backtracking:
    """A stage of a few iterations; the nodes are those of :func:`points` unless others are given."""
    order = SCHEDULES[schedule]()
    teacher = teacher or points()
    if fake is None:
        fake = copy.deepcopy(teacher).trainable_()
        fake.load_state_dict(node_weights(order.first_fake(LAST)))
    student = student or OneStepStudent(copy.deepcopy(teacher).trainable_(), sigma_init=1.0)
    judge = None
    if objective.critic is not None:
        tap = BottleneckTap(fake, objective.critic.features)
        real = RealSamples(dataset or ring(n=256), teacher.label_dim)
        judge = Judge(tap, Discriminator(tap.feature_shape(), seed=0), real)
    defaults: dict[str, Any] = {
        "generator_law": LogNormal(), "fake_law": LogNormal(), "ema_halflife": 40.0, "ema_rampup": 0.0,
        "batch_size": 16, "iterations": 4, "seed": 0, "optimizer": AdamSettings(), "fake_updates": 2,
        "lr": {"student": 3e-3, "fake": 1e-2, "critic": 1e-2},
    }  # fmt: skip
    return Backtracking(
        student=student,
        fake=fake,
        target=copy.deepcopy(teacher),
        node_weights=node_weights,
        last=LAST,
        schedule=order,
        objective=objective,
        judge=judge,
        costs=measure_costs(teacher, student, fake, judge.tap if judge else None),
        **(defaults | settings),
    )
