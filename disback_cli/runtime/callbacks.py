"""What happens around a stage's iterations: telemetry, saving, stopping. Their order is that of :func:`standard`."""

from __future__ import annotations

import logging
import time
from typing import Any

import lightning.pytorch as pl
import torch

from disback_cli.runtime.checkpoint import CheckpointStore
from disback_cli.runtime.csv_logger import CsvLogger
from disback_cli.runtime.signals import StopRequest
from disback_cli.runtime.stage import Stage

log = logging.getLogger(__name__)


class StageCallback(pl.Callback):
    """A callback that is asked after every iteration of a stage, with the stage's own counter."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Hand over to :meth:`after_iteration`."""
        assert isinstance(pl_module, Stage)
        self.after_iteration(trainer, pl_module)

    def after_iteration(self, trainer: pl.Trainer, stage: Stage) -> None:
        """``stage.iteration`` iterations are finished."""


class Telemetry(StageCallback):
    """Collects what an iteration has to tell into one row; :class:`Publish` sends it.

    Args:
        every: iterations between two readings of the running means.
        collapse_below: ``sample_diversity`` under which the student counts as collapsed; warned of once. It is the
            standard deviation over one process's share of the batch, averaged over components and processes.
    """

    def __init__(self, every: int, collapse_below: float = 0.0) -> None:
        self.every = every
        self.collapse_below = collapse_below
        self.row: dict[str, float] = {}
        self._warned = False

    def after_iteration(self, trainer: pl.Trainer, stage: Stage) -> None:
        """Read the running means at a log point."""
        if stage.iteration % self.every and stage.iteration != stage.iterations:
            return
        self.row.update(stage.read_scalars())
        self.row.update(stage.facts())
        diversity = self.row.get("sample_diversity")
        if diversity is not None and diversity < self.collapse_below and not self._warned:
            self._warned = True
            log.warning(
                "iteration %d: the student's samples are nearly all alike (standard deviation over the batch %.4f, "
                "threshold %.4f): it has probably collapsed. Lower lr.student, or raise lr.fake.",
                stage.iteration, diversity, self.collapse_below,
            )  # fmt: skip


class Publish(StageCallback):
    """Sends the row that the callbacks before it have filled, if it holds anything.

    Args:
        telemetry: owner of the row.
        progress: told the newest numbers.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry
        self._started = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop rows after the checkpoint, then send what was measured before the first iteration."""
        assert isinstance(pl_module, Stage)
        for logger in trainer.loggers:
            if isinstance(logger, CsvLogger):
                logger.rewind(pl_module.iteration if pl_module.iteration else -1)
        self.after_iteration(trainer, pl_module)

    def after_iteration(self, trainer: pl.Trainer, stage: Stage) -> None:
        """One row a logger, on the axis of our own counter."""
        row = self.telemetry.row
        if not row:
            return
        row = {
            "images": stage.images_seen,
            "network_passes": stage.network_passes,
            "seconds": round(stage.seconds, 3),
            **row,
        }
        for logger in trainer.loggers:
            logger.log_metrics(row, step=stage.iteration)
        self.telemetry.row.clear()


class Saving(StageCallback):
    """Saves checkpoints, never one of numbers that are not finite.

    Args:
        store: where they go.
        every: iterations between two.
        also_at: further iterations.
        check_every: iterations between two looks for non-finite numbers; each costs a synchronisation.
    """

    def __init__(
        self, store: CheckpointStore, every: int, also_at: frozenset[int] = frozenset(), check_every: int = 1
    ) -> None:
        self.store, self.every, self.also_at, self.check_every = store, every, also_at, check_every
        self._saved_at = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the stage say where the last good checkpoint is."""
        assert isinstance(pl_module, Stage)
        pl_module.last_good = self.store.last_good

    def after_iteration(self, trainer: pl.Trainer, stage: Stage) -> None:
        """Look at the numbers, save if it is time."""
        due = stage.iteration % self.every == 0 or stage.iteration in self.also_at
        last = stage.iteration == stage.iterations
        if due or last:
            self.save(trainer, stage)
        elif stage.iteration % self.check_every == 0:
            stage.check_health()

    def save(self, trainer: pl.Trainer, stage: Stage) -> None:
        """Save this iteration, once."""
        if self._saved_at == stage.iteration:
            return
        stage.check_health()
        path = self.store.path_for(stage.iteration)
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            self.store.register(path, stage.iteration)
        self._saved_at = stage.iteration


class Stopping(StageCallback):
    """Ends the run after a SIGTERM or SIGINT to any process: all agree on the iteration, save, and stop together.

    Args:
        request: the signals.
        saving: saves before the stop.
    """

    def __init__(self, request: StopRequest, saving: Saving) -> None:
        self.request, self.saving = request, saving
        self.stopped_by = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over from Lightning, which would end the process without saving."""
        self.request.install()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give them back."""
        self.request.uninstall()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give them back."""
        self.request.uninstall()

    def after_iteration(self, trainer: pl.Trainer, stage: Stage) -> None:
        """Ask all processes; on a GPU only now and then, since asking synchronises."""
        if stage.iteration == stage.iterations:
            self.request.leave_at_once()
            return
        every = 1 if stage.device.type == "cpu" else 10
        if stage.iteration % every:
            return
        number = self.request.agreed(stage.device)
        if number:
            self.saving.save(trainer, stage)
            self.stopped_by = number
            trainer.should_stop = True


def health_interval(device: torch.device, log_every: int) -> int:
    """Iterations between two looks for non-finite numbers: each one where that is free, else at log points."""
    return 1 if device.type == "cpu" else log_every
