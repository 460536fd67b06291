"""Recording inside stage 2: a new path, from the teacher towards the student as it is now."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from disback_cli.denoisers.protocol import Denoiser
from disback_cli.distillation.adapters import settings_of
from disback_cli.distillation.candidates import Candidates
from disback_cli.distillation.costs import NetworkCosts
from disback_cli.distillation.fake_scores import node_weights
from disback_cli.distillation.path import DegradationPath
from disback_cli.distillation.recording import MismatchProbe, Subject, recording_loss
from disback_cli.distillation.schedules import RerecordSchedule
from disback_cli.distillation.sigma_laws import SigmaLaw
from disback_cli.distillation.students import Student, evaluations_of, evaluations_of_all_steps, step_of
from disback_cli.distillation.weightings import Weighting
from disback_cli.errors import UserError
from disback_cli.runtime.health import NonFiniteError
from disback_cli.runtime.optimizers import AdamSettings
from disback_cli.runtime.processes import average_gradients, mean_over_processes, rank_and_world, wait_for_all
from disback_cli.runtime.progress import tracked
from disback_cli.runtime.randomness import CounterRandom, counter_seed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rerecording:
    """One recording that was made on the way.

    Attributes:
        iteration: finished iterations of stage 2 at that time.
        identity: of the path's nodes, see :attr:`DegradationPath.identity`.
        network_passes: what it cost, in forward passes of the teacher.
        seconds: what it took.
    """

    iteration: int
    identity: str
    network_passes: float
    seconds: float


@dataclass(frozen=True)
class _Draws:
    """A process's part of the draws of a step."""

    random: CounterRandom
    step: int
    first: int
    count: int
    device: torch.device

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        return self.random.normal(purpose, self.step, self.first, self.count, shape, self.device)

    def uniform(self, purpose: str) -> Tensor:
        return self.random.uniform(purpose, self.step, self.first, self.count, self.device)

    def one_hot_labels(self, purpose: str, classes: int) -> Tensor | None:
        return self.random.one_hot_labels(purpose, self.step, self.first, self.count, classes, self.device)


