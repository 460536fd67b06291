"""Sweepers that search (Optuna): the number they improve, and what a job counts that has none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import DictConfig, OmegaConf

from disback_cli.configuration import jobs
from disback_cli.configuration.jobs import Job, SweepFailed
from disback_cli.configuration.sweepreport import lower_wins, metric_of, value_of
from disback_cli.configuration.sweeptable import measured_differently, metrics_of
from disback_cli.errors import UserError

_GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
# jobs of which one at least must have come to its end: more failures than that are a mistake, not bad luck
_PATIENCE = 3


@dataclass(frozen=True)
class Search:
    """What a searching sweeper is told.

    Attributes:
        metric: the number; None takes the first sliced Wasserstein or Frechet distance.
        lower: whether a smaller one is better.
        trials: how many jobs there will be, 0 where the sweeper does not say.
    """

    metric: str | None
    lower: bool
    trials: int

    @staticmethod
    def of(sweeper: DictConfig, metric: str | None) -> Search | None:
        """The search that a sweeper's settings describe; None for a grid.

        Raises:
            UserError: its direction is not that of the metric, or it keeps a history of its own.
        """
        if sweeper.get("_target_") == _GRID:
            return None
        lower = metric is None or lower_wins(metric)
        direction = sweeper.get("direction")
        wanted = "minimize" if lower else "maximize"
        if direction is not None and getattr(direction, "name", direction) != wanted:
            raise UserError(
                f"the search is for {metric or 'the smallest distance'}, of which "
                f"{'smaller' if lower else 'larger'} values are better: give hydra.sweeper.direction={wanted}"
            )
        if sweeper.get("storage") is not None:
            raise UserError(
                "hydra.sweeper.storage: a search is continued from its own folder, with -m hydra.sweep.dir=FOLDER; "
                "leave the storage out"
            )
        return Search(metric, lower, int(sweeper.get("n_trials") or 0))

    def require_measured(self, config: DictConfig) -> None:
        """Refuse jobs that measure nothing, before the first one starts.

        Raises:
            UserError: the configuration has ``metrics=none``.
        """
        if OmegaConf.select(config, "metrics.n") == 0:
            raise UserError("metrics=none measures nothing that a search could go by; choose other metrics=...")

    def value(self, job: Job, known: Sequence[Job]) -> float:
        """The number of a job; the worst there is for one that failed or collapsed, so that the search goes on.

        Args:
            job: the job.
            known: all jobs so far, this one included.

        Raises:
            UserError: the job was done and has no such number.
            SweepFailed: the numbers so far cannot be compared.
        """
        done = [other for other in known if other.state == jobs.DONE]
        if different := measured_differently([other.folder for other in done]):
            raise SweepFailed("\n".join(["the search has nothing to go by:", *different]))
        metric = metric_of([metrics_of(other.folder) for other in done], self.metric)
        if job.state == jobs.DONE and (metric is None or metric not in metrics_of(job.folder)):
            there = ", ".join(metrics_of(job.folder)) or "none"
            raise UserError(
                f"job {job.number} has no {self.metric or 'distance (swd_, fid_)'} that the search could go by, its "
                f"numbers are: {there}. Choose one with hydra.launcher.metric=NAME, or measure with metrics=..."
            )
        value = value_of(job, metric)
        return value if value is not None else math.inf if self.lower else -math.inf

    def require_hope(self, known: Sequence[Job]) -> None:
        """Stop a search none of whose jobs works.

        Raises:
            SweepFailed: the first jobs have all failed.
        """
        if len(known) >= _PATIENCE and not any(job.state == jobs.DONE for job in known):
            lines = [f"  job {job.number} {job.state}, see {job.log}" for job in known]
            raise SweepFailed("\n".join(["no job has come to its end, so the search was stopped:", *lines]))
