"""Leaves a node when the mismatch has fallen to a share of what it was."""

from __future__ import annotations

from typing import Any

from disback_cli.distillation.schedules.base import Progress, Schedule


class AdaptiveSchedule(Schedule):
    """The path's order, each switch as soon as the student has caught up with the node.

    Caught up is measured on what the generator step computes anyway, at no extra network pass: the mismatch
    between D_fake and D_target on the student's noisy samples, smoothed by an exponential average. The student
    has caught up when the average fell to ``ratio`` times what it was over the first ``settle`` iterations on
    this node. The mismatch has a noise floor, so a cap keeps a node from holding the run for ever.

    Args:
        ratio: share of the node's first mismatch at which the next node takes over, in (0, 1).
        settle: iterations over which the first mismatch is averaged; no switch before.
        smoothing: weight of the past in the running average, in [0, 1).
        max_interval: iterations after which a node is left in any case.
    """

    uses_mismatch = True

    def __init__(self, *, ratio: float = 0.8, settle: int = 4, smoothing: float = 0.8, max_interval: int) -> None:
        if not 0 < ratio < 1:
            raise ValueError(f"schedule.ratio must be between 0 and 1, got {ratio}")
        if not 0 <= smoothing < 1:
            raise ValueError(f"schedule.smoothing must be in [0, 1), got {smoothing}")
        if not 1 <= settle < max_interval:
            raise ValueError(f"schedule needs 1 <= settle < max_interval, got {settle} and {max_interval}")
        self.ratio, self.settle, self.smoothing, self.max_interval = ratio, settle, smoothing, max_interval
        self._restart(0)

    def _restart(self, iteration: int) -> None:
        self._since = iteration
        self._first = 0.0
        self._average = 0.0

    def first_target(self, last: int) -> float:
        """Node N-1."""
        return float(last - 1)

    def next_target(self, progress: Progress) -> float:
        """The next node when the present one has been caught up with, or after ``max_interval`` iterations."""
        if progress.target == 0 or progress.mismatch is None:
            return progress.target
        spent = progress.iteration - self._since
        if spent <= self.settle:
            self._first += (progress.mismatch - self._first) / spent
            self._average = self._first
            return progress.target
        self._average += (1 - self.smoothing) * (progress.mismatch - self._average)
        if self._average <= self.ratio * self._first or spent >= self.max_interval:
            self._restart(progress.iteration)
            return progress.target - 1
        return progress.target

    def teacher_from(self, last: int) -> int:
        """After N-1 intervals of ``max_interval``, the slowest case."""
        return self.max_interval * (last - 1)

    def state(self) -> dict[str, Any]:
        """Where the present node began and what was measured on it."""
        return {"since": self._since, "first": self._first, "average": self._average}

    def restore(self, state: dict[str, Any]) -> None:
        """Take the measurement up again."""
        self._since, self._first, self._average = state["since"], state["first"], state["average"]