class Rerecorder:
    """Trains a copy of the teacher towards the frozen student's samples, and keeps a path of it on disk.

    As stage 1 does, outside of its Trainer: every process takes its share of the batch, gradients are averaged, so all
    hold equal weights; the first one measures and writes. Draws depend on the run's seed, the iteration of stage 2 and
    the step alone: a run that is resumed from an older checkpoint makes the same path again.

    Args:
        run_dir: the run's folder; a path goes to ``<run_dir>/rerecorded_XXXXXXXX``, with the iteration as its number.
        schedule: when, how many nodes, how many steps.
        teacher: node 0.
        teacher_weights: its state dict on the CPU.
        make_copy: a fresh fake score that equals the teacher and is trained from there.
        law: noise levels of the denoising loss.
        weighting: factor of the denoising loss at each noise level; None is EDM's.
        optimizer: Adam's settings.
        lr: learning rate, constant.
        batch_size: samples a step, over all processes.
        passes: passes in which a process goes through its share.
        at_once: most samples of the probe that a network is asked for at a time.
        seed: of the run.
        costs: what the networks cost.
        facts: what the path's manifest says of teacher and options, asked once the nodes are there.
    """

    def __init__(
        self,
        *,
        run_dir: Path,
        schedule: RerecordSchedule,
        teacher: Denoiser,
        teacher_weights: dict[str, Tensor],
        make_copy: Callable[[], Denoiser],
        law: SigmaLaw,
        weighting: Weighting | None = None,
        optimizer: AdamSettings,
        lr: float,
        batch_size: int,
        passes: int = 1,
        at_once: int | None = None,
        seed: int,
        costs: NetworkCosts | None = None,
        facts: Callable[[Student], dict[str, Any]],
    ) -> None:
        self.run_dir, self.schedule, self.facts = run_dir, schedule, facts
        self.teacher, self.teacher_weights, self.make_copy = teacher, teacher_weights, make_copy
        self.law, self.weighting = law, weighting
        self.optimizer, self.lr = optimizer, lr
        self.batch_size, self.passes, self.at_once = batch_size, passes, at_once
        self.seed, self.costs = seed, costs or NetworkCosts()
        self.done: list[Rerecording] = []

    def folder(self, iteration: int) -> Path:
        """Where the path of an iteration lies."""
        return self.run_dir / f"rerecorded_{iteration:08d}"

    def record(self, iteration: int, student: Student, device: torch.device) -> DegradationPath:
        """Record a path towards the student as it is; all processes must call it.

        Args:
            iteration: finished iterations of stage 2.
            student: not changed.
            device: where it lies.

        Raises:
            NonFiniteError: the loss became NaN or infinite.
            UserError: the disk refused.
        """
        began, schedule, rank = time.monotonic(), self.schedule, rank_and_world()[0]
        random = CounterRandom(counter_seed(self.seed, "rerecording", iteration))
        copy = self.make_copy().to(device)
        start = {name: tensor.detach().clone() for name, tensor in node_weights(copy).items()}
        candidates = Candidates(
            self.run_dir / "candidates", nodes=schedule.nodes, spacing="distance", iterations=schedule.steps
        )
        probe = None
        if rank == 0:
            shutil.rmtree(candidates.folder, ignore_errors=True)
            subject = Subject(student, self.law, random, device)
            probe = MismatchProbe(subject, self.teacher.to(device), schedule.probe_samples, self.at_once)
        trained = [p for p in copy.parameters() if p.requires_grad]
        optimizer = self.optimizer.build(trained, self.lr)
        finite = torch.ones((), device=device)
        for step in tracked(range(schedule.steps), "recording a new path", schedule.steps, quiet=rank > 0):
            random.seed_global(step, rank)
            finite *= self._backward(copy, student, random, step, device).isfinite()
            self._update(copy, trained, optimizer)
            if probe is not None and step + 1 in candidates.steps:
                candidates.keep(step + 1, probe.measure(copy), probe.moved, node_weights(copy))
        if float(mean_over_processes(finite)) < 1:
            raise NonFiniteError(
                f"the loss of the recording after iteration {iteration} is not finite. Lower schedule.lr (it was "
                f"{self.lr:g}), or clip gradients (optimizer.clip=1)"
            )
        passes, seconds = self._network_passes(student, random, len(candidates.steps)), time.monotonic() - began
        if rank == 0:
            cost = {"images": self.batch_size * schedule.steps, "network_passes": passes, "seconds": round(seconds, 1)}
            facts = self._facts(iteration, student, copy, cost)
            candidates.make_path(self.folder(iteration), start, self.batch_size, facts)
        wait_for_all()
        path = DegradationPath(self.folder(iteration))
        self.done.append(Rerecording(iteration, path.identity, passes, seconds))
        log.info(
            "iteration %d: a new path of %d nodes towards the student, mismatch to the teacher %.4f",
            iteration, path.last, path.nodes[-1].mismatch,
        )  # fmt: skip
        return path

    def _backward(
        self, copy: Denoiser, student: Student, random: CounterRandom, step: int, device: torch.device
    ) -> Tensor:
        """The loss of this process's share of a step, gradients left in the copy."""
        rank, world = rank_and_world()
        count = self.batch_size // (world * self.passes)
        losses = []
        for number in range(self.passes):
            first = (rank * self.passes + number) * count
            with torch.enable_grad():
                draws = _Draws(random, step, first, count, device)
                evaluation = step_of(student, random, step)
                loss, _ = recording_loss(student, copy, self.law, self.weighting, draws, evaluation)
                (loss / self.passes).backward()
            losses.append(loss.detach())
        return torch.stack(losses).mean()

    def _update(self, copy: Denoiser, trained: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        average_gradients(trained)
        if self.optimizer.clip is not None:
            nn.utils.clip_grad_norm_(trained, self.optimizer.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for network in copy.modules():
            if isinstance(network, Denoiser):
                network.constrain_()

    def _network_passes(self, student: Student, random: CounterRandom, measurements: int) -> float:
        """Samples of the student and training of the copy in every step, and the probe; in passes of the teacher."""
        schedule, costs = self.schedule, self.costs
        drawn = sum(evaluations_of(step_of(student, random, step)) for step in range(schedule.steps))
        trained = schedule.steps * (costs.fake + costs.fake_backward)
        probe = costs.student * evaluations_of_all_steps(student, schedule.probe_samples)
        probe += schedule.probe_samples * (1 + costs.fake * measurements)
        return self.batch_size * (costs.student * drawn + trained) + probe

    def _facts(self, iteration: int, student: Student, copy: Denoiser, cost: dict[str, Any]) -> dict[str, Any]:
        adapter, schedule = settings_of(copy), self.schedule
        return {
            **self.facts(student),
            **({} if adapter is None else {"adapter": adapter.document()}),
            "objective": f"denoising score matching on the student's samples after {iteration} iterations",
            "recording": {
                "iterations": schedule.steps, "batch_size": self.batch_size, "seed": self.seed, "spacing": "distance",
                "lr": {"fake": self.lr, "schedule": "constant", "warmup": 0}, "after": iteration,
            },
            "cost": cost,
        }  # fmt: skip

    def weights_of(self, path: DegradationPath) -> Callable[[int], dict[str, Tensor]]:
        """Full weights of every node of a path under the teacher's names."""
        return lambda index: path.full_weights(index, self.teacher_weights)

    # Resuming -------------------------------------------------------------------------------------------------

    def state(self) -> list[dict[str, Any]]:
        """What was recorded so far, plain values; the paths themselves lie in the run's folder."""
        return [asdict(recording) for recording in self.done]

    def restore(self, state: list[dict[str, Any]]) -> DegradationPath | None:
        """Read the newest path of the checkpoint back; None if there was none yet.

        Raises:
            UserError: it is missing, damaged or another one.
        """
        self.done = [Rerecording(**recording) for recording in state]
        if not self.done:
            return None
        newest = self.done[-1]
        folder = self.folder(newest.iteration)
        way_out = (
            "Restore it, go on from a checkpoint before that iteration with resume=RUN/checkpoints/FILE.ckpt, or start "
            "over with resume=false"
        )
        try:
            path = DegradationPath(folder)
        except UserError as error:
            raise UserError(
                f"the path that this run recorded after iteration {newest.iteration} cannot be read: {error} {way_out}."
            ) from error
        if path.identity != newest.identity:
            raise UserError(
                f"{folder} is not the path that this run recorded after iteration {newest.iteration}: its nodes have "
                f"other hashes than the checkpoint says. {way_out}."
            )
        return path
