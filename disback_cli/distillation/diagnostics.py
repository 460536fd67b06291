"""How far the student is from the teacher, in the teacher's own terms, while a stage runs; docs/mismatch.md defines it.

Two numbers on the student's present samples x: the mismatch of the fake score to the teacher, and the teacher's
denoising loss on x relative to its loss on its own samples.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol, cast

import lightning.pytorch as pl
from torch import Tensor

from disback_cli.denoisers.protocol import Denoiser
from disback_cli.denoisers.sampling import network_evaluations
from disback_cli.denoisers.teachers import Teacher
from disback_cli.distillation.costs import NetworkCosts
from disback_cli.distillation.probe_set import ProbeSet
from disback_cli.distillation.sigma_laws import SigmaLaw
from disback_cli.distillation.students import Student, evaluations_of_all_steps
from disback_cli.runtime.callbacks import StageCallback, Telemetry
from disback_cli.runtime.stage import Stage

log = logging.getLogger(__name__)

_USUAL_STEPS = 18  # of the many-step sampler, where a teacher does not say


class Followed(Protocol):
    """What a stage must have for its student to be probed."""

    student: Student
    fake: Denoiser
    costs: NetworkCosts


class TeacherProbe(StageCallback):
    """Adds ``mismatch_teacher`` and ``teacher_loss_ratio`` to the rows of a stage.

    The draws are a :class:`ProbeSet`'s, the same at every point and none of training's, so a probe changes nothing that
    it looks at. The first process alone works; nothing here waits for another one. Where the student is frozen its
    samples, and with them the ratio, are made once.

    Args:
        teacher: the teacher; its many-step sampler makes the samples that the ratio compares with, once a run.
        law: noise levels of the fake score's loss, at which all is measured.
        samples: size of the set; 0 measures nothing.
        telemetry: gets the numbers.
        every: images between two points, besides the start and the end; 0 has only these.
        at_log_points: measure whenever the running means are read, too.
        at_once: most samples a network is asked for at a time; None asks for all.

    Attributes:
        ratio: the newest ``teacher_loss_ratio``; None before the first.
        passes: what the probe has cost, in forward passes of the teacher, which no stage counts as its own; the same
            whether the run was resumed or not.
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        law: SigmaLaw,
        samples: int,
        telemetry: Telemetry,
        every: int = 0,
        at_log_points: bool = False,
        at_once: int | None = None,
    ) -> None:
        self.teacher, self.law, self.samples, self.at_once = teacher, law, samples, at_once
        self.telemetry, self.every, self.at_log_points = telemetry, every, at_log_points
        self.ratio: float | None = None
        self.passes = 0.0
        self._own_loss: float | None = None
        self._set: ProbeSet | None = None
        # noisy samples and the teacher's answer to them, of a student that does not change
        self._kept: tuple[Tensor, Tensor] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the set, measure the teacher on its own samples, and the untrained student."""
        assert isinstance(pl_module, Stage)
        if self.samples == 0 or not trainer.is_global_zero:
            return
        denoiser = self.teacher.denoiser.to(pl_module.device)
        self._set = ProbeSet(pl_module.random, self.law, denoiser, self.samples, pl_module.device, self.at_once)
        if self._own_loss is None:
            x = self._set.of_teacher(denoiser, self.teacher.sampler)
            self._own_loss = self._set.loss(self._set.ask(denoiser, self._set.noisy(x)), x)
            steps = int(self.teacher.sampler.get("steps", _USUAL_STEPS))
            self.passes += self.samples * (network_evaluations(steps) + 1)
        if pl_module.iteration == 0:
            self._measure(pl_module)

    def after_iteration(self, trainer: pl.Trainer, stage: Stage) -> None:
        """Measure where it is time."""
        before = stage.images_seen - stage.batch_size
        crossed = self.every > 0 and stage.images_seen // self.every != before // self.every
        logged = self.at_log_points and stage.iteration % self.telemetry.every == 0
        if self._set is not None and (crossed or logged or stage.iteration == stage.iterations):
            self._measure(stage)

    def _measure(self, stage: Stage) -> None:
        """Both numbers into the row; the ratio of a frozen student at its first point only."""
        probe, followed = self._set, cast(Followed, stage)
        assert probe is not None and self._own_loss is not None
        if self._kept is None:
            x = probe.of_student(followed.student)
            noisy = probe.noisy(x)
            answer = probe.ask(self.teacher.denoiser, noisy)
            # of a frozen student a resumed run does this again, for what is kept alone: it was told and counted before
            if self.ratio is None or _trains(followed.student):
                evaluations = evaluations_of_all_steps(followed.student, self.samples)
                self.passes += evaluations * followed.costs.student + self.samples
                self.ratio = probe.loss(answer, x) / self._own_loss
                self.telemetry.row["teacher_loss_ratio"] = self.ratio
            if not _trains(followed.student):
                self._kept = noisy, answer
        else:
            noisy, answer = self._kept
        self.telemetry.row["mismatch_teacher"] = probe.apart(probe.ask(followed.fake, noisy), answer)
        self.passes += self.samples * followed.costs.fake

    def state_dict(self) -> dict[str, Any]:
        """The teacher's loss on its own samples, so that a resumed run need not sample again, and what was spent."""
        return {"samples": self.samples, "own_loss": self._own_loss, "ratio": self.ratio, "passes": self.passes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the measurements, unless the set is another one now."""
        self.passes = state_dict["passes"]
        if state_dict["samples"] == self.samples:
            self._own_loss, self.ratio = state_dict["own_loss"], state_dict["ratio"]


def _trains(student: Student) -> bool:
    """Whether the student changes while the stage runs."""
    return any(parameter.requires_grad for parameter in student.parameters())
