"""Stage 2: distribution backtracking (DisBack, eq. 8, fake score eq. 5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from disback_cli.denoisers.protocol import Denoiser, expand_sigma
from disback_cli.distillation.costs import NetworkCosts, passes_of_iteration
from disback_cli.distillation.discriminator import BottleneckTap, Discriminator, without_parameters
from disback_cli.distillation.fake_scores import start_from
from disback_cli.distillation.interpolation import interpolated
from disback_cli.distillation.losses import denoising_loss, mismatch
from disback_cli.distillation.objectives.base import Objective
from disback_cli.distillation.pairs import Pairs
from disback_cli.distillation.path import DegradationPath
from disback_cli.distillation.real_data import RealSamples
from disback_cli.distillation.rerecording import Rerecorder
from disback_cli.distillation.schedules import Progress, Schedule
from disback_cli.distillation.sigma_laws import SigmaLaw
from disback_cli.distillation.students import Student, step_of
from disback_cli.distillation.weightings import EdmWeighting, FlatWeighting, Weighting
from disback_cli.errors import UserError
from disback_cli.runtime.ema import Ema
from disback_cli.runtime.processes import mean_over_processes
from disback_cli.runtime.stage import Stage

log = logging.getLogger(__name__)

TEACHER = 0


@dataclass(frozen=True)
class Judge:
    """What looks at real data: the head on the fake score's bottleneck, and the data.

    Attributes:
        tap: gets the features out of the fake score's network.
        head: from features to logits; trained beside the fake score.
        real: the data set.
    """

    tap: BottleneckTap
    head: Discriminator
    real: RealSamples


class Backtracking(Stage):
    """The student follows one target after another until the last, the teacher.

    An iteration is one generator update and ``fake_updates`` updates of the fake score. The generator's gradient is
    taken with the fake score as it was, and the first fake update is on the same samples; nothing it computes depends
    on the generator's update, so stepping both after one joint backward is the published order, generator first.
    Terms that look at real data, or at the teacher's own samples, contradict an intermediate target: unless their
    option ``when`` says otherwise they act only while the target is the teacher.

    Args:
        student: the generator that is trained.
        fake: the fake score, already carrying the weights it starts from; never reset at a switch.
        target: a denoiser of the teacher's kind; its weights are replaced at every switch.
        node_weights: full weights of a node of the path by its number, 0 is the teacher.
        last: number of the last node N (0 if there is no path).
        schedule: order of the targets.
        objective: the generator's loss.
        generator_law: noise levels of the generator's loss.
        fake_law: noise levels of the fake score's loss.
        generator_weighting: factor of the generator's loss at each noise level; None is 1.
        fake_weighting: factor of the fake score's loss at each noise level; None is EDM's.
        ema_halflife: half-life of the student's average, in images.
        ema_rampup: see :class:`disback_cli.runtime.ema.Ema`.
        share_draw: both losses use one draw of noise level and noise, and the fake score runs once instead of
            twice. The two laws must be the same.
        fake_updates: fake-score updates an iteration.
        fake_samples: what the further ones are on: the iteration's samples with fresh noise, or fresh samples.
        judge: for an objective with a critic.
        pairs: the teacher's latents and samples, for an objective with a regression term.
        costs: what the networks cost, in forward passes of the teacher.
        rerecorder: records new paths on the way, for a schedule that wants them.
        made_of: hashes of what the run is built from, by what it is in words; a run cannot go on with other things.
        settings: see :class:`Stage`; ``lr`` has the keys ``student``, ``fake``, and ``critic`` with a judge.
    """

    def __init__(
        self,
        *,
        student: Student,
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
        generator_weighting: Weighting | None = None,
        fake_weighting: Weighting | None = None,
        share_draw: bool = False,
        fake_updates: int = 1,
        fake_samples: Literal["renoised", "fresh"] = "renoised",
        judge: Judge | None = None,
        pairs: Pairs | None = None,
        costs: NetworkCosts | None = None,
        rerecorder: Rerecorder | None = None,
        made_of: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.student = student
        self.fake = fake
        self.ema = Ema(student, halflife=ema_halflife, rampup=ema_rampup)
        # A frozen target is not ours to save, to optimise or to synchronise: hidden from the module's registry.
        self._frozen = (target.requires_grad_(False).eval(),)
        self._node_weights, self.last = node_weights, last
        self.schedule, self.objective, self.made_of = schedule, objective, dict(made_of or {})
        self.generator_law, self.fake_law, self.share_draw = generator_law, fake_law, share_draw
        self.generator_weighting = generator_weighting or FlatWeighting()
        self.fake_weighting = fake_weighting or EdmWeighting()
        self.updates, self.fake_samples = fake_updates, fake_samples
        if judge is not None:
            self.critic = judge.head
        self._judge, self.pairs = judge, pairs
        self.costs, self.rerecorder = costs or NetworkCosts(), rerecorder
        self.target_node: float = -1
        self.switches: list[tuple[int, float]] = []
        # the iteration's samples, a pass each, for the fake score's further updates
        self._samples: list[tuple[Tensor, Tensor | None]] = []
        self._mismatch_squared: Tensor | None = None
        self._moments: tuple[int, Tensor, Tensor] | None = None
        self.set_target(schedule.first_target(last))

    @property
    def passes_per_sample(self) -> float:
        """Cost of one sample of the present iteration, in forward passes of the teacher."""
        return passes_of_iteration(
            self.objective,
            self.costs,
            fake_updates=self.updates,
            fresh=self.fake_samples == "fresh",
            share_draw=self.share_draw,
            critic_acts=self.critic_acts,
            regression_acts=self.regression_acts,
            earlier_evaluations=self._step_of_student(0),
            earlier_evaluations_fresh=[self._step_of_student(update) for update in range(1, self.updates)],
        )

    @property
    def target(self) -> Denoiser:
        """The present target, frozen."""
        return self._frozen[0]

    def set_target(self, node: float) -> None:
        """Make the position ``node`` of the path the target: copy its weights in place, strictly."""
        self.target.load_state_dict(interpolated(self._node_weights, node), strict=True)
        self.target_node = node
        if self.switches and self.switches[-1][0] == self.iteration:
            self.switches.pop()  # no iteration has had that target
        self.switches.append((self.iteration, node))

    @property
    def critic_acts(self) -> bool:
        """Whether the terms that look at real data are part of the present iteration."""
        critic = self.objective.critic
        if critic is None or self._judge is None or self.iteration < critic.warmup:
            return False
        return critic.when == "always" or self.target_node == TEACHER

    @property
    def regression_acts(self) -> bool:
        """Whether the term on the teacher's own samples is part of the present iteration."""
        regression = self.objective.regression
        if regression is None or self.pairs is None:
            return False
        return regression.when == "always" or self.target_node == TEACHER

    def on_fit_start(self) -> None:
        """Move the target by hand, which is hidden from Lightning; record a path that is wanted before iteration 0.

        The fake score starts from that path's last node. Callbacks measure what they find when training starts, later.
        """
        self.target.to(self.device)
        if self.iteration == 0 and self.rerecorder is not None and self.rerecorder.schedule.records_at(0):
            path = self._record_path(self.rerecorder)
            start_from(self.fake, path, path.last, self._node_weights)
            self._seconds_before += self.rerecorder.done[-1].seconds

    def trained(self) -> dict[str, nn.Module]:
        """Student and fake score, the generator first, and the head of the critic if there is one."""
        critic = {"critic": self._judge.head} if self._judge is not None else {}
        return {"student": self.student, "fake": self.fake, **critic}

    def stepping(self) -> tuple[str, ...]:
        """The generator steps in the first update of an iteration, the critic's head while it acts."""
        generator = () if self._update else ("student",)
        return (*generator, "fake", *(("critic",) if self.critic_acts else ()))

    def losses(self, iteration: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Generator loss and fake-score loss on the same samples; in further updates the latter alone."""
        if self._update:
            return self._fake_losses(*self._samples_again()), {}
        labels = self.one_hot_labels("labels", self.fake.label_dim)
        x = self._draw(labels)
        clean = x.detach()
        self._samples = [*(self._samples if self._pass else []), (clean, labels)]
        generator_losses, apart, drawn = self._generator_losses(x, labels)
        self._note_mismatch(apart)
        scalars = {
            "mismatch": apart,
            "sample_mean": clean.mean(),
            "sample_std": clean.std(),
            **self._diversity(clean),
        }
        return {**generator_losses, **self._fake_losses(clean, labels, drawn if self.share_draw else None)}, scalars

    # The generator's update -----------------------------------------------------------------------------------

    def _draw(self, labels: Tensor | None) -> Tensor:
        """The update's samples of the student, with their graph."""
        shape = self.fake.shape
        return self.student.training_sample(
            self.normal("z", shape),
            labels,
            lambda step: self.normal(f"student noise {step}", shape),
            self._step_of_student(self._update),
        )

    def _step_of_student(self, update: int) -> int:
        """Which of the student's evaluations an update is on, the same on all processes."""
        return step_of(self.student, self.random, self.iteration * self.updates + update)

    def _generator_losses(
        self, x: Tensor, labels: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor, tuple[Tensor, Tensor]]:
        """The generator's losses, the mismatch, and the draw behind them: D_fake and its noise levels."""
        sigma = self.generator_law.quantile(self.uniform("sigma_generator"))
        spread = expand_sigma(sigma, x)
        noise = spread * self.normal("noise_generator", self.fake.shape)
        through, acts, critic = self.objective.through_denoisers, self.critic_acts, self.objective.critic
        noisy = (x if through else x.detach()) + noise
        with torch.set_grad_enabled(through):
            aim = self.target(noisy, sigma, labels)
        logits = None
        if acts:
            assert self._judge is not None and critic is not None
            # the head sees the samples themselves only if its verdict is to move them
            seen = noisy if through or not critic.generator_weight else x + noise
            with torch.set_grad_enabled(through or critic.generator_weight > 0):
                followed, features = self._judge.tap.run(seen, sigma, labels, frozen=True)
                logits = without_parameters(self._judge.head, features)
        elif through:
            followed = without_parameters(self.fake, noisy, sigma, labels)
        else:
            with torch.set_grad_enabled(self.share_draw):
                followed = self.fake(noisy, sigma, labels)
        judged = followed if through else followed.detach()
        each = self.objective.loss(x, noisy, spread, judged, aim, None if logits is None else logits.detach())
        losses = {"generator_loss": (self.generator_weighting(sigma, self.fake.sigma_data) * each).mean()}
        if logits is not None and critic is not None and critic.generator_weight:
            losses["adversarial_loss"] = critic.generator_loss(logits).mean()
        if self.regression_acts:
            losses["regression_loss"] = self._regression_loss()
        return losses, mismatch(followed, aim, sigma, self.fake.sigma_data), (followed, sigma)

    def _regression_loss(self) -> Tensor:
        """How far the student's samples are from the teacher's, on the teacher's latents."""
        assert self.pairs is not None and self.objective.regression is not None
        first, count = self.share
        z, labels, wanted = self.pairs.batch(
            self.random.seed, self.iteration * self.batch_size + first, count, self.device
        )
        shape = self.fake.shape
        made = self.student.training_sample(z, labels, lambda step: self.normal(f"pair noise {step}", shape), 0)
        return self.objective.regression.loss(made, wanted).mean()

    # The fake score's updates ---------------------------------------------------------------------------------

    def _samples_again(self) -> tuple[Tensor, Tensor | None]:
        """What a further update of the fake score is on."""
        if self.fake_samples == "renoised":
            return self._samples[self._pass]
        labels = self.one_hot_labels("labels", self.fake.label_dim)
        with torch.no_grad():
            return self._draw(labels), labels

    def _fake_losses(
        self, clean: Tensor, labels: Tensor | None, shared: tuple[Tensor, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Denoising score matching on the student's samples, and what the critic's head learns from them.

        Args:
            clean: the student's samples, detached.
            labels: of the samples.
            shared: D_fake on their noisy form, and its noise levels, where one draw serves both losses.
        """
        features = None
        if shared is not None:
            followed, sigma = shared
        else:
            sigma = self.fake_law.quantile(self.uniform("sigma_fake"))
            noisy = clean + expand_sigma(sigma, clean) * self.normal("noise_fake", self.fake.shape)
            if self.critic_acts:
                assert self._judge is not None
                followed, features = self._judge.tap.run(noisy, sigma, labels, frozen=False)
            else:
                followed = self.fake(noisy, sigma, labels)
        loss = denoising_loss(followed, clean, sigma, self.fake.sigma_data, weighting=self.fake_weighting)
        if self._judge is None:
            return {"fake_loss": loss}
        if features is None:
            # data-parallel training waits for a gradient of every parameter, so the idle head gets one of zero
            idle = torch.stack([p.sum() for p in self._judge.head.parameters()]).sum()
            return {"fake_loss": loss + 0.0 * idle}
        return {"fake_loss": loss, "critic_loss": self._critic_loss(features, sigma)}

    def _critic_loss(self, features: Tensor, sigma: Tensor) -> Tensor:
        """The head's loss on the student's features and on those of real data at the same noise levels."""
        assert self._judge is not None and self.objective.critic is not None
        first, count = self.share
        position = (self.iteration * self.updates + self._update) * self.batch_size + first
        real, labels = self._judge.real.batch(self.random.seed, position, count, self.device)
        noisy = real + expand_sigma(sigma, real) * self.normal("noise_real", self.fake.shape)
        of_real = self._judge.tap.encode(noisy, sigma, labels)
        return self.objective.critic.loss(self._judge.head(features), self._judge.head(of_real))

    # After the update -----------------------------------------------------------------------------------------

    def after_step(self) -> None:
        """Average the student, and ask the schedule for the next target."""
        self._samples = []
        self.ema.update(self.student, self.batch_size, self.images_seen)
        if self.rerecorder is not None and self.rerecorder.schedule.records_at(self.iteration):
            self._record_path(self.rerecorder)
            return
        node = self.schedule.next_target(Progress(self.iteration, self.target_node, self._agreed_mismatch()))
        if node != self.target_node:
            log.info("iteration %d: the target moves from node %g to node %g", self.iteration, self.target_node, node)
            self.set_target(node)

    def _record_path(self, rerecorder: Rerecorder) -> DegradationPath:
        """Record a new path towards the student as it is, and begin to walk it."""
        path = rerecorder.record(self.iteration, self.student, self.device)
        self.network_passes += rerecorder.done[-1].network_passes
        self._node_weights, self.last = rerecorder.weights_of(path), path.last
        self.set_target(rerecorder.schedule.on_new_path(self.iteration, path.last))
        return path

    def _diversity(self, clean: Tensor) -> dict[str, Tensor]:
        """Spread over this process's share of the batch, by component; of several passes the last one tells it."""
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
        """The target's position (its weights are the path's), the schedule's measurements, the switches."""
        return {
            "made_of": dict(self.made_of),
            "target_node": self.target_node,
            "schedule": self.schedule.state(),
            "switches": [list(switch) for switch in self.switches],
            "rerecordings": self.rerecorder.state() if self.rerecorder is not None else [],
        }

    def restore_stage(self, state: dict[str, Any]) -> None:
        """Take up target, schedule, switches, and the path where it was recorded on the way.

        Raises:
            UserError: what the run is built from has changed since.
        """
        changed = [name for name, digest in self.made_of.items() if state["made_of"].get(name) != digest]
        if changed:
            raise UserError(
                f"{' and '.join(changed)} changed since this run was started: its content has another hash now. "
                "Restore it, or start over with resume=false."
            )
        self.schedule.restore(state["schedule"])
        path = self.rerecorder.restore(state["rerecordings"]) if self.rerecorder is not None else None
        if self.rerecorder is not None and path is not None:
            self._node_weights, self.last = self.rerecorder.weights_of(path), path.last
        if path is not None or state["target_node"] != self.target_node:
            self.set_target(state["target_node"])
        self.switches = [(iteration, node) for iteration, node in state["switches"]]
