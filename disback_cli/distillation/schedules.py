"""Schedules: which node the fake score starts from, and which node is the target when.

Nodes are numbered as in the path: 0 is the teacher, ``last`` (N) fits the untrained student. A schedule counts
iterations from the start of its own stage; the target only ever moves towards the teacher.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """What a schedule may look at before an iteration.

    Attributes:
        iteration: finished iterations of this stage.
        target: the node that is the target now.
        mismatch: of the iteration just finished, D_fake against the target on the student's samples (see
            :func:`disback_cli.distillation.losses.mismatch`); None where ``uses_mismatch`` is False.
    """

    iteration: int
    target: int
    mismatch: float | None = None


class Schedule(ABC):
    """Order of the targets."""

    needs_path = True
    uses_mismatch = False

    def first_fake(self, last: int) -> int:
        """Node whose weights the fake score starts from."""
        return last

    @abstractmethod
    def first_target(self, last: int) -> int:
        """Node that is the target of iteration 0."""

    def next_target(self, progress: Progress) -> int:
        """Target of the iteration that comes next; never further from the teacher than the present one."""
        return progress.target

    def teacher_from(self, last: int) -> int:
        """Iteration by which the teacher is the target at the latest."""
        return 0

    def state(self) -> dict[str, Any]:
        """What must survive a resume, plain values."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:  # noqa: B027 - most schedules have nothing to take up
        """Take up the state of :meth:`state`."""


class PathSchedule(Schedule):
    """The paper's: fake score from node N, targets N-1, ..., 1, 0, a fixed number of iterations each.

    Args:
        interval: iterations on each node before the next one; the teacher gets all that remain.
    """

    def __init__(self, *, interval: int) -> None:
        if interval < 1:
            raise ValueError(f"schedule.interval must be at least 1, got {interval}")
        self.interval = interval

    def first_target(self, last: int) -> int:
        """Node N-1."""
        return last - 1

    def next_target(self, progress: Progress) -> int:
        """One node on after every ``interval`` iterations."""
        if progress.target > 0 and progress.iteration > 0 and progress.iteration % self.interval == 0:
            return progress.target - 1
        return progress.target

    def teacher_from(self, last: int) -> int:
        """After N-1 full intervals."""
        return self.interval * (last - 1)


class WarmStartSchedule(Schedule):
    """Fake score from node N, target always the teacher: what stage 1 alone brings, without the path."""

    def first_target(self, last: int) -> int:
        """The teacher."""
        return 0


class EndpointSchedule(Schedule):
    """Fake score from the teacher, target the teacher: the plain loop (Diff-Instruct); needs no path."""

    needs_path = False

    def first_fake(self, last: int) -> int:
        """The teacher."""
        return 0

    def first_target(self, last: int) -> int:
        """The teacher."""
        return 0


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

    def first_target(self, last: int) -> int:
        """Node N-1."""
        return last - 1

    def next_target(self, progress: Progress) -> int:
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
