"""Stage 2: distribution backtracking (DisBack, eq. 8, fake score eq. 5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from disback_cli.denoisers.protocol import Denoiser, expand_sigma
from disback_cli.distillation.losses import denoising_loss, mismatch
from disback_cli.distillation.objectives.base import Objective
from disback_cli.distillation.schedules import Progress, Schedule
from disback_cli.distillation.sigma_laws import SigmaLaw
from disback_cli.distillation.students import OneStepStudent
from disback_cli.runtime.ema import Ema
from disback_cli.runtime.processes import mean_over_processes
from disback_cli.runtime.stage import Stage

log = logging.getLogger(__name__)


class Backtracking(Stage):
    """The student follows one target after another until the last, the teacher.

    Inside an iteration the generator's gradient is taken with the fake score as it was, and the fake score
    follows on the same samples; nothing the fake score computes depends on the generator's update, so stepping
    both after one joint backward is the published order, generator first. The cost is 8 F a sample (student
    1 + 2, target 1, fake 1 + 3), or 7 F with ``share_draw``.

    Args:
        student: the generator that is trained.
        fake: the fake score, already carrying the weights it starts from; never reset at a switch.
        target: a denoiser of the teacher's kind; its weights are replaced at every switch.
        node_weights: weights of a node of the path by its number, 0 is the teacher.
        last: number of the last node N (0 if there is no path).
        schedule: order of the targets.
        objective: the generator's loss.
        generator_law: noise levels of the generator's loss.
        fake_law: noise levels of the fake score's loss.
        ema_halflife: half-life of the student's average, in images.
        ema_rampup: see :class:`disback_cli.runtime.ema.Ema`.
        share_draw: both losses use one draw of noise level and noise, and the fake score runs once instead of
            twice. The two laws must be the same.
        settings: see :class:`Stage`; ``lr`` has the keys ``student`` and ``fake``.
    """

    loss_names: Sequence[str] = ("generator_loss", "fake_loss")

    def __init__(
        self,
        *,
        student: OneStepStudent,
        fake: Denoiser,
        target: Denoiser,
        node_weights: Callable[[int], dict[str, Tensor]],
        last: int,
        schedule: Schedule,
        objective: Objective,
        generator_law: SigmaLaw,
        fake_law: SigmaLaw,
        ema_halflife: float,
        ema_rampup: float,
        share_draw: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.student = student
        self.fake = fake
        self.ema = Ema(student, halflife=ema_halflife, rampup=ema_rampup)
        # A frozen target is not ours to save, to optimise or to synchronise: hidden from the module's registry.
        self._frozen = (target.requires_grad_(False).eval(),)
        self._node_weights, self.last = node_weights, last
        self.schedule, self.objective = schedule, objective
        self.generator_law, self.fake_law, self.share_draw = generator_law, fake_law, share_draw
        self.target_node = -1
        self.switches: list[tuple[int, int]] = []
        self._mismatch_squared: Tensor | None = None
        self._moments: tuple[int, Tensor, Tensor] | None = None
        self.set_target(schedule.first_target(last))

    @property
    def passes_per_sample(self) -> int:
        """Cost of one sample of one iteration, in forward passes of the teacher."""
        return 7 if self.share_draw else 8

    @property
    def target(self) -> Denoiser:
        """The present target, frozen."""
        return self._frozen[0]

    def set_target(self, node: int) -> None:
        """Make ``node`` the target: copy its weights in place, strictly."""
        self.target.load_state_dict(self._node_weights(node), strict=True)
        self.target_node = node
        self.switches.append((self.iteration, node))

    def on_fit_start(self) -> None:
        """The target is hidden from Lightning and has to be moved by hand."""
        self.target.to(self.device)

    def trained(self) -> dict[str, nn.Module]:
        """Student and fake score, the generator first."""
        return {"student": self.student, "fake": self.fake}

    def losses(self, iteration: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Generator loss and fake-score loss on the same samples."""
        shape, labels = self.fake.shape, self.one_hot_labels("labels", self.fake.label_dim)
        x = self.student(self.normal("z", shape), labels)
        clean = x.detach()
        sigma = self.generator_law.quantile(self.uniform("sigma_generator"))
        spread = expand_sigma(sigma, x)
        noisy = clean + spread * self.normal("noise_generator", shape)
        with torch.no_grad():
            aim = self.target(noisy, sigma, labels)
        with torch.set_grad_enabled(self.share_draw):
            followed = self.fake(noisy, sigma, labels)
        generator_loss = self.objective.loss(x, noisy, spread, followed.detach(), aim)
        apart = mismatch(followed, aim, sigma, self.fake.sigma_data)
        self._note_mismatch(apart)
        if not self.share_draw:
            sigma = self.fake_law.quantile(self.uniform("sigma_fake"))
            noisy = clean + expand_sigma(sigma, x) * self.normal("noise_fake", shape)
            followed = self.fake(noisy, sigma, labels)
        fake_loss = denoising_loss(followed, clean, sigma, self.fake.sigma_data)
        scalars = {
            "mismatch": apart,
            "sample_mean": clean.mean(),
            "sample_std": clean.std(),
            **self._diversity(clean),
        }
        return {"generator_loss": generator_loss, "fake_loss": fake_loss}, scalars

    def after_step(self) -> None:
        """Average the student, and ask the schedule for the next target."""
        self.ema.update(self.student, self.batch_size, self.images_seen)
        node = self.schedule.next_target(Progress(self.iteration, self.target_node, self._agreed_mismatch()))
        if node != self.target_node:
            log.info("iteration %d: the target moves from node %d to node %d", self.iteration, self.target_node, node)
            self.set_target(node)

    def _diversity(self, clean: Tensor) -> dict[str, Tensor]:
        """Spread over the batch, component by component: told with the last pass, over the samples of all of them."""
        if self.passes == 1:
            return {"sample_diversity": clean.std(dim=0).mean()} if len(clean) > 1 else {}
        samples = clean.double()
        count, total, squares = len(samples), samples.sum(0), samples.square().sum(0)
        if self._pass > 0 and self._moments is not None:
            count, total, squares = count + self._moments[0], total + self._moments[1], squares + self._moments[2]
        self._moments = (count, total, squares)
        if self._pass < self.passes - 1:
            return {}
        variance = (squares - total.square() / count) / (count - 1)
        return {"sample_diversity": variance.clamp_min(0).sqrt().mean()}

    def _note_mismatch(self, apart: Tensor) -> None:
        """Add a pass's mismatch to the iteration's; squares add up, as over one large batch."""
        share = apart.square() / self.passes
        self._mismatch_squared = (
            share if self._pass == 0 or self._mismatch_squared is None else (self._mismatch_squared + share)
        )

    def _agreed_mismatch(self) -> float | None:
        """This iteration's mismatch, the same number on every process; read only where a schedule wants it."""
        if not self.schedule.uses_mismatch or self._mismatch_squared is None:
            return None
        return float(mean_over_processes(self._mismatch_squared).sqrt())

    def facts(self) -> dict[str, float]:
        """Which node is the target."""
        return {"target_node": self.target_node}

    def stage_state(self) -> dict[str, Any]:
        """The target's number (its weights are the path's), the schedule's measurements, the switches."""
        return {
            "target_node": self.target_node,
            "schedule": self.schedule.state(),
            "switches": [list(switch) for switch in self.switches],
        }

    def restore_stage(self, state: dict[str, Any]) -> None:
        """Take up target, schedule and switches."""
        self.schedule.restore(state["schedule"])
        if state["target_node"] != self.target_node:
            self.set_target(state["target_node"])
        self.switches = [(iteration, node) for iteration, node in state["switches"]]
