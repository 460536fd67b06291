"""Callback of stage 1 that keeps candidates while the recording runs, and makes the path of them at its end."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from disback_cli.denoisers.protocol import Denoiser
from disback_cli.distillation.candidates import Candidates, Spacing
from disback_cli.distillation.path import Node
from disback_cli.distillation.recording import MismatchProbe, Recording
from disback_cli.distillation.students import evaluations_of_all_steps
from disback_cli.errors import UserError

log = logging.getLogger(__name__)


class PathRecorder(pl.Callback):
    """Keeps the recorded network's weights at the candidate steps and selects the nodes.

    Args:
        run_dir: candidates go to ``<run_dir>/candidates``, the finished path to ``<run_dir>/path``.
        teacher: node 0.
        nodes: how many nodes to record besides the teacher (N).
        spacing: see :class:`disback_cli.distillation.candidates.Candidates`.
        iterations: length of the recording.
        probe_samples: size of the fixed set on which the mismatch is measured.
        at_once: most samples of it that a network is asked for at a time.
    """

    def __init__(
        self,
        *,
        run_dir: Path,
        teacher: Denoiser,
        nodes: int,
        spacing: Spacing,
        iterations: int,
        probe_samples: int,
        at_once: int | None = None,
    ) -> None:
        self.candidates = Candidates(run_dir / "candidates", nodes=nodes, spacing=spacing, iterations=iterations)
        self.steps, self.path_folder = self.candidates.steps, run_dir / "path"
        self.teacher, self.iterations = teacher, iterations
        self.probe_samples, self.at_once = probe_samples, at_once
        self._probe: MismatchProbe | None = None
        # the probe's newest answer of a resumed recording, until there is a probe
        self._newest: Tensor | None = None
        self.measurements = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Make the measuring set on the run's device."""
        assert isinstance(pl_module, Recording)
        if trainer.is_global_zero:
            self._probe = MismatchProbe(pl_module, self.teacher.to(pl_module.device), self.probe_samples, self.at_once)
            if self._newest is not None:
                self._probe.newest = self._newest.to(pl_module.device)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Measure and keep a candidate at its step; on the first process, where the path is written."""
        assert isinstance(pl_module, Recording)
        if pl_module.iteration not in self.steps or not trainer.is_global_zero:
            return
        assert self._probe is not None
        self.measurements += 1
        distance = self._probe.measure(pl_module.fake)
        self.candidates.keep(pl_module.iteration, distance, self._probe.moved, pl_module.fake.state_dict())
        log.info("iteration %d: candidate kept, mismatch to the teacher %.4f", pl_module.iteration, distance)

    def state_dict(self) -> dict[str, Any]:
        """The candidates so far; those of a resumed run are made again, bit for bit."""
        return {
            "iterations": self.iterations,
            "candidates": self.candidates.state(),
            "measurements": self.measurements,
            "newest": None if self._probe is None else self._probe.newest,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the candidates of the checkpoint.

        Raises:
            UserError: the length has changed, and with it the steps at which candidates are kept.
        """
        if state_dict["iterations"] != self.iterations:
            raise UserError(
                f"this recording was started with iterations={state_dict['iterations']}, now it is {self.iterations}; "
                "its nodes would not lie where they belong. Leave it as it was, or start a new one with resume=false."
            )
        self.candidates.restore(state_dict["candidates"])
        self.measurements, self._newest = state_dict["measurements"], state_dict["newest"]

    def probe_passes(self, stage: Recording) -> float:
        """Forward passes of the teacher spent on measuring: the set, the teacher's answers and every candidate's."""
        made = stage.costs.student * evaluations_of_all_steps(stage.student, self.probe_samples)
        return made + self.probe_samples * (1 + stage.costs.fake * self.measurements)

    def finish(self, teacher_weights: dict[str, Tensor], batch_size: int, facts: dict[str, Any]) -> list[Node]:
        """Select the nodes, write the path, and remove the candidates; see :meth:`Candidates.make_path`."""
        return self.candidates.make_path(self.path_folder, teacher_weights, batch_size, facts)
