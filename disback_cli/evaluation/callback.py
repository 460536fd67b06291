"""The callback that evaluates while a stage runs: numbers on all processes, a grid of samples from the first."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from disback_cli.evaluation.comparable import require_same_metrics
from disback_cli.evaluation.measure import Measured, Sampler, collect, measure
from disback_cli.evaluation.suite import EvaluationSuite
from disback_cli.reporting.pictures import save_samples
from disback_cli.runtime.callbacks import StageCallback, Telemetry
from disback_cli.runtime.loggers import log_picture
from disback_cli.runtime.stage import Stage

log = logging.getLogger(__name__)


class Evaluation(StageCallback):
    """Measures every so many images, before the first iteration and after the last.

    Args:
        sampler: makes samples of the evaluation set from the stage's averaged network.
        suite: what is measured; None draws pictures only.
        every: images between two measurements; 0 measures at the end only.
        batch_size: samples at a time.
        telemetry: gets the numbers.
        folder: ``<run>/samples``, for the grids.
        grid: samples a picture shows.
        extent: half the width of a picture of points, so that pictures can be compared; None fits each to its points.
        at_start: measure before the first iteration too.
        compared_with: further samplers by name (the teacher's), measured once when the stage has ended.
    """

    def __init__(
        self,
        sampler: Sampler,
        suite: EvaluationSuite | None,
        *,
        every: int,
        batch_size: int,
        telemetry: Telemetry,
        folder: Path,
        grid: int = 64,
        extent: float | None = None,
        at_start: bool = True,
        compared_with: Mapping[str, Sampler] | None = None,
    ) -> None:
        self.sampler, self.suite, self.every, self.batch_size = sampler, suite, every, batch_size
        self.telemetry, self.folder, self.at_start = telemetry, folder, at_start
        self.grid, self.extent = grid, extent
        self.compared_with = dict(compared_with or {})
        self.first: Measured | None = None
        self.latest: Measured | None = None
        self.others: dict[str, Measured] = {}
        self.count = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The untrained student is a result, too."""
        assert isinstance(pl_module, Stage)
        if self.suite is not None:
            self.suite.to(pl_module.device)
        if pl_module.iteration == 0 and self.at_start:
            self.first = self.run(trainer, pl_module)

    def after_iteration(self, trainer: pl.Trainer, stage: Stage) -> None:
        """Measure when the images cross a multiple of ``every``."""
        before = stage.images_seen - stage.batch_size
        crossed = self.every > 0 and stage.images_seen // self.every != before // self.every
        if crossed or stage.iteration == stage.iterations:
            self.run(trainer, stage)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure what the student is compared with, on the same latents."""
        assert isinstance(pl_module, Stage)
        if self.suite is not None and pl_module.iteration == pl_module.iterations:
            for name, sampler in self.compared_with.items():
                self.others[name] = measure(sampler, self.suite, self.batch_size, what=f"measuring the {name}")

    def state_dict(self) -> dict[str, Any]:
        """The first measurement is part of the result, wherever the run was interrupted."""
        measured = {"first": self.first, "latest": self.latest}
        measured_with = None if self.suite is None else self.suite.provenance()
        return {
            "count": self.count,
            "measured_with": measured_with,
            **{k: asdict(v) if v else None for k, v in measured.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the measurements; they stand in one table with those to come, so they must be alike.

        Raises:
            UserError: the run was measured with other metrics, or differently.
        """
        self.count = state_dict["count"]
        first, latest = (Measured(**v) if (v := state_dict[k]) else None for k in ("first", "latest"))
        earlier = latest or first
        if earlier is None:
            return
        if self.suite is None:
            log.info("metrics=none: the measurements of the run so far are left out of its result")
            return
        if state_dict.get("measured_with") is None:
            log.warning("the checkpoint does not say how the run was measured, so its earlier numbers are left out")
            return
        require_same_metrics(
            state_dict["measured_with"], list(earlier.metrics), self.suite.provenance(), list(self.suite.names)
        )
        self.first, self.latest = first, latest

    def run(self, trainer: pl.Trainer, stage: Stage) -> Measured | None:
        """One measurement, into the row and as a picture; never of numbers that are not finite."""
        stage.check_health()
        if self.suite is not None:
            self.latest = measure(self.sampler, self.suite, self.batch_size)
            self.telemetry.row.update(self.latest.metrics)
        self.count += 1
        if trainer.is_global_zero:
            if self.latest is not None:
                numbers = "  ".join(f"{name} {value:.4g}" for name, value in self.latest.metrics.items())
                log.info("iteration %d: %s", stage.iteration, numbers)
            picture = self.folder / f"iteration_{stage.iteration:08d}.png"
            count = min(self.grid, self.suite.n) if self.suite else self.grid
            save_samples(picture, collect(self.sampler, count, max(16, self.batch_size)), self.extent)
            log_picture(trainer.loggers, "samples", picture, stage.iteration)
        return self.latest
