"""What a schedule is.

Nodes are numbered as in the path: 0 is the teacher, ``last`` (N) fits the untrained student. A position is a float: an
integer is a node, a fraction lies between two nodes (see :mod:`disback_cli.distillation.interpolation`). A schedule
counts iterations from the start of its own stage; the target only ever moves towards the teacher of its path.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """What a schedule may look at before an iteration.

    Attributes:
        iteration: finished iterations of this stage.
        target: the position that is the target now.
        mismatch: of the iteration just finished, D_fake against the target on the student's samples (see
            :func:`disback_cli.distillation.losses.mismatch`); None where ``uses_mismatch`` is False.
    """

    iteration: int
    target: float
    mismatch: float | None = None


class Schedule(ABC):
    """Order of the targets.

    Attributes:
        needs_path: whether a recorded path must be there when the stage begins.
        uses_mismatch: whether :meth:`next_target` reads the mismatch, which costs a synchronisation an iteration.
    """

    needs_path = True
    uses_mismatch = False

    def first_fake(self, last: int) -> int:
        """Node whose weights the fake score starts from."""
        return last

    @abstractmethod
    def first_target(self, last: int) -> float:
        """Position that is the target of iteration 0."""

    def prepare(self, distances: Sequence[float]) -> None:  # noqa: B027 - most schedules do not look at the path
        """Look at the path before anything else is asked.

        Args:
            distances: how far each node 0 .. N is from the teacher, node 0 first, in units of the mismatch.
        """

    def next_target(self, progress: Progress) -> float:
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


def require_interval(interval: int) -> int:
    """``interval`` if a node can be held for so many iterations.

    Raises:
        ValueError: it is less than 1.
    """
    if interval < 1:
        raise ValueError(f"schedule.interval must be at least 1, got {interval}")
    return interval
