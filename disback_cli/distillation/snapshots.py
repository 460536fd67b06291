"""Callback of `disback pretrain` that keeps states of the averaged network, each a model folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from disback_cli.denoisers.folder import save_model
from disback_cli.distillation.pretraining import Pretraining
from disback_cli.errors import UserError
from disback_cli.runtime.callbacks import StageCallback
from disback_cli.runtime.stage import Stage

log = logging.getLogger(__name__)


class Snapshots(StageCallback):
    """Writes ``<folder>/iteration_XXXXXXXX`` at some iterations; a resumed run writes the same again.

    Args:
        folder: ``<run>/snapshots``.
        at: iterations.
        every: and every so many; 0: none.
        iterations: length of the training.
        spec: description of the network.
        facts: what else its config.json says; ``iterations`` and ``images`` are added.
        dtype: in which the weights are stored; None is fp32.

    Raises:
        UserError: an iteration the training does not have.
    """

    def __init__(
        self,
        folder: Path,
        *,
        at: Sequence[int],
        every: int,
        iterations: int,
        spec: dict[str, Any],
        facts: dict[str, Any],
        dtype: torch.dtype | None,
    ) -> None:
        strange = [iteration for iteration in at if not 0 < iteration <= iterations]
        if strange:
            raise UserError(
                f"snapshots.at={list(at)} names {strange[0]}, which is none of iterations 1 to {iterations}: change "
                "it, or raise iterations"
            )
        self.steps = frozenset(at) | frozenset(range(every, iterations + 1, every) if every else ())
        self.folder, self.spec, self.facts, self.dtype = folder, spec, facts, dtype

    def after_iteration(self, trainer: pl.Trainer, stage: Stage) -> None:
        """Write the average, on the first process."""
        assert isinstance(stage, Pretraining)
        if stage.iteration not in self.steps or not trainer.is_global_zero:
            return
        stage.check_health()
        place = self.folder / f"iteration_{stage.iteration:08d}"
        facts = {**self.facts, "iterations": stage.iteration, "images": stage.images_seen}
        save_model(place, self.spec, stage.ema.network.state_dict(), facts, dtype=self.dtype)
        log.info("iteration %d: snapshot kept in %s", stage.iteration, place.name)
