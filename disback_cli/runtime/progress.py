"""Progress of long work: a bar on a terminal, a line now and then in a log file."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import lightning.pytorch as pl
from tqdm import tqdm

from disback_cli.runtime.callbacks import StageCallback, Telemetry
from disback_cli.runtime.stage import Stage

log = logging.getLogger(__name__)

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts towards a total, with rate and time left.

    Args:
        what: what is being done.
        total: where the count ends.
        start: where it begins, for resumed work.
        quiet: show nothing (processes other than the first).
    """

    def __init__(self, what: str, total: int, start: int = 0, quiet: bool = False) -> None:
        self.what, self.total, self.count, self.start = what, total, start, start
        self.quiet = quiet
        self._note = ""
        self._began = self._said = time.monotonic()
        self._bar: tqdm[Any] | None = None
        if sys.stderr.isatty() and not quiet:
            self._bar = tqdm(total=total, initial=start, desc=what, leave=False, dynamic_ncols=True, mininterval=0.3)

    def advance(self, by: int = 1, note: str = "") -> None:
        """``by`` more are done; ``note`` is shown beside the count."""
        self.count += by
        self._note = note or self._note
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(by)
            return
        now = time.monotonic()
        if self.quiet or now - self._said < SECONDS_BETWEEN_LINES:
            return
        self._said = now
        rate = (self.count - self.start) / max(now - self._began, 1e-9)
        left = (self.total - self.count) / max(rate, 1e-9)
        log.info(
            "%s %d/%d, %.3g/s, %d:%02d left  %s",
            self.what, self.count, self.total, rate, left // 60, left % 60, self._note,
        )  # fmt: skip

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


def tracked(items: Iterable[T], what: str, total: int, size: int = 1, quiet: bool = False) -> Iterator[T]:
    """The items, with progress; each counts ``size`` towards ``total``."""
    progress = Progress(what, total, quiet=quiet)
    try:
        for item in items:
            yield item
            progress.advance(min(size, total - progress.count))
    finally:
        progress.close()


class StageProgress(StageCallback):
    """Progress of a stage's iterations.

    Args:
        what: name of the stage.
        telemetry: whose newest numbers are shown.
    """

    def __init__(self, what: str, telemetry: Telemetry) -> None:
        self.what, self.telemetry = what, telemetry
        self._progress: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start counting where the stage stands."""
        assert isinstance(pl_module, Stage)
        quiet = not trainer.is_global_zero
        self._progress = Progress(self.what, pl_module.iterations, pl_module.iteration, quiet)

    def after_iteration(self, trainer: pl.Trainer, stage: Stage) -> None:
        """One more."""
        assert self._progress is not None
        shown = ("fid", "loss", "fake_loss", "regression_loss", "mismatch", "target_node")
        numbers = (f"{k}={v:.4g}" for k, v in self.telemetry.row.items() if k.startswith(shown))
        self._progress.advance(1, " ".join(numbers))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the bar."""
        if self._progress is not None:
            self._progress.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the bar before the error is shown."""
        self.on_train_end(trainer, pl_module)
